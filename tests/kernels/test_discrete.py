"""Every registered exact kernel on whole numbers, against the enumeration of small problems; broken twins."""

from __future__ import annotations

import itertools
import math
import sys

import pytest
import torch
from scipy.stats import chi2
from torch import Tensor

from motes.errors import MotesError, NanLogPotential, ShapeError
from motes.kernels import Kernel, State, kernels, move
from motes.kernels.discrete_langevin import DiscreteLangevin
from motes.kernels.flip import Flip
from motes.kernels.gwg import GibbsWithGradients
from motes.laws.discrete import Discrete
from motes.laws.tempered import Tempered
from motes.rng import Rng

N, ALPHA = 40_000, 1e-6
EXACT = [k() for k in kernels.values() if k.exact and k.discrete]
VARIANTS = [DiscreteLangevin(ordinal=True), GibbsWithGradients(balance="barker", updates=1), Flip(updates=2)]
PROBLEMS = ["bits", "labels", "ordinal"]


def problem(kind: str) -> tuple[Discrete, Tensor, Tensor]:
    """A density, all of its states (S, d) and their probabilities (S,)."""
    d, levels = (4, 2) if kind == "bits" else (3, 3)
    one_hot = kind == "labels"
    width = d * levels if one_hot else d
    coupling = 0.5 * Rng(7).at(kind).normal((width, width))
    tilt = 0.5 * Rng(8).at(kind).normal((width,))

    def log_density(x: Tensor) -> Tensor:
        flat = x.flatten(1)
        return ((flat @ coupling) * flat).sum(1) * (1.0 if one_hot or kind == "bits" else 0.4) + flat @ tilt

    law = Discrete(log_density, d, levels=levels, one_hot=one_hot)
    states = torch.tensor(list(itertools.product(range(levels), repeat=d)), dtype=torch.float64)
    return law, states, torch.softmax(law.evaluate(states)["log_likelihood"], 0)


def index(law: Discrete, x: Tensor) -> Tensor:
    """Which of the states each row is."""
    assert law.levels is not None
    place = torch.tensor([law.levels ** (law.dim - 1 - i) for i in range(law.dim)], dtype=x.dtype)
    return (x @ place).long()


def swept(kernel: Kernel, law: Discrete, x: Tensor, sweeps: int) -> Tensor:
    target, parameters = Tempered(law, 1.0), kernel.start(law.dim, torch.float64)
    state = kernel.enter(Rng(3), target, target.evaluate(x, kernel.gradient), parameters)
    for i in range(sweeps):
        state = kernel.sweep(Rng(2).at("sweep", inner=i), target, state, parameters).state
    return state["position"]


def fit(count: Tensor, expected: Tensor, freedom: int) -> float:
    return float(chi2.sf(float(((count - expected).square() / expected).sum()), freedom))


def p_values(kernel: Kernel, kind: str) -> dict[str, float]:
    """From exact draws: is the law still the same, and is (before, after) as likely as (after, before)?"""
    law, states, p = problem(kind)
    before = Rng(0).categorical(p.log(), N)
    after = index(law, swept(kernel, law, states[before], 1))
    s = len(states)
    pairs = torch.bincount(before * s + after, minlength=s * s).view(s, s).double()
    upper = torch.triu(torch.ones(s, s, dtype=torch.bool), 1) & (pairs + pairs.T >= 10)
    forth, both = pairs[upper], (pairs + pairs.T)[upper]
    later = index(law, swept(kernel, law, states[before], 3))
    return {
        "invariant": fit(torch.bincount(later, minlength=s).double(), N * p, s - 1),
        "reversible": fit(forth, both / 2, len(both)) if kernel.reversible else 1.0,
    }


@pytest.mark.parametrize("kind", PROBLEMS)
@pytest.mark.parametrize("kernel", [*EXACT, *VARIANTS], ids=repr)
def test_the_law_is_invariant_and_the_kernel_reversible(kernel: Kernel, kind: str) -> None:
    """Would catch a state whose probability is off by 0.02 of the standard deviation of its indicator."""
    found = p_values(kernel, kind)
    assert min(found.values()) > ALPHA, found


@pytest.mark.parametrize("kind", PROBLEMS)
@pytest.mark.parametrize("kernel", EXACT, ids=lambda k: k.name)
def test_any_start_is_forgotten(kernel: Kernel, kind: str) -> None:
    law, states, p = problem(kind)
    after = index(law, swept(kernel, law, states[:1].expand(10_000, -1), 60))
    assert fit(torch.bincount(after, minlength=len(p)).double(), 10_000 * p, len(p) - 1) > ALPHA


@pytest.mark.parametrize("kernel", EXACT, ids=lambda k: k.name)
def test_without_acceptance_it_is_another_law(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    def always(rng: Rng, log_ratio: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones_like(log_ratio), torch.isfinite(log_ratio)

    assert "accepted" in vars(sys.modules[type(kernel).__module__])
    monkeypatch.setattr(f"{type(kernel).__module__}.accepted", always)
    assert p_values(kernel, "labels")["invariant"] < ALPHA


@pytest.mark.parametrize("kernel", [GibbsWithGradients(updates=1), DiscreteLangevin()], ids=repr)
def test_the_way_back_needs_the_gradient_at_the_proposal(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    module = type(kernel).__module__
    right, slopes = sys.modules[module].gains, []

    def stale(target: Tempered, state: State) -> tuple[Tensor, Tensor]:
        slopes.append(state["likelihood_gradient"])
        return right(target, {**state, "likelihood_gradient": slopes[-1 - (len(slopes) + 1) % 2]})

    monkeypatch.setattr(f"{module}.gains", stale)
    assert p_values(kernel, "bits")["invariant"] < ALPHA


@pytest.mark.parametrize("kernel", EXACT, ids=lambda k: k.name)
def test_nothing_is_evaluated_twice(kernel: Kernel) -> None:
    law, states, _ = problem("bits")
    calls, right, trial = [], law.evaluate, law.trial
    law.trial = lambda z, gradient=False, compiled=None: (calls.append(len(z)), trial(z, gradient))[1]
    weight = torch.full((len(states),), 1 / len(states), dtype=torch.float64)
    start = right(states, kernel.gradient)
    moved = move(kernel, Rng(1), Tempered(law, 0.5), start, weight, kernel.start(law.dim, states.dtype), sweeps=3)
    assert len(calls) == moved.info["evaluations"]
    fresh = right(moved.state["position"], kernel.gradient)
    assert all(torch.allclose(fresh[k], moved.state[k], rtol=1e-12, atol=1e-12) for k in fresh)


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
