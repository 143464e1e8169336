"""What a run has to say of itself, and which of its numbers that puts in doubt."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, Self

from motes.errors import MotesError

Doubted = Literal["evidence", "means"]
"""The estimates of a run that can be in doubt: the normaliser, whatever the model calls it, and all expectations."""
EVIDENCE: tuple[Doubted, ...] = ("evidence",)
MEANS: tuple[Doubted, ...] = ("means",)
ALL: tuple[Doubted, ...] = ("evidence", "means")


class Remark(str):
    """A sentence about how a run went, which says of itself which estimates it puts in doubt.

    Attributes:
        doubts: the estimates that may be off by more than their error bars say; empty for a plain remark.
        withholds: whether these have no error bar at all; the sentence is then the reason that is printed.
    """

    __slots__ = ("doubts", "withholds")
    doubts: tuple[Doubted, ...]
    withholds: bool

    def __new__(cls, text: str, doubts: Iterable[Doubted] = (), *, withholds: bool = False) -> Self:
        """A remark; `doubts` are "evidence", "means" or both."""
        self = super().__new__(cls, text)
        self.doubts, self.withholds = tuple(doubts), withholds
        if not set(self.doubts) <= set(ALL):
            raise MotesError(f"a remark may doubt {' and '.join(map(repr, ALL))}, not {self.doubts!r}")
        return self

    @classmethod
    def of(cls, remark: str) -> Remark:
        """A remark as it is; a plain sentence as a remark that doubts nothing."""
        return remark if isinstance(remark, Remark) else cls(remark)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Remark:
        """The remark that `to_json` described."""
        return cls(value["text"], value["doubts"], withholds=value["withholds"])

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON, for a file."""
        return {"text": str(self), "doubts": list(self.doubts), "withholds": self.withholds}

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).from_json, (self.to_json(),)
