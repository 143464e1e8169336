"""Who descends from whom, in bounded memory.

Between two resamplings every particle keeps its slot: that is one *generation*. Two things are kept. For standard
errors, the slots that today's particles descend from in a few earlier generations (*anchors*), and what these said
about the spread of families when they were given up. For pictures, the parents at every step, which are merged into
longer strides once there are more than `RECORD` of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from motes.core.weights import normalise

SPAN = 10
"""A new anchor is set every so many resamplings; a family is judged after SPAN to 2 SPAN of them."""
RECORD = 4_000_000
"""The most entries that the record of parents holds."""


@dataclass(frozen=True)
class Anchor:
    """An earlier generation, and the slot in it (N,) int32 that each of today's particles descends from."""

    generation: int
    slot: Tensor


def family_spread(log_weight: Tensor, slot: Tensor, n: int) -> float:
    """sum_r S_r^2, where S_r is the normalised weight of all particles that descend from slot r."""
    return float(torch.bincount(slot, weights=normalise(log_weight), minlength=n).square().sum())


@dataclass
class Genealogy:
    """The descent of a population of `n` particles up to time `t`.

    Attributes:
        generation: how often the population was resampled.
        anchors: the oldest is 1 to 2 SPAN generations old; the first is the initial population.
        spans: for every pair of neighbouring anchors, when the older was given up: (spread of its families, its age,
            spread of the younger's families, its age), ages in generations.
        record: (N,) int32 each, the slots before `stride` steps; empty where N is too large to keep any.
        stride: how many steps an entry of the record covers.
        pending: the descent since the last entry of the record, over `t % stride` steps.
    """

    n: int
    t: int = 0
    generation: int = 0
    anchors: list[Anchor] = field(default_factory=list)
    spans: list[tuple[float, int, float, int]] = field(default_factory=list)
    record: list[Tensor] = field(default_factory=list)
    stride: int = 1
    pending: Tensor | None = None

    @classmethod
    def start(cls, n: int) -> Genealogy:
        """Nobody has parents yet."""
        return cls(n, anchors=[Anchor(0, torch.arange(n, dtype=torch.int32))])

    def update(self, t: int, ancestor: Tensor, resampled: bool, log_weight: Tensor) -> None:
        """A step was taken to time `t`.

        Args:
            ancestor: (N,) int64 slots of the parents, the slots themselves if the population was not resampled.
            resampled: whether it was, before the step.
            log_weight: (N,) the weights after the step, nats.
        """
        self.t = t
        ancestor = ancestor.cpu()
        if resampled:
            self.generation += 1
            self.anchors = [Anchor(a.generation, a.slot[ancestor]) for a in self.anchors]
            if self.generation % SPAN == 0:
                self._turn_over(log_weight.cpu())
        self._remember(ancestor)

    def _turn_over(self, log_weight: Tensor) -> None:
        """Set an anchor here, and give up the oldest of three."""
        if len(self.anchors) == 2 and bool((log_weight > -torch.inf).any()):
            old, new = self.anchors
            spread = [family_spread(log_weight, a.slot, self.n) for a in (old, new)]
            age = [self.generation - a.generation for a in (old, new)]
            self.spans.append((spread[0], age[0], spread[1], age[1]))
            self.anchors = [new]
        self.anchors = [*self.anchors, Anchor(self.generation, torch.arange(self.n, dtype=torch.int32))]

    def _remember(self, ancestor: Tensor) -> None:
        """Add a step to the record; when it is full, join its entries in pairs."""
        if 2 * self.n > RECORD:
            return
        entry = ancestor.to(torch.int32)
        if self.pending is not None:
            entry = self.pending[ancestor]
        if self.t % self.stride:
            self.pending = entry
            return
        self.pending = None
        self.record.append(entry)
        if (len(self.record) + 1) * self.n > RECORD and len(self.record) % 2 == 0:
            self.record = [a[b.long()] for a, b in zip(self.record[::2], self.record[1::2], strict=True)]
            self.stride *= 2

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
        for entry in reversed([*self.record, *([] if self.pending is None else [self.pending])]):
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
            "anchor_generation": torch.tensor([a.generation for a in self.anchors], dtype=torch.int64),
            "anchor_slot": torch.stack([a.slot for a in self.anchors]) if self.anchors else empty,
            "spans": torch.tensor(self.spans, dtype=torch.float64).reshape(-1, 4),
            "record": torch.stack(self.record) if self.record else empty,
            "pending": empty if self.pending is None else self.pending[None],
        }

    @classmethod
    def from_state(cls, state: dict[str, Tensor]) -> Genealogy:
        """The genealogy that `state` described."""
        n, t, generation, stride = (int(c) for c in state["count"])
        anchors = [Anchor(int(g), s) for g, s in zip(state["anchor_generation"], state["anchor_slot"], strict=True)]
        spans = [(a, int(b), c, int(d)) for a, b, c, d in state["spans"].tolist()]
        pending = state["pending"][0] if len(state["pending"]) else None
        return cls(n, t, generation, anchors, spans, list(state["record"]), stride, pending)
