"""The count of trial points at which a law was undefined."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from motes.errors import NanLogPotential

NEARLY_ALL = 0.8
"""The share of moves with an undefined trial point above which the law is at fault, not the step."""


@dataclass(frozen=True)
class Undefined:
    """Where a law could not be evaluated, which kernels take as density zero.

    Attributes:
        where: (N,) bool.
        why: says what is the matter at the first of these points, and where that is.
    """

    where: Tensor
    why: Callable[[], str]


@dataclass
class Tally:
    """The trial points of a move at which a law was undefined: a target counts them, whoever moves reads the count.

    Attributes:
        undefined: trial points at which the law was not a number, its gradient was not finite, or the user's function
            raised an error.
        why: says what was the matter at the first of them.
    """

    undefined: int = 0
    why: Callable[[], str] | None = None

    def add(self, found: Undefined | None) -> None:
        """Count what an evaluation of trial points found."""
        if found is not None:
            self.undefined += int(found.where.sum())
            self.why = self.why or found.why

    def told(self, trials: float) -> dict[str, float]:
        """What the trace shows: "undefined", the number of undefined points over that of moves, where there are any.

        Args:
            trials: particles times sweeps.

        Raises:
            NanLogPotential: nearly all moves met such a point.
        """
        if not self.undefined or self.why is None:
            return {}
        if self.undefined > NEARLY_ALL * trials:
            raise NanLogPotential(
                f"the density is undefined at {self.undefined} trial points of {trials:.0f} moves: {self.why()}. "
                "Single points like that count as outside of the support, but here next to nothing can move: where the "
                "model is not defined it must return -inf; look for log or sqrt of a negative number, a matrix that is "
                "not positive definite, 0 * inf or an overflow. If particles have run off there, the posterior may be "
                "improper"
            )
        return {"undefined": self.undefined / trials}


def told(undefined: Undefined | None, trials: int) -> dict[str, float]:
    """What `Tally.told` says of one evaluation of `trials` points."""
    tally = Tally()
    tally.add(undefined)
    return tally.told(trials)
