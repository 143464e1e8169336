"""Kernels whose velocities last: what is invariant together with them, trajectories with friction, eigenvalues."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

import motes
from motes.density import Tempering
from motes.kernels import HMC, Kernel, State, Sweep, Target, kernels, move
from motes.kernels import meads as meads_file
from motes.kernels import underdamped as underdamped_file
from motes.kernels.malt import MALT
from motes.kernels.meads import MEADS
from motes.kernels.underdamped import Underdamped
from motes.laws import Density
from motes.rng import Rng

N = 100_000
Z = 4.9  # two-sided level 1e-6
NEW = ["baoab", "barker", "independence", "mala", "malt", "meads", "pcn", "pcn-langevin", "ula", "underdamped"]


class Bent(Target):
    """x_0 ~ N(0, 1), x_1 | x_0 ~ N(x_0^2 / 2, 1/4)."""

    @staticmethod
    def sample(n: int) -> Tensor:
        u = Rng(11).normal((n, 2))
        return torch.stack([u[:, 0], 0.5 * u[:, 0].square() + 0.5 * u[:, 1]], 1)

    def evaluate(self, position: Tensor, gradient: bool) -> State:
        a, off = position[:, 0], position[:, 1] - 0.5 * position[:, 0].square()
        slope = torch.stack([-a + 4 * off * a, -4 * off], 1)
        return {"position": position, "value": -0.5 * a.square() - 2 * off.square(), "slope": slope}

    def log_density(self, state: State) -> Tensor:
        return state["value"]

    def gradient(self, state: State) -> Tensor:
        return state["slope"]


class Round(Target):
    """N(0, I)."""

    def evaluate(self, position: Tensor, gradient: bool) -> State:
        return {"position": position, "value": -0.5 * position.square().sum(1)}

    def log_density(self, state: State) -> Tensor:
        return state["value"]

    def gradient(self, state: State) -> Tensor:
        return -state["position"]


def scores(state: State) -> dict[str, float]:
    """z-scores of functions of positions, velocities and slice numbers whose expectations are known."""
    x, v, g = state["position"], state["velocity"], state["slope"]
    off = 2 * (x[:, 1] - 0.5 * x[:, 0].square())
    found = {
        "x0": x[:, 0],
        "x0^2": x[:, 0].square() - 1,
        "off": off,
        "off^2": off.square() - 1,
        "v": v.sum(1),
        "|v|^2": v.square().sum(1) - 2,
        "x v": (x * v).sum(1),
        "v g": (v * g).sum(1),
        "x1 v^2": off * v[:, 0].square(),
        "energy v^2": state["value"] * (v.square().sum(1) - 2),
    }
    if "slice" in state:
        s = state["slice"]
        found |= {"s": s, "s^2": s.square() - 1 / 3, "s x0": s * x[:, 0], "s v g": s * (v * g).sum(1)}
        found |= {"s energy": s * (state["value"] + 1), "s^2 energy": (s.square() - 1 / 3) * state["value"]}
    return {k: float(f.mean() / (f.std() / math.sqrt(N))) for k, f in found.items()}


def worst(kernel: Kernel, sweeps: int = 6, rejections: float = 0.3) -> float:
    """The largest |z| after some sweeps from exact draws; sees a bias of 0.016 standard deviations."""
    target, parameters = Bent(), kernel.start(2, torch.float64)
    state = kernel.enter(Rng(3), target, target.evaluate(Bent.sample(N), True), parameters)
    rejected = 0.0
    for i in range(sweeps):
        sweep = kernel.sweep(Rng(4).at("sweep", inner=i), target, state, parameters)
        state, rejected = sweep.state, rejected + 1 - float(sweep.acceptance.mean())
    assert rejected > rejections  # or they would be seldom tested
    found = torch.tensor(list(scores(state).values())).abs()
    assert bool(torch.isfinite(found).all())
    return float(found.max())


PERSISTENT = [Underdamped(friction=0.3, acceptance=0.7), Underdamped(), MEADS(multiplier=0.8)]


@pytest.mark.parametrize("kernel", PERSISTENT, ids=repr)
def test_positions_and_velocities_are_invariant_together(kernel: Kernel) -> None:
    assert worst(kernel) < Z


def test_without_turning_round_they_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    def straight(accept: Tensor, proposal: State, state: State) -> State:
        return right(accept, proposal, {**state, "velocity": -state["velocity"]})

    for file, kernel in ((underdamped_file, PERSISTENT[0]), (meads_file, PERSISTENT[2])):
        right = file.select
        monkeypatch.setattr(file, "select", straight)
        assert worst(kernel) > Z


def test_without_rescaling_the_slice_they_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    right = meads_file.select

    def kept(accept: Tensor, proposal: State, state: State) -> State:
        return right(accept, {**proposal, "slice": state["slice"]}, state)

    monkeypatch.setattr(meads_file, "select", kept)
    assert worst(PERSISTENT[2]) > Z


def test_without_a_test_they_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    right = meads_file.select
    monkeypatch.setattr(meads_file, "select", lambda accept, a, b: right(torch.ones_like(accept), a, b))
    assert worst(MEADS(multiplier=0.2), rejections=0.0) > Z  # with a longer step it runs off to infinity


# ------------------------------------------------------------------------------------------------ trajectories


def test_trajectories_without_friction_are_hamiltonian_monte_carlo() -> None:
    target, start = Bent(), MALT(friction=0.0, length=1.7).start(2, torch.float64)
    assert start == {**HMC(length=1.7).start(2, torch.float64), "scale": start["scale"]}
    state, start = target.evaluate(Bent.sample(500), True), {**start, "leapfrog_steps": 5, "step_size": 0.34}

    def malt(friction: float) -> Sweep:
        return MALT(friction=friction).sweep(Rng(2), target, state, start)

    one, two = malt(0.0), HMC().sweep(Rng(2), target, state, start)
    assert all(torch.equal(one.state[k], two.state[k]) for k in two.state)
    assert torch.equal(one.acceptance, two.acceptance) and one.evaluations == two.evaluations
    assert 0.05 < float((two.acceptance < 0.9).double().mean())
    # hardly any friction goes another way through the code, to the same numbers up to rounding
    assert torch.allclose(malt(1e-20).acceptance, two.acceptance, rtol=1e-9)
    assert not torch.allclose(malt(1e-6).acceptance, two.acceptance, rtol=1e-9)


@pytest.mark.parametrize("friction", [0.0, 0.2, 0.5, 1.0, 1.5])
def test_trajectories_of_the_default_length_end_independent_of_their_start(friction: float) -> None:
    """On a Gaussian the mean of the end is linear in the start: its factor is that of a damped oscillator."""

    class Silent(Rng):
        def at(self, *a, **k):
            return self

        def normal(self, shape, dtype=torch.float64):
            return torch.zeros(shape, dtype=dtype)

        def uniform(self, shape, dtype=torch.float64):
            return torch.zeros(shape, dtype=dtype)

    def factor(length: float | None, steps: int = 400) -> float:
        kernel, x = MALT(friction=friction, length=length, jitter=0.0), torch.ones(1, 1, dtype=torch.float64)
        start = {**kernel.start(1, torch.float64), "leapfrog_steps": steps, "step_size": kernel.span() / steps}
        return float(kernel.sweep(Silent(0), Round(), Round().evaluate(x, True), start).state["position"])

    w = math.sqrt(1 - friction**2 / 4)
    t = 0.6
    damped = math.exp(-friction * t / 2) * (math.cos(w * t) + friction / (2 * w) * math.sin(w * t))
    assert factor(0.6) == pytest.approx(damped, abs=2e-3)
    assert factor(None) == pytest.approx(0.0, abs=5e-3)


def test_a_diverging_trajectory_is_rejected_and_stays_finite() -> None:
    target, kernel = Bent(), MALT()
    state = target.evaluate(Bent.sample(64), True)
    start = {**kernel.start(2, torch.float64), "leapfrog_steps": 40, "step_size": 50.0}
    sweep = kernel.sweep(Rng(1), target, state, start)
    assert sweep.diverged is not None and bool(sweep.diverged.all()) and float(sweep.acceptance.max()) == 0
    assert torch.equal(sweep.state["position"], state["position"])


# ------------------------------------------------------------------------------------------------ eigenvalues


def test_the_largest_eigenvalue_is_estimated_without_bias() -> None:
    """The mean of numerator and denominator over populations; with the plain sum of pairs it would be 18 % more."""
    scale, m, repeats = torch.tensor([3.0, 1.0, 0.5], dtype=torch.float64), 16, 4000
    exact = float(scale.pow(4).sum() / scale.square().sum())
    weight = torch.full((m,), 1 / m, dtype=torch.float64)
    z = Rng(0).normal((repeats, m, 3)) * scale
    size = z.square().sum(2).mean(1)
    found = torch.tensor([meads_file._largest(one, weight) for one in z], dtype=torch.float64)
    top = found * size
    error = float(top.std()) / math.sqrt(repeats)
    assert abs(float(top.mean()) - exact * float(scale.square().sum())) < Z * error
    gram = torch.einsum("rid,rie->rde", z, z) / m
    assert abs(float(gram.square().sum((1, 2)).mean()) - exact * float(scale.square().sum())) > Z * error
    wide = Rng(1).normal((10, 40))  # more dimensions than particles: the other way to the same number
    w = Rng(2).uniform((10,))
    pairs = sum(float(w[i] * w[j] * (wide[i] @ wide[j]) ** 2) for i in range(10) for j in range(10) if i != j)
    w, total = w / w.sum(), float(w.sum())
    mean = float(w @ wide.square().sum(1))
    assert meads_file._largest(wide, w) == pytest.approx(pairs / total**2 / (1 - float(w @ w)) / mean, rel=1e-10)


def test_step_size_and_damping_are_those_of_the_eigenvalues() -> None:
    mix = torch.tensor([[1.0, 0.0, 0.0], [1.8, 0.6, 0.0], [0.0, 0.0, 10.0]], dtype=torch.float64)
    x, covariance = Rng(0).normal((40_000, 3)) @ mix.T, mix @ mix.T
    precision = torch.linalg.inv(covariance)

    class Given(Round):
        def gradient(self, state: State) -> Tensor:
            return -state["position"] @ precision

    kernel = MEADS()
    start = {**kernel.start(3, torch.float64), "sweeps": 10**6}
    weight = torch.full((len(x),), 1 / len(x), dtype=torch.float64)
    found = kernel.fit(start, Given(), Given().evaluate(x, True), weight)
    sd = covariance.diagonal().sqrt()
    force, spread = sd[:, None] * precision * sd, covariance / sd[:, None] / sd
    step = 0.5 / math.sqrt(float(force.square().sum() / force.trace()))
    damping = 1 / math.sqrt(float(spread.square().sum() / spread.trace()))
    assert torch.allclose(found["scale"], sd.expand(4, 3), rtol=0.04)
    assert torch.allclose(found["step_size"], torch.full((4,), step).double(), rtol=0.04)
    assert torch.allclose(found["damping"], torch.full((4,), damping).double(), rtol=0.04)
    early = kernel.fit({**start, "sweeps": 1}, Given(), Given().evaluate(x, True), weight)
    assert torch.allclose(early["damping"], 1 / early["step_size"])


def test_a_fold_learns_from_the_next_one_alone() -> None:
    kernel, x = MEADS(), Rng(0).normal((43, 2))
    start, weight = kernel.start(2, torch.float64), torch.full((43,), 1 / 43, dtype=torch.float64)
    moved = x.clone()
    moved[:10] += Rng(1).normal((10, 2))  # fold 0
    a, b = (kernel.fit(start, Round(), Round().evaluate(v, True), weight) for v in (x, moved))
    for k in ("scale", "step_size"):
        assert torch.equal(a[k][:3], b[k][:3]) and not torch.equal(a[k][3], b[k][3])
    one = torch.zeros(43, 2, dtype=torch.float64)
    collapsed = kernel.fit(start, Round(), Round().evaluate(one, True), weight)
    assert torch.equal(collapsed["scale"], start["scale"])


def test_eigenvalue_adaptation_finds_the_scales_of_an_uneven_gaussian() -> None:
    sd = torch.logspace(-1, 1, 8, dtype=torch.float64)

    class Uneven(Round):
        def evaluate(self, position: Tensor, gradient: bool) -> State:
            return {"position": position, "value": -0.5 * (position / sd).square().sum(1)}

        def gradient(self, state: State) -> Tensor:
            return -state["position"] / sd.square()

    kernel, n = MEADS(), 4000
    state = Uneven().evaluate(Rng(0).normal((n, 8)), True)
    weight = torch.full((n,), 1 / n, dtype=torch.float64)
    parameters = kernel.fit(kernel.start(8, torch.float64), Uneven(), state, weight)
    moved = move(kernel, Rng(1), Uneven(), state, weight, parameters, sweeps=150)
    x = moved.state["position"] / sd
    assert float(x.mean(0).abs().max()) < Z / math.sqrt(n)
    assert float((x.square().mean(0) - 1).abs().max()) < Z * math.sqrt(2 / n)
    assert moved.used["step_size"].tolist() == pytest.approx([0.5] * 4, rel=0.1)
    assert 0.9 < moved.info["acceptance"] < 1


# ------------------------------------------------------------------------------------------------ all of them in use


def gaussian(d: int) -> tuple[Density, float]:
    constant = -0.5 * math.log(2 * math.pi * 0.09)
    density = Density(
        lambda x: (-0.5 * ((x - 2) / 0.3).square() + constant).sum(-1),
        Normal(torch.zeros(d, dtype=torch.float64), 1.0),
        vectorised=True,
        compile=False,
    )
    return density, d * (-math.log(2 * math.pi * 1.09) / 2 - 2 / 1.09)


@pytest.mark.parametrize("name", [name for name in NEW if kernels[name].exact])
def test_evidence_by_tempering(name: str) -> None:
    """Sees an error of a standard deviation and a half."""
    density, truth = gaussian(3)
    runs = [motes.sample(Tempering(density, kernel=name), 256, seed=s, progress=False) for s in range(8)]
    error = np.array([r.log_evidence - truth for r in runs])
    spread = max(error.std(ddof=1), np.mean([r.log_evidence_se for r in runs]))
    allowed = Z * spread / math.sqrt(8) + spread**2
    assert abs(error.mean()) < allowed and spread < 0.3, (error.mean(), spread)
    mean = runs[0].mean()
    assert float((mean.value - 2 / 1.09).abs().max()) < 0.15


def test_knobs_out_of_range_are_errors() -> None:
    for make in (
        lambda: MALT(friction=-1.0),
        lambda: MALT(friction=2.0),
        lambda: MALT(length=0.0),
        lambda: MEADS(multiplier=0.0),
    ):
        with pytest.raises(ValueError, match="needs"):
            make()
