"""Kernels on whole numbers: variants, starts that are forgotten, gradients, constraints, faults."""

from __future__ import annotations

import itertools
import math
import sys

import pytest
import torch
from torch import Tensor

from breaks import breaks
from motes.errors import MotesError, NanLogPotential, ShapeError
from motes.kernels import Kernel, State, kernels, move
from motes.kernels.discrete_langevin import DiscreteLangevin
from motes.kernels.flip import Flip
from motes.kernels.gwg import GibbsWithGradients
from motes.laws.discrete import Discrete
from motes.laws.tempered import Tempered
from motes.rng import Rng
from motes.testing import check_kernel
from motes.testing.exact_laws import coupled, enumerated, index
from motes.testing.kernels import sweeps
from motes.testing.violation import p_value

EXACT = [k() for k in kernels.values() if k.exact and k.discrete]
VARIANTS = [DiscreteLangevin(ordinal=True), GibbsWithGradients(balance="barker", updates=1), Flip(updates=2)]
PROBLEMS = ["bits", "labels", "ordinal"]


@pytest.mark.parametrize("kernel", VARIANTS, ids=repr)
def test_other_knobs_keep_the_laws_too(kernel: Kernel) -> None:
    check_kernel(kernel)


@pytest.mark.parametrize("kind", PROBLEMS)
@pytest.mark.parametrize("kernel", EXACT, ids=lambda k: k.name)
def test_any_start_is_forgotten(kernel: Kernel, kind: str) -> None:
    law = coupled(kind)
    states, p = enumerated(law)
    target, n = Tempered(law, 1.0), 10_000
    start = target.evaluate(states[:1].expand(n, -1), kernel.gradient)
    *_, last = sweeps(kernel, Rng(2), target, start, kernel.start(law.dim, torch.float64), 60)
    count = torch.bincount(index(law, last.state["position"]), minlength=len(p)).double()
    assert p_value(count, n * p, len(p) - 1) > 1e-6


@pytest.mark.parametrize("kernel", [GibbsWithGradients(updates=1), DiscreteLangevin()], ids=repr)
def test_the_way_back_needs_the_gradient_at_the_proposal(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    module = type(kernel).__module__
    right, slopes = sys.modules[module].gains, []

    def stale(target: Tempered, state: State) -> tuple[Tensor, Tensor]:
        slopes.append(state["likelihood_gradient"])
        return right(target, {**state, "likelihood_gradient": slopes[-1 - (len(slopes) + 1) % 2]})

    monkeypatch.setattr(f"{module}.gains", stale)
    with breaks("invariant"):
        check_kernel(kernel, on=coupled("bits"), laws=["invariant"])


def test_the_gradient_of_a_linear_density_is_what_changes_do() -> None:
    """For a log-density that is linear in the indicators, gains are exact, and balanced proposals nearly accepted."""
    tilt = Rng(0).normal((5, 3))
    law = Discrete(lambda h: (h * tilt).sum((1, 2)), 5, levels=3, one_hot=True)
    x = law.sample(Rng(1), 20)
    slope = law.evaluate(x, True)["likelihood_gradient"]
    for i, v in itertools.product(range(5), range(3)):
        y = x.clone()
        y[:, i] = v
        change = law.evaluate(y)["log_likelihood"] - law.evaluate(x)["log_likelihood"]
        assert torch.allclose(change, slope[:, i, v] - slope[torch.arange(20), i, x[:, i].long()])
    kernel, target = DiscreteLangevin(), Tempered(law, 1.0)
    sweep = kernel.sweep(Rng(2), target, target.evaluate(x, True), {"price": 20.0})
    assert float(sweep.acceptance.min()) > 0.999


def test_the_price_of_a_change_follows_the_acceptance() -> None:
    """On strongly coupled bits, frozen at what it found, the acceptance is the wanted one."""
    law = Discrete(lambda x: (4 * (2 * x - 1) * (2 * x.roll(1, 1) - 1)).sum(1) / 8, 40)
    kernel, target = DiscreteLangevin(), Tempered(law, 1.0)
    state, weight = target.evaluate(law.sample(Rng(0), 1000), True), torch.full((1000,), 1e-3, dtype=torch.float64)
    moved = move(kernel, Rng(1), target, state, weight, kernel.start(40, torch.float64), sweeps=40)
    assert moved.info["acceptance"] == pytest.approx(0.574, abs=0.06)


def test_hard_constraints_are_kept() -> None:
    """Exactly two of five bits are set: changes of one bit are all refused, and nothing is NaN."""
    law = Discrete(lambda x: torch.where(x.sum(1) == 2, 0.0 * x.sum(1), -math.inf), 5)
    x = law.sample(Rng(0), 2000)
    for kernel in EXACT:
        target, start = Tempered(law, 1.0), kernel.start(5, torch.float64)
        sweep = kernel.sweep(Rng(1), target, target.evaluate(x, kernel.gradient), start)
        legal = x.sum(1) == 2
        assert bool((sweep.state["position"][legal].sum(1) == 2).all())
        assert bool(torch.isfinite(sweep.acceptance).all())


def test_faults_are_errors_that_say_where() -> None:
    with pytest.raises(ValueError, match="levels"):
        Discrete(lambda x: x.sum(1), 3, levels=1)
    with pytest.raises(ShapeError, match=r"shape \(3,\)"):
        Discrete(lambda x: x, 3)
    law = Discrete(lambda x: torch.where(x.sum(1) == 3, math.nan, x.sum(1)), 3)
    with pytest.raises(NanLogPotential, match=r"particle \[1\]"):
        law.evaluate(torch.tensor([[0.0, 1, 1], [1, 1, 1]], dtype=torch.float64))
    with pytest.raises(MotesError, match=r"0\.\.1"):
        law.unconstrain(torch.full((2, 3), 0.5))
    with pytest.raises(ValueError, match="updates"):
        Flip(updates=0)
    with pytest.raises(ValueError, match="balance"):
        GibbsWithGradients(balance="max")
    with pytest.raises(ValueError, match="acceptance"):
        DiscreteLangevin(acceptance=0.0)
