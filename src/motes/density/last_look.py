"""A last look at the particles of a finished run: whether they have the law that they stand for.

A sampler tells by its weights and its moves how much it varies, and not what it has never met. Three things betray
that: an upper tail of the log-likelihood so heavy that a change of temperature has no variance, scales that depend on
other coordinates (a funnel's neck has no room for a step that fits the whole), and means that drift when the particles
are moved further. Looking at the first two costs nothing, nor does asking chains how long they remember. A few sweeps
of some particles cost a share of the run; where any of these gives a hint, many sweeps of all of them decide, as far
as means begin to drift. The particles themselves stay as they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from motes.core import tree
from motes.core.estimate import student
from motes.core.remark import ALL, Remark
from motes.core.resampling import find_scheme
from motes.core.temperature import mean_excess
from motes.kernels import Kernel, State, Target, move
from motes.kernels.stationarity.dependence import FAINT, find_dependence, scales_depend
from motes.kernels.stationarity.drift import MeanDrift, drift, effective_families, median, watched
from motes.kernels.stationarity.noncentred import NonCentred
from motes.kernels.stationarity.noncentred_fit import fit_map
from motes.kernels.stationarity.probe import LEAPFROG, cost, probe, wander
from motes.kernels.stationarity.settle import mapped
from motes.rng import Rng

SHARE = 0.08
"""The share of a run's evaluations that the sweeps of some particles may cost."""
SOME, SWEEPS = 64, 4
"""The fewest particles that are worth moving, and how often they are moved before there are more of them."""
FEWEST = 16.0
"""Fewer families than this are not looked at."""
HEAVY = 0.8
"""Where the rise of the temperature times the mean excess of the log-likelihood after it is more than 1, the weights
that made the rise have no variance. Runs of `WasteFree` came to .6 at most on Gaussians and regressions, and to 1 to 3
on a Student t from a Gaussian start."""
FALSE_ALARM = 0.01
"""The probability of an alarm at each test of a drift, where the particles have their law. With .001 5 of 24 runs on a
funnel and on schools that had not entered the neck came to between .95 and 1 of the limit."""
HINT, STEEP = 0.83, 0.875
"""The parts of the limits of a drift and of the upper tail that ask for many sweeps."""
IDLE, FORGOTTEN = 0.6, 0.5
"""The part of the limit of a drift below which a round of many sweeps is the last, if it left no coordinate more
correlated with its start than this. Of 34 runs on schools and funnels whose necks were not entered the first round came
to .92 of the limit at the least, and to .66 where a prior of precisions hides the neck."""
RECALL = 0.4
"""The memory of the chains that asks for many sweeps. Few sweeps of steps of all lengths find nothing below a precision
or two unknown scales, where runs that were wrong in silence remembered .41 and more in 10 of 14 cases; those on a line
came to .32 in 10 of 14, on a Gaussian in 10 dimensions to .36 in 13 of 14."""
MOST = 1024
"""Particles that many sweeps move at most."""
TAIL, BEYOND = 0.05, 10.0
"""The part of the particles on either end whose number is watched beside the means, and how many families they are at
least: where the end of fewer lies is known too badly."""
ROUNDS, OWN, LONG = 4, 32, 64
"""Rounds of sweeps of the run's own kernel, how many each has at most, and sweeps with steps of all lengths."""


@dataclass(frozen=True)
class LastLook:
    """What a run has noted on its way, and what the last look at its particles found; numbers, for a file.

    Attributes:
        spent: evaluations of the run, a particle.
        tail: the largest rise of the temperature times mean excess of the log-likelihood after it.
        drift: how far many sweeps shifted the means, in standard errors; of two tests the one nearer to its limit.
        limit: how far they may.
        evaluations: of the look itself, in all.
        heavy: the largest such tail with which there is an error bar.
    """

    spent: float = 0.0
    tail: float = 0.0
    drift: float = 0.0
    limit: float = math.inf
    evaluations: float = 0.0
    heavy: float = HEAVY

    def after(self, evaluations: float, rise: float, log_likelihood: Tensor) -> LastLook:
        """After moves at a temperature that had risen by `rise`, which left particles with `log_likelihood` (N,)."""
        tail = rise * excess(log_likelihood) if rise > 0 else 0.0
        return replace(self, spent=self.spent + evaluations, tail=max(self.tail, tail))

    def seen(self, found: MeanDrift, families: float) -> LastLook:
        """With a test more, whose standard errors rest on `families` families."""
        limit = student.quantile(1 - FALSE_ALARM / len(found.score), families - 1)
        if found.largest / limit <= self.drift / self.limit:
            return self
        return replace(self, drift=found.largest, limit=limit)

    def below(self, part: float) -> bool:
        """Whether the drift is less than this part of its limit."""
        return self.drift < part * self.limit

    def paid(self, evaluations: float) -> LastLook:
        """After this number of further evaluations, in all."""
        return replace(self, evaluations=self.evaluations + evaluations)

    def to_shared(self) -> dict[str, Any]:
        """Everything as a tree, for the particles' `shared`."""
        return asdict(self)

    def remarks(self) -> list[str]:
        """What the user must be told."""
        said: list[str] = []
        if self.drift > self.limit:
            text = (
                f"the particles have not settled: further moves at temperature 1 shifted their means by "
                f"{self.drift:.1f} standard errors, and {self.limit:.1f} is the limit. Use motes.Tempering, which "
                "takes more care where it finds that, or another parametrisation (non-centred, if scales are unknown)"
            )
            said.append(Remark(text, ALL, withholds=True))
        if self.tail > self.heavy:
            text = (
                f"the largest log-likelihoods lie far apart (by {self.tail:.2g} nats on average, times a change of "
                f"temperature; {self.heavy} is the limit), so weights may hardly have a variance, and points that "
                "carry much of the evidence may never have been drawn. Take smaller steps of the temperature, a prior "
                "with heavier tails, or motes.density.AMIS, whose proposals have them"
            )
            said.append(Remark(text, ALL, withholds=True))
        return said


def excess(log_likelihood: Tensor) -> float:
    """By how much the largest of the log-likelihoods (N,) exceed their least, see `core.temperature.mean_excess`."""
    alive = log_likelihood[log_likelihood > -math.inf]
    return mean_excess(torch.full_like(alive, 1 / len(alive)), alive) if len(alive) else 0.0


def last_look(
    rng: Rng,
    look: LastLook,
    target: Target,
    kernel: Kernel,
    state: State,
    weight: Tensor,
    family: Tensor,
    memory: float = 0.0,
    beside: Callable[[State], Tensor] | None = None,
) -> LastLook:
    """What further moves of a finished population (N,) tell of it; the particles are not changed.

    Args:
        look: what is known so far.
        target: the law at temperature 1.
        kernel: the one that the run used, or would have used.
        state: the particles as `target` evaluated them.
        weight: (N,) their normalised weights.
        family: (N,) int64 below N; particles that may depend on each other have the same number.
        memory: how long the run's own chains remember, as a part of what leaves it without an error bar.
        beside: from a state to (N, k) further numbers whose means many sweeps must not shift.
    """
    families = effective_families(family, weight)
    if target.levels is not None or families < FEWEST or look.tail > look.heavy:
        return look  # nothing to look at, or enough to say
    n, unit = len(weight), LEAPFROG if kernel.gradient else 1
    affordable = int(SHARE * look.spent * n) // unit
    m = min(n, max(SOME, affordable // SWEEPS))
    hinted = look.tail > STEEP * look.heavy or memory > RECALL
    hinted = hinted or scales_depend(state["position"], weight, family)
    if affordable >= m and not hinted:
        x, even, of = _some(rng.at("some"), target, kernel.gradient, state, weight, family, m)
        most = unit * (affordable // m)
        found = probe(rng.at("short"), target, x, even, of, most)
        few = LastLook().seen(found, effective_families(of, even))
        look, hinted = look.paid(m * cost(most, kernel.gradient)), few.drift > HINT * few.limit
    if not hinted:
        return look
    x, even, of = _some(rng.at("many"), target, kernel.gradient, state, weight, family, min(n, MOST))
    families = effective_families(of, even)
    middle, m = median(x), len(even)
    seen = watched(target, x, middle)
    tail = min(0.5, max(TAIL, BEYOND / families))
    ends = torch.quantile(seen, torch.tensor([tail, 1 - tail], dtype=torch.float64), dim=0)

    def numbers(state: State) -> Tensor:
        value = _with_tails(watched(target, state, middle), ends)
        return value if beside is None else torch.cat([value, beside(state)], 1)

    before = numbers(x)

    def since(state: State) -> MeanDrift:
        return drift(before, numbers(state), even, of)

    settled, found, spent, left = x, since(x), 0.0, 1.0
    for after, evaluations, left in _rounds(rng.at("settle"), target, kernel, x, even):
        settled, found, spent = after, since(after), spent + evaluations
        if left < FORGOTTEN and LastLook().seen(found, families).below(IDLE):
            return look.seen(found, families).paid(m * spent)
    look = look.seen(found, families).paid(m * spent)
    if look.drift > look.limit or (left < FORGOTTEN and look.below(HINT)):
        return look
    found = since(wander(rng.at("long"), target, settled, even, unit * LONG))
    return look.seen(found, families).paid(m * unit * LONG)


def _with_tails(value: Tensor, ends: Tensor) -> Tensor:
    """(N, 4 d + 3) what is `watched` (N, 2 d + 1), and which coordinates and log-densities lie beyond their `ends`.

    A tail that was not met shows in the number of those in it before it shows in a mean.
    """
    d = value.shape[1] // 2
    which = [*range(d), 2 * d]
    low, high = ends[:, which]
    return torch.cat([value, (value[:, which] < low).to(value), (value[:, which] > high).to(value)], 1)


def _some(
    rng: Rng, target: Target, gradient: bool, state: State, weight: Tensor, family: Tensor, m: int
) -> tuple[State, Tensor, Tensor]:
    """`m` equally weighted particles, in their order, and their families, numbered from 0."""
    chosen = find_scheme("systematic")(rng, weight.log(), n=m).sort().values
    of = torch.unique(family[chosen], return_inverse=True)[1]
    x = tree.take(state, chosen)
    if gradient and not any(k.endswith("gradient") for k in x):
        x = target.evaluate(x["position"], True)
    return x, torch.full((m,), 1 / m, dtype=torch.float64), of


def _rounds(
    rng: Rng, target: Target, kernel: Kernel, state: State, weight: Tensor
) -> Iterator[tuple[State, float, float]]:
    """The particles after each round of the kernel, in non-centred coordinates where they have scales that depend on
    others; the evaluations of the round, and the largest correlation with its start that it left."""
    parameters = kernel.start(state["position"].shape[1], state["position"].dtype)
    for i in range(ROUNDS):
        dependence = find_dependence(state["position"], weight, FAINT) if kernel.anywhere else None
        fitted = None if dependence is None else fit_map(state["position"], weight, dependence)
        law, inner = mapped(target, state, fitted)
        parameters = kernel.fit(parameters, law, inner, weight)
        moved = move(
            kernel, rng.at("round", inner=i), law, inner, weight, parameters, most=OWN, max_correlation=0.1, every=True
        )
        state = law.leave(moved.state) if isinstance(law, NonCentred) else moved.state
        parameters = moved.parameters
        yield state, moved.info["evaluations"], moved.info["correlation"]
