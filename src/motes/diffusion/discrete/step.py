"""One step of sampling tokens: what a rule sees, and which places it draws from which laws."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from motes.core.cite import Reference
from motes.diffusion.discrete.process import Masked, TokenProcess
from motes.errors import MotesError
from motes.rng import Rng


@dataclass(frozen=True)
class TokenContext:
    """The particles at time t, on their way to time s.

    Attributes:
        tokens: (N, L) int64, masked = -1.
        log_p0: (N, L, V) the model's prediction of the data.
        score: (N, L) float64, the log-probability that the model gave each token when it was drawn; 0 where none was.
        free: (L,) bool, the places that may change; the others were given.
        t, s: the time and the next one.
        step: the number of steps done.
        times: (K + 1,) all times of the sampler, falling.
        process: the noising process.
        filled: (N, L) a completion of the tokens drawn from the prediction; the tokens themselves where none was drawn.
        reward: (N,) of the completion, nats; zeros where it was not asked.
        reward_of: the reward's function of sequences (M, L); None without one.
        strength: how much of the predicted reward counts at s.
    """

    tokens: Tensor
    log_p0: Tensor
    score: Tensor
    free: Tensor
    t: float
    s: float
    step: int
    times: Tensor
    process: TokenProcess
    filled: Tensor
    reward: Tensor
    reward_of: Callable[[Tensor], Tensor] | None
    strength: float


@dataclass(frozen=True)
class TokenMove:
    """What a step does: draws the places `where` (N, L) independently from laws (N, L, C), and masks the places `lost`.

    C counts the tokens, or the tokens and the mask.
    """

    where: Tensor
    log_law: Tensor
    lost: Tensor | None = None


class StepRule(ABC):
    """How one step goes from x_t to x_s; it makes the chain that samplers start from and that weights refer to."""

    references: ClassVar[tuple[Reference, ...]] = ()
    finishes: ClassVar[bool] = True
    """Whether no place is masked after a step to time 0."""

    @abstractmethod
    def plan(self, rng: Rng, context: TokenContext) -> TokenMove:
        """The places that are drawn, which may be random, and the law of each."""

    def settle(self, rng: Rng, context: TokenContext, tokens: Tensor, score: Tensor) -> tuple[Tensor, Tensor]:
        """The tokens and scores (N, L) after the draw; a rule may send some back to the mask."""
        return tokens, score

    def check(self, process: TokenProcess) -> None:
        """Raise a ValueError if the rule does not work for this process."""
        return

    def error(self, process: TokenProcess, times: Tensor, free: int) -> str:
        """How the law of the chain differs from that of a perfect model, for the user; empty where it does not."""
        return ""


def needs_masks(rule: StepRule, process: TokenProcess) -> None:
    """Raise a ValueError unless the process masks all tokens alike."""
    if not isinstance(process, Masked):
        name = type(rule).__name__
        raise MotesError(f"{name} fills masks, so it needs the process Masked, not {type(process).__name__}")


PARALLEL = (
    "several places are drawn at once as if they were independent: the weights are exact for this chain, whose law is "
    "not the model's; discrete.parallel_cost measures by how much, more steps bring it nearer"
)
