"""Who descends from whom, in bounded memory.

Between two resamplings every particle keeps its slot: that is one *generation*. Two things are kept. For standard
errors, two *anchors*: earlier generations, of which we know who of today descends from whom, and how much the
reweightings have made their families differ (see core/estimate/variance.py). For pictures, the parents at every step,
which are joined into longer strides once there are more than `RECORD` of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from motes.core.estimate.upper_tail import few_had_the_largest
from motes.core.history.growing import Growing
from motes.core.weights import normalise

SPAN = 10
"""Anchors are this many generations apart, so the older one is SPAN to 2 SPAN old: long enough for what a particle's
past says about its future to fade, short enough to leave many families."""
MOST = 1 - 1e-15
RECORD = 4_000_000
"""The most entries that the record of parents holds."""


def spread(slot: Tensor, weight: Tensor | None = None) -> float:
    """sum_r S_r^2 for the families of the particles' `slot` (N,), S_r their share of the normalised `weight` (N,).

    Without weights all particles count the same. The inverse is an effective number of families.
    """
    if weight is None:
        return float(torch.bincount(slot).square().sum()) / len(slot) ** 2
    return float(torch.bincount(slot, weights=weight).square().sum())


@dataclass(frozen=True)
class Anchor:
    """An earlier generation and its families.

    Attributes:
        generation: which one.
        slot: (N,) int32, where in it the ancestor of each of today's particles stood.
        even: the spread of its families when the weights were last made equal.
    """

    generation: int
    slot: Tensor
    even: float

    @classmethod
    def here(cls, generation: int, n: int) -> Anchor:
        """The present generation: everybody is a family."""
        return cls(generation, torch.arange(n, dtype=torch.int32), 1 / n)

    def growth(self, weight: Tensor) -> tuple[float, float]:
        """How much reweighting has done since the weights were equal, and the spread of families now.

        The first is log(1 - spread when weights were equal) - log(1 - spread now); one family that has all counts as
        1 - 10^-15 of a spread.
        """
        now = min(spread(self.slot, weight), MOST)
        return math.log1p(-min(self.even, MOST)) - math.log1p(-now), now

    def descended(self, ancestor: Tensor) -> Anchor:
        """The anchor after a resampling that gave everybody the parent `ancestor` (N,)."""
        slot = self.slot[ancestor]
        return Anchor(self.generation, slot, spread(slot))


@dataclass(frozen=True)
class Genealogy:
    """The descent of a population of `n` particles up to time `t`; a step makes a new one and leaves the old one alone.

    Attributes:
        generation: how often the population was resampled.
        anchors: the older and the younger one; before there are SPAN generations, the initial population alone.
        growth: what reweighting has done to the families of the older and of the younger anchor, over all generations.
        width: sum |growth| * spread and sum |growth| over the older anchor's reweightings: their ratio is how wide its
            families were where it mattered.
        heavy: sum |growth| over those of them whose largest weights few particles had (`core/estimate/upper_tail.py`).
        record: (N,) int32 each, the slots before `stride` steps; empty where N is too large to keep any.
        stride: how many steps an entry of the record covers.
        pending: the descent since the last entry of the record, over `t % stride` steps.
    """

    n: int
    t: int = 0
    generation: int = 0
    anchors: list[Anchor] = field(default_factory=list)
    growth: tuple[float, float] = (0.0, 0.0)
    width: tuple[float, float] = (0.0, 0.0)
    heavy: float = 0.0
    record: Growing[Tensor] = field(default_factory=lambda: Growing[Tensor]())
    stride: int = 1
    pending: Tensor | None = None

    @classmethod
    def start(cls, n: int) -> Genealogy:
        """The genealogy at t = 0."""
        return cls(n, anchors=[Anchor.here(0, n)])

    def after(self, t: int, ancestor: Tensor, resampled: bool, log_weight: Tensor) -> Genealogy:
        """The genealogy after a step to time `t`.

        Args:
            ancestor: (N,) int64 slots of the parents, the slots themselves if the population was not resampled.
            resampled: whether it was, before the step.
            log_weight: (N,) the weights before the step, by which it was resampled, nats.
        """
        ancestor, new = ancestor.cpu(), replace(self, t=t)
        if resampled:
            growth, width, heavy = self.grown(log_weight)
            generation = self.generation + 1
            if generation % SPAN == 0:
                anchors = [self.anchors[-1].descended(ancestor), Anchor.here(generation, self.n)]
            else:
                anchors = [anchor.descended(ancestor) for anchor in self.anchors]
            new = replace(new, generation=generation, anchors=anchors, growth=growth, width=width, heavy=heavy)
        return new._remembering(ancestor)

    def renewed(self) -> Genealogy:
        """The genealogy of a population that is drawn anew at the next step: every particle is a family."""
        fresh = Genealogy.start(self.n)
        anchors = [Anchor.here(self.generation, self.n)]
        return replace(self, anchors=anchors, growth=fresh.growth, width=fresh.width, heavy=fresh.heavy)

    def grown(self, log_weight: Tensor) -> tuple[tuple[float, float], tuple[float, float], float]:
        """`growth`, `width` and `heavy` with the present weights (N,), nats, taken in."""
        log_weight = log_weight.cpu()
        weight = normalise(log_weight)
        found = [anchor.growth(weight) for anchor in self.anchors]
        (step, now), younger = found[0], found[-1][0]
        size = abs(step)
        growth = self.growth[0] + step, self.growth[1] + younger
        width = self.width[0] + size * now, self.width[1] + size
        return growth, width, self.heavy + size * few_had_the_largest(log_weight)

    def families(self, log_weight: Tensor) -> float:
        """The effective number of families, descended from the older anchor, that carry the weights (N,), nats."""
        if log_weight.max() == -math.inf:
            return 0.0
        return 1 / spread(self.anchors[0].slot, normalise(log_weight.cpu()))

    def _remembering(self, ancestor: Tensor) -> Genealogy:
        """With the step in the record; when that is full, its entries are joined in pairs."""
        if 2 * self.n > RECORD:
            return self
        entry = ancestor.to(torch.int32)
        if self.pending is not None:
            entry = self.pending[ancestor]
        if self.t % self.stride:
            return replace(self, pending=entry)
        record, stride = self.record.plus(entry), self.stride
        if (len(record) + 1) * self.n > RECORD and len(record) % 2 == 0:
            record = Growing(a[b.long()] for a, b in zip(record[::2], record[1::2], strict=True))
            stride *= 2
        return replace(self, record=record, stride=stride, pending=None)

    @property
    def times(self) -> list[int]:
        """The times of the rows of `paths`."""
        times = [k * self.stride for k in range(len(self.record) + 1)]
        return times if times[-1] == self.t or not self.record else [*times, self.t]

    def paths(self) -> Tensor:
        """(len(times), N) int32: the slot of each of today's particles' ancestor at each of `times`.

        Without a record (too many particles, see `note`) it is empty.
        """
        if not self.record:
            return torch.empty((0, self.n), dtype=torch.int32)
        rows = [torch.arange(self.n, dtype=torch.int32)]
        entries: list[Tensor] = [*self.record, *([] if self.pending is None else [self.pending])]
        for entry in reversed(entries):
            rows.append(entry[rows[-1].long()])
        return torch.stack(rows[::-1])

    @property
    def note(self) -> str:
        """What the record leaves out, in words; empty if nothing."""
        if 2 * self.n > RECORD:
            return f"no parents are recorded for {self.n} particles, more than {RECORD // 2}"
        return f"parents are recorded every {self.stride} steps" if self.stride > 1 else ""

    def state(self) -> dict[str, Tensor]:
        """Everything as tensors, for a file."""
        empty = torch.empty((0, self.n), dtype=torch.int32)
        return {
            "count": torch.tensor([self.n, self.t, self.generation, self.stride]),
            "growth": torch.tensor([*self.growth, *self.width, self.heavy], dtype=torch.float64),
            "anchor_generation": torch.tensor([a.generation for a in self.anchors]),
            "anchor_even": torch.tensor([a.even for a in self.anchors], dtype=torch.float64),
            "anchor_slot": torch.stack([a.slot for a in self.anchors]),
            "record": torch.stack(list(self.record)) if self.record else empty,
            "pending": empty if self.pending is None else self.pending[None],
        }

    @classmethod
    def from_state(cls, state: dict[str, Tensor]) -> Genealogy:
        """The genealogy that `state` described."""
        n, t, generation, stride = state["count"].tolist()
        older, younger, width, size, heavy = state["growth"].tolist()
        of, even = state["anchor_generation"].tolist(), state["anchor_even"].tolist()
        anchors = [Anchor(*a) for a in zip(of, state["anchor_slot"], even, strict=True)]
        pending = state["pending"][0] if len(state["pending"]) else None
        return cls(
            n,
            t,
            generation,
            anchors,
            (older, younger),
            (width, size),
            heavy,
            Growing(state["record"]),
            stride,
            pending,
        )
