"""Slice kernels and the stretch move against closed forms; what they promise beyond leaving a law invariant."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

import motes
from bent import after, bias
from motes.errors import MotesError
from motes.kernels import Kernel, State, Target, elliptical
from motes.kernels.dynamics import bracket
from motes.kernels.elliptical import EllipticalSlice
from motes.kernels.kernel import accepted
from motes.kernels.slice import Slice
from motes.kernels.stretch import Stretch
from motes.rng import Rng
from motes.testing import check_kernel
from motes.testing.exact_laws import Bent, bent

N, Z = 40_000, 4.9  # two-sided level 1e-6; the smallest bias that is seen is 0.025 standard deviations

KERNELS = [EllipticalSlice(), Slice(), Slice(directions="axes"), Slice(width=0.5, steps=3), Stretch(), Stretch(a=4.0)]


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_a_curved_law_is_invariant(kernel: Kernel) -> None:
    check_kernel(kernel, on=bent(3))


@pytest.mark.parametrize("kernel", [EllipticalSlice(), Slice(), Slice(directions="axes"), Stretch()], ids=repr)
def test_a_wrong_start_is_forgotten(kernel: Kernel) -> None:
    """The smallest bias that is seen is 0.15 standard deviations."""
    x = 0.5 * Rng(0).normal((1000, 2)) + 1
    assert bias(x) > Z
    assert bias(after(kernel, Rng(1), x, 200)) < Z


class Deep:
    """An rng whose slices lie deeper than they should."""

    def __init__(self, rng):
        self.rng, self.ids = rng, rng.ids

    def at(self, *a, **k):
        return Deep(self.rng.at(*a, **k))

    def __getattr__(self, name: str):
        return getattr(self.rng, name)

    def exponential(self, *a, **k) -> Tensor:
        return 1.2 * self.rng.exponential(*a, **k)


@pytest.mark.parametrize("kernel", [EllipticalSlice(), Slice()], ids=repr)
def test_at_another_level_it_is_not_invariant(kernel: Kernel) -> None:
    rng: Any = Deep(Rng(1))
    assert bias(after(kernel, rng, Bent.draw(Rng(0), N))) > Z


def test_with_another_gaussian_in_its_place_it_is_not_invariant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elliptical, "whiten", lambda rows, scale: 0.9 * rows)
    assert bias(after(EllipticalSlice(), Rng(1), Bent.draw(Rng(0), N))) > Z


def test_a_bracket_that_is_not_placed_at_random_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def fixed(rng, target, curve, level, width, most):
        return -0.1 * width, 0.9 * width, 0

    monkeypatch.setattr("motes.kernels.slice.step_out", fixed)
    assert bias(after(Slice(directions="axes"), Rng(1), Bent.draw(Rng(0), N))) > Z


def test_brackets_keep_to_their_bound_and_share_it_out_evenly() -> None:
    """On a flat density the bracket is `most` widths long, and 0 is uniform in it."""

    class Flat(Bent):
        def log_density(self, state: State) -> Tensor:
            return 0 * state["value"]

    x = torch.zeros(N, 1, dtype=torch.float64)
    width, level = torch.full((N,), 0.5, dtype=torch.float64), torch.full((N,), -1.0, dtype=torch.float64)
    flat = Flat()
    flat.evaluate = lambda position, gradient: {"position": position, "value": position[:, 0]}
    low, high, evaluations = bracket.step_out(Rng(0), flat, lambda i, t: (x[i], 0.0), level, width, 5)
    assert torch.allclose(high - low, torch.full_like(low, 2.5)) and evaluations == 4 * N
    place = (-low / 2.5).sort().values
    grid = (torch.arange(N) + 0.5) / N
    assert float((place - grid).abs().max()) * math.sqrt(N) < 2.7  # Kolmogorov, level 1e-6
    assert torch.equal(
        bracket.step_out(Rng(0), flat, lambda i, t: (x[i], 0.0), level, width, 1)[1] - width,
        bracket.step_out(Rng(0), flat, lambda i, t: (x[i], 0.0), level, width, 1)[0],
    )


def test_a_slice_that_is_a_single_point_leaves_the_particle_there() -> None:
    class Point(Bent):
        def log_density(self, state: State) -> Tensor:
            return torch.where(state["position"][:, 0] == math.pi, 0.0, -math.inf)

    x, target = torch.full((5, 2), math.pi, dtype=torch.float64), Point()
    sweep = Slice().sweep(Rng(0), target, target.evaluate(x, False), Slice().start(2, x.dtype))
    assert torch.allclose(sweep.state["position"], x, rtol=1e-14)


def test_a_gaussian_takes_one_evaluation_and_its_ellipse_any_angle() -> None:
    class Standard(Bent):
        def log_density(self, state: State) -> Tensor:
            return -0.5 * state["position"].square().sum(1)

    target, x = Standard(), Rng(0).normal((N, 3))
    kernel = EllipticalSlice()
    sweep = kernel.sweep(Rng(1), target, target.evaluate(x, False), kernel.start(3, x.dtype))
    assert sweep.evaluations == 1.0
    # the angle is uniform, so that the correlation with the start is E cos t = 0
    assert abs(float((sweep.state["position"] * x).sum(1).mean())) < Z * math.sqrt(3 * 1.5 / N)


def test_the_reference_is_what_makes_up_for_any_mean_and_scale() -> None:
    """Dense factors and a mean far off leave the law invariant too: only the efficiency changes."""
    factor = torch.tensor([[1.5, 0.0], [0.8, 0.7]], dtype=torch.float64)
    knobs = {"mean": torch.tensor([[1.0, -0.5], [0.3, 0.9]], dtype=torch.float64), "scale": torch.stack([factor] * 2)}
    assert bias(after(EllipticalSlice(), Rng(1), Bent.draw(Rng(0), N + 1), knobs=knobs)) < Z


class Uniform(Target):
    """Uniform on the unit ball, or on the simplex x >= 0, sum x <= 1."""

    def __init__(self, body: str):
        self.body = body

    def evaluate(self, position: Tensor, gradient: bool) -> State:
        if self.body == "ball":
            inside = position.square().sum(1) < 1
        else:
            inside = (position > 0).all(1) & (position.sum(1) < 1)
        return {"position": position, "value": torch.where(inside, 0.0, -math.inf)}

    def log_density(self, state: State) -> Tensor:
        return state["value"]

    def gradient(self, state: State) -> Tensor:
        return torch.zeros_like(state["position"])


@pytest.mark.parametrize("kernel", [Slice(), Slice(directions="axes"), EllipticalSlice(), Stretch()], ids=repr)
def test_uniform_on_a_ball_and_on_a_simplex(kernel: Kernel) -> None:
    """From one corner; the smallest bias that is seen is 0.13 standard deviations."""
    n, d, sweeps = 1500, 4, 400 if isinstance(kernel, Stretch) else 100
    small = 0.05 * Rng(0).uniform((n, d)) + 0.01
    x = after(kernel, Rng(1), small, sweeps, Uniform("ball"))
    moments = [(x[:, 0], 0.0), (x.square().sum(1), d / (d + 2)), (x[:, 0] * x[:, 1], 0.0)]
    y = after(kernel, Rng(2), small, sweeps, Uniform("simplex"))
    moments += [(y[:, 0], 1 / (d + 1)), (y[:, 0] ** 2, 2 / ((d + 1) * (d + 2))), (y.sum(1), d / (d + 1))]
    assert max(abs(float(f.mean()) - truth) / float(f.std()) * math.sqrt(n) for f, truth in moments) < Z


def test_the_stretch_move_is_the_same_in_all_affine_coordinates() -> None:
    mix = torch.tensor([[3.0, 1.0], [0.5, 0.02]], dtype=torch.float64)
    shift = torch.tensor([5.0, -70.0], dtype=torch.float64)

    class Mapped(Bent):
        def evaluate(self, position: Tensor, gradient: bool) -> State:
            return {**super().evaluate((position - shift) @ torch.linalg.inv(mix), gradient), "position": position}

    x = Bent.draw(Rng(0), 100)
    plain, mapped = after(Stretch(), Rng(1), x, 20), after(Stretch(), Rng(1), x @ mix + shift, 20, Mapped())
    assert torch.allclose(plain @ mix + shift, mapped, rtol=1e-9, atol=1e-9) and not torch.equal(plain, x)


def test_with_the_stretch_to_another_power_it_is_not_invariant(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(rng: Rng, log_ratio: Tensor) -> tuple[Tensor, Tensor]:
        u = rng.at("stretch").uniform((len(log_ratio), 1))[:, 0]
        return accepted(rng, log_ratio + ((1 + u).square() / 2).log())

    monkeypatch.setattr("motes.kernels.stretch.accepted", wrong)
    assert bias(after(Stretch(), Rng(1), Bent.draw(Rng(0), N))) > Z


@pytest.mark.parametrize("kernel", ["elliptical-slice", "slice", "stretch"])
def test_tempering_finds_the_evidence(kernel: str) -> None:
    """Prior N(0, I), likelihood N(2 | x, 0.09 I) in 3 dimensions."""
    constant = -0.5 * math.log(2 * math.pi * 0.09)
    prior = Normal(torch.zeros(3, dtype=torch.float64), 1.0)
    density = motes.Density(lambda x: (-0.5 * ((x - 2) / 0.3).square() + constant).sum(-1), prior, vectorised=True)
    run = motes.sample(motes.Tempering(density, kernel=kernel), 1000, seed=1, progress=False)
    truth = 3 * (-math.log(2 * math.pi * 1.09) / 2 - 2 / 1.09)
    assert abs(run.log_evidence - truth) < Z * run.log_evidence_se < 1.0
    mean = run.mean()
    assert ((mean.value - 2 / 1.09).abs() < Z * mean.se).all()


def test_knobs_that_make_no_sense_are_errors() -> None:
    with pytest.raises(ValueError, match="sphere"):
        Slice(directions="lines")
    with pytest.raises(ValueError, match="width"):
        Slice(width=0.0)
    with pytest.raises(ValueError, match="above 1"):
        Stretch(a=1.0)
    with pytest.raises(MotesError, match="at least 6 particles"):
        after(Stretch(), Rng(0), Bent.draw(Rng(0), 5, 3))
