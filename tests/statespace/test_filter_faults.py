"""What the parts of a bootstrap filter may return: all else is an error that says where, and no wrong likelihood."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from motes import Rng
from motes.core import Transition
from motes.errors import MotesError, NanLogPotential, ShapeError, WrongType
from motes.statespace import BootstrapFilter
from motes.testing import LawViolation, check_transition

F64 = torch.float64
Y = torch.tensor([0.9, -0.2, 0.6], dtype=F64)
RHO, SIGMA, TAU = 0.8, 0.6, 1.0
Z = 4.9


class Pair(Transition):
    """x' = rho x + 0.6 noise; `means` and `deviations` make what it returns of the right mean."""

    def __init__(self, means: Any = lambda mean: mean, deviations: Any = lambda mean: SIGMA):
        self.means, self.deviations = means, deviations

    def mean(self, state: Tensor, condition: Any = None) -> Tensor:
        return self.means(condition["rho"][:, None] * state)

    def deviation(self, state: Tensor, condition: Any = None) -> Tensor:
        return self.deviations(state)


def moved(rng: Rng, theta: Any, x: Tensor, t: int) -> Tensor:
    return theta["rho"][:, None, None] * x + SIGMA * rng.normal(tuple(x.shape))


def filters(
    transition: Any = moved, initial: Any = None, seen: Any = None, y: Tensor = Y, d: int = 2
) -> BootstrapFilter:
    return BootstrapFilter(
        initial or (lambda rng, theta, size: rng.normal((len(theta["rho"]), size, d))),
        transition,
        seen or (lambda theta, x, y, t: Normal(x, TAU).log_prob(y).sum(2)),
        y,
    )


def estimates(transition: Any, n: int = 4, size: int = 3, **parts: Any) -> Tensor:
    return filters(transition, **parts).run(Rng(7), {"rho": torch.full((n,), RHO, dtype=F64)}, size, 3)[1]


def kalman() -> float:
    """log p(y) of one coordinate."""
    m, v, total = 0.0, 1.0, 0.0
    for value in Y.tolist():
        s = v + TAU**2
        total += -0.5 * math.log(2 * math.pi * s) - 0.5 * (value - m) ** 2 / s
        m, v = RHO * (m + v / s * (value - m)), RHO**2 * (v - v * v / s) + SIGMA**2
    return total


def off(found: Tensor, d: int) -> float:
    """How far the mean likelihood is from the exact one, in standard errors."""
    ratio = (found - d * kalman()).exp()
    return abs(float(ratio.mean()) - 1) / (float(ratio.std()) / math.sqrt(len(ratio)))


# ------------------------------------------------------------------------------------------------ transitions

BROADCASTS = {
    "a mean of one coordinate for two": (
        2,
        lambda mean: mean[:, :1],
        r"mean returned shape \(12, 1\) at t=1, not \(12, 2\)",
    ),
    "a mean over the rows": (
        1,
        lambda mean: mean.mean(0, keepdim=True),
        r"mean returned shape \(1, 1\) at t=1, not \(12, 1\)",
    ),
}


@pytest.mark.parametrize("d, means, said", BROADCASTS.values(), ids=BROADCASTS)
def test_a_mean_that_broadcasts_is_refused_and_would_be_wrong(d, means, said, monkeypatch):
    """The right one has the likelihood of a Kalman filter; these are far off where nothing looks at the shape."""
    with pytest.raises(ShapeError, match=said):
        estimates(Pair(means), d=d)
    with pytest.raises(LawViolation, match="mean returned shape"):
        check_transition(Pair(means), torch.ones(12, d), condition={"rho": torch.ones(12)})
    assert off(estimates(Pair(), 20_000, d=d), d) < Z
    monkeypatch.setattr(
        "motes.statespace.particle_filter.mean_and_deviation",
        lambda step, state, told, at: (step.mean(state, told), step.deviation(state, told)),
    )
    assert off(estimates(Pair(means), 20_000, d=d), d) > 2 * Z


@pytest.mark.parametrize("shape", [None, (), (2,), (12, 1), (12, 2)])
def test_deviations_of_every_shape_that_the_protocol_names(shape):
    step = Pair(deviations=lambda state: SIGMA if shape is None else torch.full(shape, SIGMA, dtype=F64))
    assert torch.equal(estimates(step), estimates(moved))
    assert (
        check_transition(step, Rng(1).normal((12, 2)), condition={"rho": torch.ones(12, dtype=F64)})["density"] < 1e-9
    )


def test_each_row_has_its_own_deviation():
    """A twin whose deviations are those of the rows before it is noticed."""
    spread = torch.linspace(0.1, 2.0, 4, dtype=F64)
    own = lambda turn: lambda state: spread.roll(turn).repeat_interleave(3)[:, None]  # noqa: E731
    plain = lambda r, p, x, t: p["rho"][:, None, None] * x + spread[:, None, None] * r.normal(tuple(x.shape))  # noqa: E731
    assert torch.equal(estimates(Pair(deviations=own(0))), estimates(plain))
    assert not torch.isclose(estimates(Pair(deviations=own(1))), estimates(plain)).any()


DEVIATIONS = {
    "rows without an axis": (lambda s: torch.full((12,), SIGMA, dtype=F64), r"deviation returned shape \(12,\) at t=1"),
    "averaged": (
        lambda s: torch.full((1, 2), SIGMA, dtype=F64),
        r"deviation returned shape \(1, 2\) at t=1.*\(12, 1\) for one",
    ),
    "negative": (lambda s: torch.tensor(-0.5), r"deviation returned -0.5 at t=1: .*positive"),
    "zero": (lambda s: 0.0, r"deviation returned 0.0 at t=1"),
    "infinite": (lambda s: torch.full_like(s, math.inf), r"deviation returned inf at t=1.*24 of 24"),
    "NaN": (lambda s: torch.where(s > s.max() - 1e-9, math.nan, SIGMA), r"deviation returned nan at t=1.*1 of 24"),
    "nothing": (lambda s: None, "deviation returned a NoneType at t=1"),
}


@pytest.mark.parametrize("deviations, said", DEVIATIONS.values(), ids=DEVIATIONS)
def test_other_deviations_are_refused(deviations, said):
    with pytest.raises(MotesError, match=said):
        estimates(Pair(deviations=deviations))
    state, told = Rng(1).normal((12, 2)), {"rho": torch.ones(12, dtype=F64)}
    with pytest.raises(MotesError, match=said.replace(" at t=1", "")):
        Pair(deviations=deviations).log_density(state, state, told)
    with pytest.raises(LawViolation, match=said.replace(" at t=1", "")):
        check_transition(Pair(deviations=deviations), state, condition=told)


def test_densities_of_next_states_of_another_shape_are_refused():
    with pytest.raises(ShapeError, match=r"next states have shape \(3, 1\), not \(3, 2\)"):
        Pair().log_density(torch.ones(3, 1), torch.ones(3, 2), {"rho": torch.ones(3)})


class NoDeviation(Transition):
    def mean(self, state: Tensor, condition: Any = None) -> Tensor:
        return state


class NoDensity:
    mean = deviation = NoDeviation.mean


class Nothing(Transition):
    pass


def test_a_transition_that_lacks_a_method_is_refused_when_the_filter_is_made():
    for step, said in (
        (NoDeviation(), "is a NoDeviation without deviation:"),
        (NoDensity(), "is a NoDensity without log_density:"),
        (Nothing(), "is a Nothing without mean and deviation:"),
        (Pair, r"is the class Pair: give an instance of it, Pair\(...\)"),
    ):
        with pytest.raises(WrongType, match="^transition " + said):
            filters(step)
        with pytest.raises(WrongType, match=r"^transition\[1\] " + said):
            filters([Pair(), step])
        with pytest.raises(WrongType, match="^transition " + said):
            check_transition(step, torch.ones(2, 2))
    with pytest.raises(WrongType, match=r"transition must be a function .* not 0\.5"):
        filters(0.5)
    with pytest.raises(WrongType, match="log_observation must be a function, not 1"):
        filters(seen=1)


def test_methods_may_be_an_instances_own():
    step = NoDeviation()
    step.mean = lambda state, condition=None: condition["rho"][:, None] * state
    step.deviation = lambda state, condition=None: torch.tensor(SIGMA, dtype=F64)
    assert torch.equal(estimates(step), estimates(moved))


def test_a_function_that_happens_to_have_a_mean_is_a_function():
    class Net(torch.nn.Module):
        def forward(self, rng, theta, x, t):
            return moved(rng, theta, x, t)

        def mean(self):
            return 0.0

    for step in (Net(), [moved, Net()]):
        assert torch.equal(estimates(step), estimates(moved))


# ------------------------------------------------------------------------------------------------ functions

NAN = torch.tensor([0.0, math.nan, 0.0, 0.0], dtype=F64)[:, None, None]
SAID = {
    "initial of too few": (
        {"initial": lambda r, p, n: r.normal((4, 1, 2))},
        r"initial returned x of shape \(4, 1, 2\), not \(4, 3\)",
    ),
    "initial in a dict": (
        {"initial": lambda r, p, n: {"a": r.normal((n, 4))}},
        r"initial returned x\['a'\] of shape \(3, 4\)",
    ),
    "initial no tensor": (
        {"initial": lambda r, p, n: {"a": 1}},
        r"initial returned x\['a'\] that is no tensor .* but int",
    ),
    "initial NaN": (
        {"initial": lambda r, p, n: r.normal((4, n, 2)) + NAN},
        r"initial returned NaN in x .*particle \[1\]",
    ),
    "moved to one row": (
        {"transition": lambda r, p, x, t: x.mean(1, keepdim=True)},
        r"transition at t=1 returned x of shape \(4, 1, 2\)",
    ),
    "moved to nothing": ({"transition": lambda r, p, x, t: None}, "transition at t=1 returned x that is no tensor"),
    "moved to NaN": (
        {"transition": lambda r, p, x, t: x + NAN if t == 2 else x},
        r"transition at t=2 returned NaN .*particle \[1\]",
    ),
    "a transition to NaN": (
        {"transition": Pair(lambda mean: mean * math.nan)},
        r"transition at t=1 returned NaN .*\[0, 1, 2, 3\]",
    ),
    "seen by coordinate": (
        {"seen": lambda p, x, y, t: Normal(x, TAU).log_prob(y)},
        r"log_observation must return shape \(4, 3\), not \(4, 3, 2\) as at t=0",
    ),
    "float32 moved by float64": (
        {"initial": lambda r, p, n: torch.zeros(4, n, 2)},
        "transition at t=1 made x torch.float64 of torch.float32",
    ),
    "the same by a Transition": (
        {"transition": Pair(), "initial": lambda r, p, n: torch.zeros(4, n, 2)},
        "at t=1 made x torch.float64 of",
    ),
}


@pytest.mark.parametrize("parts, said", SAID.values(), ids=SAID)
def test_what_functions_return(parts, said):
    with pytest.raises(MotesError, match=said):
        estimates(parts.get("transition", moved), **{k: v for k, v in parts.items() if k != "transition"})


def test_a_missing_observation_is_named_and_may_be_handled():
    y = torch.tensor([0.9, math.nan, 0.6], dtype=F64)
    for seen in (None, lambda theta, x, y, t: -(y - x).square().sum(2)):  # a distribution refuses NaN, a formula not
        with pytest.raises(NanLogPotential, match=r"t=1.*; the observation at t=1 is itself NaN"):
            estimates(moved, seen=seen, y=y)
    with pytest.raises(NanLogPotential, match=r"t=0 .*must get -inf"):
        estimates(moved, seen=lambda theta, x, y, t: x[..., 0] * math.nan, y=y)
    handled = estimates(
        moved, y=y, seen=lambda p, x, y, t: torch.zeros(4, 3) if y.isnan() else Normal(x, TAU).log_prob(y).sum(2)
    )
    assert bool(handled.isfinite().all())


def test_sizes_and_numbers_of_observations():
    theta = {"rho": torch.full((4,), RHO, dtype=F64)}
    for size in (0, -1, 2.5):
        with pytest.raises(MotesError, match=f"at least one, not size={size}"):
            filters().run(Rng(0), theta, size, 3)
    for stop in (4, -1, 1.5):
        with pytest.raises(MotesError, match=f"stop={stop} is not a number of observations from 0 to 3"):
            filters().run(Rng(0), theta, 3, stop)
    assert torch.equal(filters().run(Rng(0), theta, 3, 0)[1], torch.zeros(4, dtype=F64))


@pytest.mark.parametrize("t", [3, -1, 0.5])
def test_an_observation_that_is_not_there_is_refused(t: Any) -> None:
    model, theta = filters(), {"rho": torch.full((4,), RHO, dtype=F64)}
    with pytest.raises(MotesError, match=rf"t={t} is none of the T=3 observations"):
        model.step(Rng(0), theta, model.start(Rng(0), theta, 2), t)
