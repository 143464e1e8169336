"""Gibbs sampling: blocks by kernels and by exact draws; conditional laws as targets."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from bent import after, bias
from motes.errors import MotesError, ShapeError
from motes.kernels import HMC, State, Target, move
from motes.kernels.flip import Flip
from motes.kernels.gibbs import Conditional, Gibbs
from motes.kernels.polar import PolarSlice
from motes.laws.discrete import Discrete
from motes.laws.tempered import Tempered
from motes.rng import Rng
from motes.testing import check_kernel
from motes.testing.exact_laws import Bent, bent

N, Z = 40_000, 4.9  # two-sided level 1e-6; the smallest bias that is seen is 0.025 standard deviations


def second(rng: Rng, x: Tensor) -> Tensor:
    """b given a, exactly."""
    return 0.5 * x[:, :1].square() + 0.5 * rng.normal((len(x), 1))


def wide(rng: Rng, x: Tensor) -> Tensor:
    """The broken twin: with 1.1 times the standard deviation."""
    return 0.5 * x[:, :1].square() + 0.55 * rng.normal((len(x), 1))


CASES = [
    Gibbs(),
    Gibbs((((0, 2), "random-walk"), ((1,), "slice"))),
    Gibbs((((0,), "slice"), ((1, 2), HMC()))),
    Gibbs((((0, 2), PolarSlice()), ((1,), second))),
    Gibbs((((1,), second), ((2, 0), HMC()), ((0, 1), "elliptical-slice"))),
]


@pytest.mark.parametrize("kernel", CASES, ids=repr)
def test_a_curved_law_is_invariant(kernel: Gibbs) -> None:
    check_kernel(kernel, on=bent(3))


def test_it_is_not_with_a_wrong_draw() -> None:
    assert bias(after(Gibbs((((0,), "slice"), ((1,), wide))), Rng(1), Bent.draw(Rng(0), N))) > Z


def test_it_is_not_if_the_others_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(self, position, gradient):
        true, x = (whole.index_copy(1, self.block, position) for whole in (self.whole, 0.9 * self.whole))
        return {**self.narrow(self.target.evaluate(x, gradient)), "whole": true}

    monkeypatch.setattr(Conditional, "evaluate", wrong)
    assert bias(after(Gibbs(), Rng(1), Bent.draw(Rng(0), N))) > Z


@pytest.mark.parametrize("kernel", [Gibbs(), Gibbs((((0,), HMC()), ((1,), second)))], ids=repr)
def test_a_wrong_start_is_forgotten(kernel: Gibbs) -> None:
    """The smallest bias that is seen is 0.15 standard deviations."""
    x = 0.5 * Rng(0).normal((1000, 2)) + 1
    assert bias(x) > Z
    assert bias(after(kernel, Rng(1), x, 250)) < Z


def test_a_conditional_law_has_the_derivatives_of_the_whole() -> None:
    x, block = Bent.draw(Rng(0), 7, 4), torch.tensor([2, 1])
    law, target = Conditional(Bent(), x, block), Bent()
    state = law.evaluate(x[:, block], True)
    assert torch.equal(law.widen(state)["position"], x)
    assert torch.equal(law.log_density(state), target.log_density(target.evaluate(x, True)))
    assert torch.equal(law.gradient(state), target.gradient(target.evaluate(x, True))[:, block])
    v, step = Rng(1).normal((7, 2)), 1e-5
    ahead, back = (law.gradient(law.evaluate(x[:, block] + s * v, True)) for s in (step, -step))
    assert torch.allclose(law.hessian_vector(x[:, block], v), (ahead - back) / (2 * step), atol=1e-6)
    rows = torch.tensor([5, 0])
    assert torch.equal(
        law.part(rows).log_density(law.part(rows).evaluate(x[rows][:, block], True)), state["value"][rows]
    )


class Pair(Bent):
    """Two normals with correlation r."""

    r = 0.8

    def evaluate(self, position: Tensor, gradient: bool) -> State:
        a, b = position[:, 0], position[:, 1]
        return {"position": position, "value": -(a * a - 2 * self.r * a * b + b * b) / (2 * (1 - self.r**2))}


def test_exact_draws_forget_at_the_known_rate() -> None:
    """The correlation of a coordinate with itself a sweep later is r^2, in whichever order."""

    def given(i: int):
        def draw(rng: Rng, x: Tensor) -> Tensor:
            return Pair.r * x[:, 1 - i : 2 - i] + math.sqrt(1 - Pair.r**2) * rng.normal((len(x), 1))

        return draw

    kernel = Gibbs((((0,), given(0)), ((1,), given(1))))
    x = Rng(0).normal((N, 2))
    x[:, 1] = Pair.r * x[:, 0] + math.sqrt(1 - Pair.r**2) * x[:, 1]
    for seed in range(1, 4):
        y = after(kernel, Rng(seed), x, 1, Pair())
        for i in range(2):
            assert abs(float((x[:, i] * y[:, i]).mean()) - Pair.r**2) < Z * math.sqrt((1 + Pair.r**4) / N)


class Counted(Bent):
    def __init__(self):
        self.points = 0

    def evaluate(self, position: Tensor, gradient: bool) -> State:
        self.points += len(position)
        return super().evaluate(position, gradient)


@pytest.mark.parametrize("kernel", CASES, ids=repr)
def test_evaluations_are_counted_and_none_is_for_nothing(kernel: Gibbs) -> None:
    target, x = Counted(), Bent.draw(Rng(0), 50, 3)
    state = target.evaluate(x, kernel.gradient)
    target.points = 0
    sweep = kernel.sweep(Rng(1), target, state, kernel.start(3, x.dtype))
    assert target.points == pytest.approx(50 * sweep.evaluations)
    fresh = Bent().evaluate(sweep.state["position"], kernel.gradient)
    assert fresh.keys() == sweep.state.keys()
    assert all(torch.allclose(fresh[k], sweep.state[k], rtol=1e-12) for k in fresh)


def test_each_block_learns_its_own_scale_and_step() -> None:
    class Stretched(Target):
        """Standard deviations 1, 100 and 0.01, 0.01."""

        size = torch.tensor([1.0, 100.0, 0.01, 0.01], dtype=torch.float64)

        def evaluate(self, position: Tensor, gradient: bool) -> State:
            return {"position": position, "slope": -position / self.size.square()}

        def log_density(self, state: State) -> Tensor:
            return 0.5 * (state["position"] * state["slope"]).sum(1)

        def gradient(self, state: State) -> Tensor:
            return state["slope"]

    target, kernel = Stretched(), Gibbs((((0, 1), HMC()), ((2, 3), "random-walk")))
    x, weight = target.size * Rng(0).normal((2000, 4)), torch.full((2000,), 5e-4, dtype=torch.float64)
    state = target.evaluate(x, True)
    parameters = kernel.fit(kernel.start(4, x.dtype), target, state, weight)
    moved = move(kernel, Rng(1), target, state, weight, parameters, sweeps=20)
    assert moved.info["correlation"] < 0.2
    own = moved.parameters["1"]["scale"]
    assert torch.allclose(
        own @ own.mT if own.ndim == 3 else own.square().diag_embed(), 1e-4 * torch.eye(2).double(), atol=3e-5
    )
    assert moved.parameters["1"]["step_size"] != parameters["1"]["step_size"]
    assert set(kernel.describe(moved.parameters)) >= {"step_size [0, 1]", "step_size [2, 3]"}


def test_whole_numbers_in_blocks() -> None:
    law = Discrete(lambda x: (x * torch.tensor([0.5, -1.0, 2.0], dtype=x.dtype)).sum(1) + x[:, 0] * x[:, 1], 3)
    kernel, n = Gibbs((((0, 2), Flip()), ((1,), "gibbs-with-gradients"))), 20_000
    assert kernel.discrete and kernel.gradient
    x, target = torch.zeros(n, 3, dtype=torch.float64), Tempered(law, 1.0)
    y = after(kernel, Rng(0), x, 30, target)
    states = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * 3)
    p = torch.softmax(law.evaluate(states)["log_likelihood"], 0)
    count = torch.bincount((y @ torch.tensor([4.0, 2.0, 1.0], dtype=torch.float64)).long(), minlength=8)
    assert float(((count - n * p) / (n * p * (1 - p)).sqrt()).abs().max()) < Z


def test_blocks_that_do_not_fit_are_errors() -> None:
    with pytest.raises(MotesError, match=r"leave out \[1\] and name \[5\]"):
        Gibbs((((0, 5), "slice"),)).start(2, torch.float64)
    with pytest.raises(MotesError, match="different column numbers"):
        Gibbs((((0, 0), "slice"),))
    with pytest.raises(MotesError, match="one by one"):
        Gibbs((((0, 1), "stretch"),))
    with pytest.raises(MotesError, match="one by one"):
        Gibbs((((0,), "slice"), ((1,), "flip")))
    with pytest.raises(ShapeError, match=r"\(5, 1\), not \(5,\)"):
        after(Gibbs((((0,), "slice"), ((1,), lambda rng, x: x[:, 1]))), Rng(0), Bent.draw(Rng(0), 5))
    assert repr(Gibbs((((1,), second), ((0,), "slice")))).startswith("Gibbs([1]: second, [0]: Slice(")
