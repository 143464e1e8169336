"""Every outcome of a random function, with its probability, by a stand-in for `motes.Rng`.

A draw is a decision, addressed as in `Rng` (purpose, step, inner, kind, particle, draw); the same address gives the
same answer. A categorical draw branches over its categories. A uniform number branches over the cells on which the
rest of the run does the same: the breakpoints are found by bisection down to the generator's own grid of 2^-52, where
"does the same" means that a few probes, which answer all later decisions in fixed ways, see equal results. A breakpoint
that no probe sees gives wrong probabilities and so a test that fails, not one that passes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, TypeVar

import torch
from torch import Tensor

from motes.errors import MotesError, ShapeError

T = TypeVar("T")
GRID = 1 << 52
CPU = torch.device("cpu")
COARSE = 36
"""Places at which a uniform number is tried before bisection, besides the breakpoints of earlier ones."""
PROBES = 5
MOST_CELLS = 200
CONTINUOUS = {"bits", "normal", "exponential", "gumbel", "gamma", "log_gamma", "beta", "dirichlet", "poisson", "sample"}


def middle(m: int) -> float:
    """The m-th value that `Rng.uniform` can give."""
    return (m + 0.5) / GRID


def freeze(x: Any) -> Hashable:
    """A value that is equal exactly if x is, bit for bit."""
    if isinstance(x, Tensor):
        return (tuple(x.shape), str(x.dtype), x.detach().cpu().contiguous().numpy().tobytes())
    if isinstance(x, dict):
        return tuple((k, freeze(v)) for k, v in x.items())
    if isinstance(x, (list, tuple)):
        return tuple(freeze(v) for v in x)
    return x


@dataclass
class Decisions:
    """One run: answers given so far, answers still to come, and what was left to try on the way."""

    run: Callable[[Any], Any]
    prefix: list[Any]
    breaks: set[int] = field(default_factory=set)
    """Breakpoints found so far in this enumeration: the next uniform number often has the same."""
    probe: int | None = None
    """How to answer after the prefix; None is to branch."""
    given: dict[Hashable, Any] = field(default_factory=dict)
    choices: list[Any] = field(default_factory=list)
    probability: float = 1.0
    seen: list[Hashable] = field(default_factory=list)
    todo: list[tuple[float, list[Any]]] = field(default_factory=list)

    def decide(self, address: Hashable, options: list[float] | None) -> Any:
        """A category with probabilities `options`, or a uniform number if there are none."""
        if address not in self.given:
            self.given[address] = self._choose(options)
        return self.given[address]

    def _choose(self, options: list[float] | None) -> Any:
        place = len(self.choices)
        if place < len(self.prefix):
            choice = self.prefix[place]
        elif self.probe is not None:
            self.seen.append(None if options is None else tuple(options))
            # over the probes, the answers at one place lie at equal distances, in an order that changes with the place
            turn = math.modf((place + 1) * 0.6180339887498949)[0]
            u = math.modf(((1 + place % (PROBES - 1)) * self.probe % PROBES + turn) / PROBES)[0]
            choice = u if options is None else inverse(options, u)
        else:
            ways = cells(self.run, self.choices, self.breaks) if options is None else list(enumerate(options))
            (choice, p), *others = [(c, p) for c, p in ways if p > 0]
            self.todo += [(self.probability * q, [*self.choices, c]) for c, q in others]
            self.probability *= p
        self.choices.append(choice)
        return choice


def inverse(options: list[float], u: float) -> int:
    """The category at height u of the distribution function, one of positive probability."""
    height = 0.0
    for k, p in enumerate(options):
        height += p
        if u < height and p > 0:
            return k
    return max(k for k, p in enumerate(options) if p > 0)


class Outcome:
    """What the probes see of a run whose next uniform number is the m-th; each looks when it is first asked."""

    run: Callable[[Any], Any]
    prefix: list[float]

    def __init__(self, run: Callable[[Any], Any], choices: list[Any], m: int):
        self.run, self.prefix, self.seen = run, [*choices, middle(m)], []

    def __getitem__(self, probe: int) -> Hashable:
        while len(self.seen) <= probe:
            walk = Decisions(self.run, self.prefix, probe=len(self.seen))
            result = (freeze(self.run(Draws(walk))), tuple(walk.seen))
            # where nothing was left to decide, all probes see the same
            self.seen += [result] * (1 if walk.seen else PROBES)
        return self.seen[probe]


def cells(run: Callable[[Any], Any], choices: list[Any], breaks: set[int]) -> list[tuple[float, float]]:
    """(a value, probability) for each stretch of the next uniform number on which the run does the same."""
    coarse = ((2 * i + 1) * GRID // (2 * COARSE) for i in range(COARSE))
    at = sorted({0, GRID - 1, *coarse, *breaks, *(m - 1 for m in breaks)})
    pairs = list(pairwise((m, Outcome(run, choices, m)) for m in at))[::-1]
    starts = [0]
    while pairs:
        (first, below), (last, above) = pairs.pop()
        probe = next((k for k in range(PROBES) if below[k] != above[k]), None)
        if probe is None:
            continue
        low, high = (first, below), (last, above)
        while high[0] > low[0] + 1:  # the first number whose outcome this probe can tell from `below`
            m = (low[0] + high[0]) // 2
            there = Outcome(run, choices, m)
            low, high = (low, (m, there)) if there[probe] != below[probe] else ((m, there), high)
        starts.append(high[0])
        breaks.add(high[0])
        if len(starts) > MOST_CELLS:
            raise MotesError(
                f"the result depends on a uniform number in more than {MOST_CELLS} ways: only what it decides can be "
                "enumerated, as whether it is below a threshold, and not its value"
            )
        pairs += [(high, (last, above)), ((first, below), low)]
    edges = [*sorted(starts), GRID]
    return [(middle((a + b - 1) // 2), (b - a) / GRID) for a, b in pairwise(edges)]


@dataclass(frozen=True)
class Draws:
    """A stand-in for an `Rng`."""

    walk: Decisions
    address: tuple[Any, ...] = ("", 0, 0)
    ids: tuple[int, ...] | None = None
    device: torch.device = CPU

    def at(self, purpose: str, *, step: int | None = None, inner: int | None = None) -> Draws:
        before, s, i = self.address
        path = f"{before}/{purpose}" if before else purpose
        return replace(self, address=(path, s if step is None else step, i if inner is None else inner))

    def shard(self, ids: Tensor) -> Draws:
        return replace(self, ids=tuple(ids.tolist()))

    def __getattr__(self, name: str) -> Any:
        if name in CONTINUOUS:
            raise MotesError(
                f"rng.{name} has more outcomes than can be enumerated: what is walked through may draw with "
                "categorical, bernoulli, integers, permutation, and uniform where it only decides"
            )
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _each(self, kind: str, shape: tuple[int, ...], options: Callable[[int], list[float] | None]) -> list[Any]:
        """One decision for each element of `shape`; options(k) are those of the k-th."""
        if not shape:
            return [self.walk.decide((*self.address, kind, "shared"), options(0))]
        count = math.prod(shape[1:])
        ids = range(shape[0]) if self.ids is None else self.ids
        if len(ids) != shape[0]:
            raise ShapeError(f"a shape that begins with {shape[0]} was drawn for {len(ids)} particles")
        addresses = [(*self.address, kind, i, d) for i in ids for d in range(count)]
        return [self.walk.decide(a, options(k)) for k, a in enumerate(addresses)]

    def uniform(self, shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> Tensor:
        if dtype != torch.float64:
            raise MotesError(f"uniform numbers are enumerated on the grid of torch.float64, not of {dtype}")
        values = self._each("uniform", tuple(shape), lambda _: None)
        return torch.tensor(values, dtype=dtype).reshape(tuple(shape))

    def categorical(self, log_weight: Tensor, n: int | None = None, *, row: Tensor | None = None) -> Tensor:
        log_weight = log_weight if row is None else log_weight[row]
        rows = torch.softmax(log_weight.double(), -1).reshape(-1, log_weight.shape[-1]).tolist()
        shape = (len(rows),) if log_weight.ndim == 2 else () if n is None else (n,)
        values = self._each("categorical", shape, lambda k: rows[k if log_weight.ndim == 2 else 0])
        return torch.tensor(values, dtype=torch.int64).reshape(shape)

    def bernoulli(self, p: Tensor | float) -> Tensor:
        p = torch.as_tensor(p, dtype=torch.float64)
        flat = p.flatten().tolist()
        values = self._each("bernoulli", tuple(p.shape), lambda k: [1 - flat[k], flat[k]])
        return torch.tensor(values, dtype=torch.bool).reshape(p.shape)

    def integers(self, shape: tuple[int, ...], high: int) -> Tensor:
        values = self._each("integers", tuple(shape), lambda _: [1 / high] * high)
        return torch.tensor(values, dtype=torch.int64).reshape(tuple(shape))

    def permutation(self, n: int) -> Tensor:
        left = list(range(n))
        picks = [self.walk.decide((*self.address, "permutation", k), [1 / (n - k)] * (n - k)) for k in range(n)]
        return torch.tensor([left.pop(k) for k in picks], dtype=torch.int64)


def enumerate_runs(run: Callable[[Any], T]) -> Iterator[tuple[float, T]]:
    """(probability, result) for every way in which `run(rng)` can go; the probabilities add up to 1.

    `run` may draw with categorical, bernoulli, integers and permutation, and with uniform where the number only decides
    something. It must be a function of what it draws. Its time grows with the number of outcomes: two particles with
    two states for three steps have some thousands.

    Raises:
        MotesError: `run` draws from a continuum.

    >>> from motes.testing import enumerate_runs
    >>> def heads(rng):
    ...     return int((rng.uniform((2,)) < 0.25).sum())
    >>> sum(p * count for p, count in enumerate_runs(heads))
    0.5
    """
    todo: list[tuple[float, list[Any]]] = [(1.0, [])]
    breaks: set[int] = set()
    while todo:
        probability, prefix = todo.pop()
        walk = Decisions(run, prefix, breaks, probability=probability)
        result = run(Draws(walk))
        todo += walk.todo
        yield walk.probability, result
