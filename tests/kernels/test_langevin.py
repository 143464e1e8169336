"""Langevin kernels against closed forms: stationary variances of unadjusted steps, energy errors, step rules."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.linalg import solve_discrete_lyapunov, sqrtm
from torch import Tensor

from breaks import decide
from motes.kernels import HMC, Kernel, RandomWalk, State, Sweep, Target, accepted
from motes.kernels.baoab import BAOAB
from motes.kernels.barker import Barker
from motes.kernels.mala import MALA
from motes.kernels.ula import ULA
from motes.kernels.underdamped import Underdamped
from motes.rng import Rng

Z = 4.9  # two-sided level 1e-6


class Gaussian(Target):
    """N(0, P^-1)."""

    def __init__(self, precision: Tensor):
        self.precision = precision

    def evaluate(self, position: Tensor, gradient: bool) -> State:
        slope = -position @ self.precision
        return {"position": position, "value": 0.5 * (position * slope).sum(1), "slope": slope}

    def log_density(self, state: State) -> Tensor:
        return state["value"]

    def gradient(self, state: State) -> Tensor:
        return state["slope"]


class Half(Target):
    """The exponential law on x_0 > 0."""

    def evaluate(self, position: Tensor, gradient: bool) -> State:
        inside = position[:, 0] > 0
        value = torch.where(inside, -position[:, 0], -math.inf)
        return {"position": position, "value": value, "slope": torch.where(inside[:, None], -1.0, 0.0).to(position)}

    def log_density(self, state: State) -> Tensor:
        return state["value"]

    def gradient(self, state: State) -> Tensor:
        return state["slope"]


class Given:
    """An rng whose normal numbers are given and whose uniform ones accept everything."""

    def __init__(self, noise: Tensor):
        self.noise = noise

    def at(self, *a, **k):
        return self

    def normal(self, shape, dtype):
        return self.noise.expand(shape)

    def uniform(self, shape, dtype):
        return torch.zeros(shape, dtype=dtype)


def standard(d: int) -> Gaussian:
    return Gaussian(torch.eye(d, dtype=torch.float64))


def stationary(kernel: Kernel, target: Gaussian, step: float, louder: float = 1.0) -> np.ndarray:
    """The covariance of (x, v), or of x where there is no v, that the kernel's linear map leaves invariant.

    On a Gaussian a sweep without rejections is a linear map of (x, v) and the noise; its columns are the answers to
    unit vectors.
    """
    d = len(target.precision)
    parameters = {**kernel.start(d, torch.float64), "step_size": step}
    moving = "velocity" in kernel.enter(Rng(0), target, target.evaluate(torch.zeros(1, d).double(), True), parameters)
    size = 2 * d if moving else d

    def after(start: Tensor, noise: Tensor) -> np.ndarray:
        state = target.evaluate(start[:, :d].contiguous(), True)
        state |= {"velocity": start[:, d:].contiguous()} if moving else {}
        there = kernel.sweep(Given(noise), target, state, parameters).state
        return torch.cat([there[k] for k in ("position", "velocity") if k in there], 1).T.numpy()

    eye = torch.eye(size, dtype=torch.float64)
    carried = after(eye, torch.zeros(size, d, dtype=torch.float64))
    new = louder * after(torch.zeros(d, size, dtype=torch.float64), torch.eye(d, dtype=torch.float64))
    return solve_discrete_lyapunov(carried, new @ new.T)


# ------------------------------------------------------------------------------------------------ unadjusted


@pytest.mark.parametrize("t", [0.01, 0.3, 1.0])
def test_the_variance_of_unadjusted_langevin_is_what_its_docstring_says(t: float) -> None:
    variance = stationary(ULA(), standard(2), math.sqrt(2 * t))
    assert np.allclose(variance, np.eye(2) / (1 - t / 2), rtol=1e-12, atol=1e-12)
    assert not np.allclose(stationary(ULA(), standard(2), math.sqrt(2 * t), 1.001), variance, rtol=1e-4)


def test_the_default_step_of_unadjusted_langevin_has_the_stated_bias() -> None:
    for bias in (0.01, 0.05, 0.3):
        kernel = ULA(bias=bias)
        step = kernel.start(1, torch.float64)["step_size"]
        assert float(stationary(kernel, standard(1), step)[0, 0]) == pytest.approx(1 + bias, rel=1e-12)


def test_the_bias_of_unadjusted_langevin_is_not_that_of_a_few_coordinates() -> None:
    """Squared Wasserstein distances of a chain of neighbours: for all coordinates they grow like d, for two not."""

    def distances(d: int) -> tuple[float, float]:
        band = torch.ones(d - 1, dtype=torch.float64)
        precision = 2.0 * torch.eye(d, dtype=torch.float64) - 0.8 * (band.diag(1) + band.diag(-1))
        wrong = stationary(ULA(), Gaussian(precision), math.sqrt(2 * 0.05))
        right = np.linalg.inv(precision.numpy())

        def squared(a: np.ndarray, b: np.ndarray) -> float:
            root = sqrtm(b)
            return float(np.trace(a + b - 2 * np.real(sqrtm(root @ a @ root))))

        two = slice(d // 2, d // 2 + 2)
        return squared(wrong, right), squared(wrong[two, two], right[two, two])

    (all16, two16), (all64, two64) = distances(16), distances(64)
    assert all64 / all16 == pytest.approx(4.0, rel=0.1)
    assert two64 / two16 == pytest.approx(1.0, rel=0.01)
    d, t = 5, 0.3
    exact = d * (1 / math.sqrt(1 - t / 2) - 1) ** 2
    variance = stationary(ULA(), standard(d), math.sqrt(2 * t))
    assert float(((np.sqrt(np.diag(variance)) - 1) ** 2).sum()) == pytest.approx(exact, rel=1e-10)


def run(kernel: Kernel, target: Target, x: Tensor, sweeps: int, parameters: dict, learn: bool = False) -> tuple:
    weight = torch.full((len(x),), 1 / len(x), dtype=torch.float64)
    state = kernel.enter(Rng(5), target, target.evaluate(x, True), parameters)
    done = Sweep({}, weight, 0)
    for i in range(sweeps):
        done = kernel.sweep(Rng(6).at("sweep", inner=i), target, state, parameters)
        state, parameters = done.state, kernel.learn(parameters, done, weight) if learn else parameters
    return state, parameters, done


def test_unadjusted_langevin_runs_to_its_own_variance() -> None:
    n, t = 40_000, 0.3
    kernel, x = ULA(), Rng(1).normal((n, 2))
    parameters = {**kernel.start(2, torch.float64), "step_size": math.sqrt(2 * t)}
    variance = run(kernel, standard(2), x, 20, parameters)[0]["position"].square().mean()
    error = math.sqrt(2 / (2 * n)) / (1 - t / 2)  # sees 3 %; the bias is 18 %
    assert abs(float(variance) - 1 / (1 - t / 2)) < Z * error < abs(float(variance) - 1)


@pytest.mark.parametrize("kernel", [ULA(), BAOAB(), BAOAB(friction=0.3, error=0.01)], ids=repr)
@pytest.mark.parametrize("off", [1 / 8, 1.0, 3.0])
def test_the_unadjusted_step_is_learnt_from_energy_errors(kernel: ULA | BAOAB, off: float) -> None:
    start = kernel.start(10, torch.float64)
    wrong = {**start, "step_size": off * start["step_size"]}
    found = run(kernel, standard(10), Rng(1).normal((4000, 10)), 40, wrong, learn=True)[1]
    assert found["step_size"] == pytest.approx(start["step_size"], rel=0.03)


@pytest.mark.parametrize("friction", [0.2, 1.0, 5.0])
@pytest.mark.parametrize("h", [0.1, 0.8, 1.5])
def test_positions_of_baoab_are_exact_on_a_gaussian(h: float, friction: float) -> None:
    variance = stationary(BAOAB(friction=friction), standard(1), h)
    assert np.allclose(variance, np.diag([1.0, 1 - h * h / 4]), atol=1e-11)
    # the twin that adjusts, accepting everything: another splitting, whose velocities are exact instead
    other = stationary(Underdamped(friction=friction), standard(1), h)
    assert np.allclose(other, np.diag([1 / (1 - h * h / 4), 1.0]), atol=1e-11)


@pytest.mark.parametrize(("h", "friction"), [(0.05, 1.0), (0.8, 1.0), (0.8, 0.1)])
def test_the_energy_errors_of_baoab_on_a_gaussian(h: float, friction: float) -> None:
    n, d, kernel = 20_000, 10, BAOAB(friction=friction)
    parameters = {**kernel.start(d, torch.float64), "step_size": h}
    target = standard(d)
    state = target.evaluate(Rng(1).normal((n, d)), True)
    state["velocity"] = math.sqrt(1 - h * h / 4) * Rng(2).normal((n, d))
    error = kernel.sweep(Rng(3), target, state, parameters).seen["error"]
    assert float(error.var()) / d == pytest.approx(kernel._variance(h), rel=0.06)
    if h < 0.1:
        assert float(error.var()) / d == pytest.approx(h**5 * (2 * friction + h) / 16, rel=0.1)


@pytest.mark.parametrize("kernel", [ULA(), BAOAB()], ids=lambda k: k.name)
def test_unadjusted_kernels_do_not_leave_the_support(kernel: ULA | BAOAB) -> None:
    x = Rng(1).exponential((2000, 1))
    parameters = {**kernel.start(1, torch.float64), "step_size": 0.5}
    state, _, done = run(kernel, Half(), x, 20, parameters)
    assert bool((state["position"] > 0).all()) and bool(torch.isfinite(state["value"]).all())
    assert 0.5 < float(done.acceptance.mean()) < 1 and set(done.acceptance.tolist()) == {0.0, 1.0}


# ------------------------------------------------------------------------------------------------ adjusted


class Renamed:
    """The numbers that MALA draws as its proposal are those that HMC draws as its momentum."""

    def __init__(self, rng: Rng):
        self.rng = rng

    def at(self, purpose: str, **k):
        return self.rng.at("momentum" if purpose == "proposal" else purpose, **k)


def test_adjusted_langevin_is_one_leapfrog_step() -> None:
    mix = torch.tensor([[1.0, 0.3], [0.3, 2.0]], dtype=torch.float64)
    target, start = Gaussian(mix), MALA().start(2, torch.float64)
    state = target.evaluate(Rng(0).normal((500, 2)), True)
    one = MALA().sweep(Renamed(Rng(1)), target, state, start)
    two = HMC(jitter=0.0).sweep(Rng(1), target, state, {**start, "leapfrog_steps": 1})
    assert torch.allclose(one.state["position"], two.state["position"], rtol=1e-12, atol=1e-12)
    assert torch.allclose(one.acceptance, two.acceptance, rtol=1e-10)


def test_the_acceptance_of_a_langevin_step_on_a_gaussian() -> None:
    """2 Phi(-sqrt(d) h^3 / 8) in many dimensions: the step of the start has the wanted acceptance."""
    n, d = 2000, 300
    for kernel in (MALA(), MALA(acceptance=0.8), Underdamped()):
        done = run(kernel, standard(d), Rng(1).normal((n, d)), 1, kernel.start(d, torch.float64))[2]
        assert float(done.acceptance.mean()) == pytest.approx(kernel.acceptance, abs=0.04)


def test_the_spread_of_a_barker_steps_log_ratio_on_a_gaussian(monkeypatch: pytest.MonkeyPatch) -> None:
    """sqrt(15 d) h^3 / 4 for small steps; a slope of the wrong sign would make it of order h."""
    n, d, h, seen = 20_000, 20, 0.1, []
    decide(monkeypatch, lambda rng, r: (seen.append(r), accepted(rng, r))[1])
    run(Barker(), standard(d), Rng(1).normal((n, d)), 1, {**Barker().start(d, torch.float64), "step_size": h})
    assert float(seen[0].std()) == pytest.approx(math.sqrt(15 * d) * h**3 / 4, rel=0.05)


def test_a_barker_step_satisfies_detailed_balance() -> None:
    """p(x) q(x, y) a(x, y) = p(y) q(y, x) a(y, x), with q written out, for what the kernel proposes and accepts."""
    target = Gaussian(torch.tensor([[1.0, 0.6], [0.6, 2.0]], dtype=torch.float64))
    state = target.evaluate(3 * Rng(0).normal((500, 2)), True)
    parameters = {**Barker().start(2, torch.float64), "scale": torch.tensor([[1.0, 0.5], [2.0, 1.5]]).double()}

    class Always(Given):
        """Signs as they come, and everything accepted."""

        def at(self, purpose: str, **k):
            return Rng(7).at(purpose) if purpose in ("proposal", "sign") else self

    done = Barker().sweep(Always(torch.zeros(1)), target, state, parameters)
    scale = parameters["scale"].repeat_interleave(250, 0)

    def log_q(a: State, b: State) -> Tensor:
        w = (b["position"] - a["position"]) / scale
        h = parameters["step_size"]
        return (torch.nn.functional.logsigmoid(w * scale * a["slope"]) - 0.5 * (w / h).square()).sum(1)

    ahead = state["value"] + log_q(state, done.state)
    back = done.state["value"] + log_q(done.state, state)
    moved = (done.state["position"] != state["position"]).any(1)
    assert int(moved.sum()) > 400 and float(done.acceptance.min()) < 0.5
    ratio = torch.exp((back - ahead).clamp(max=0.0))
    assert torch.allclose(done.acceptance[moved], ratio[moved], rtol=1e-10)
    up = (done.state["position"] - state["position"]) * state["slope"] > 0
    assert float(up.double().mean()) > 0.6  # it goes uphill more often than not


@pytest.mark.parametrize("kernel", [MALA(), Barker(), Underdamped()], ids=lambda k: k.name)
@pytest.mark.parametrize("off", [0.1, 10.0])
def test_the_step_finds_the_wanted_acceptance(kernel: MALA | Barker | Underdamped, off: float) -> None:
    start = kernel.start(20, torch.float64)
    wrong = {**start, "step_size": off * start["step_size"]}
    done = run(kernel, standard(20), Rng(1).normal((2000, 20)), 30, wrong, learn=True)[2]
    assert float(done.acceptance.mean()) == pytest.approx(kernel.acceptance, abs=0.03)


def test_a_particle_without_density_has_acceptance_zero_not_nan() -> None:
    x = torch.tensor([[-50.0], [1.0]], dtype=torch.float64)
    for kernel in (RandomWalk(), MALA(), Barker(), Underdamped()):
        done = run(kernel, Half(), x, 1, kernel.start(1, torch.float64))[2]
        assert bool(torch.isfinite(done.acceptance).all()) and float(done.acceptance[0]) == 0


def test_knobs_out_of_range_are_errors() -> None:
    for make in (
        lambda: ULA(bias=0.0),
        lambda: MALA(acceptance=1.0),
        lambda: Barker(acceptance=0.0),
        lambda: Underdamped(friction=0.0),
        lambda: BAOAB(error=-1.0),
    ):
        with pytest.raises(ValueError, match="needs"):
            make()
