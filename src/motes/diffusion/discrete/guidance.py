"""Guided proposals: the laws of the places that a step draws are tilted towards reward, and weights make up for it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from motes.core.cite import Reference, cited
from motes.core.modules import gradient
from motes.diffusion.discrete.step import TokenContext
from motes.errors import NanLogPotential, ShapeError, UnknownName, WrongType, check_name, name_particles

FIRST_ORDER = cited("nisonoff2025", "guidance of each token, exact and to first order")


MOST = 1 << 22
"""How many tokens of changed sequences are held at a time."""


class TokenGuidance(ABC):
    """A rule that says by how many nats each token is preferred at each place that is drawn.

    The laws drawn from are those of the rule times exp(tilt), normalised; the weights hold their exact ratio, so that
    guidance changes the error and not the target.
    """

    needs_reward: ClassVar[bool] = True
    """Whether it asks the reward."""
    references: ClassVar[tuple[Reference, ...]] = (FIRST_ORDER,)

    @abstractmethod
    def __call__(self, context: TokenContext, particle: Tensor, place: Tensor) -> Tensor:
        """The tilts (R, V) in nats of the places context.tokens[particle, place], particle and place (R,) int64."""


@dataclass(frozen=True)
class LocalReward(TokenGuidance):
    """Each token is preferred by what it would do to the reward of the completed sequence, all else as it is.

    Exact in one place at a time: V evaluations of the reward for each place that is drawn. If the reward
    is a sum over places, a run with one place a step and this guidance has even weights.

    Args:
        gain: multiplies the change of the reward, besides the schedule.
        limit: the largest difference of tilts, nats; it keeps every token possible where the reward is -inf.

    References:
        Nisonoff, Xiong, Allenspach & Listgarten (2025), Unlocking Guidance for Discrete State-Space Diffusion and Flow
        Models, ICLR (exact guidance).
    """

    gain: float = 1.0
    _: KW_ONLY
    limit: float = 20.0

    def __call__(self, context: TokenContext, particle: Tensor, place: Tensor) -> Tensor:
        rows = max(1, MOST // (context.process.vocabulary * context.filled.shape[1]))
        value = torch.cat(
            [self._values(context, i, j) for i, j in zip(particle.split(rows), place.split(rows), strict=True)]
        )
        if bool(torch.isnan(value).any()):
            who = name_particles(particle[torch.isnan(value).any(1)].unique().tolist())
            raise NanLogPotential(f"the reward of sequences changed in one place is NaN for {who}; look at the reward")
        most = value.amax(1, keepdim=True)
        lost = torch.where(most == -torch.inf, 0.0, value - most)  # nothing to prefer where all are -inf
        return (self.gain * context.strength * lost).clamp(-self.limit, self.limit)

    def _values(self, context: TokenContext, particle: Tensor, place: Tensor) -> Tensor:
        """(R, V): the reward with each token in the place."""
        assert context.reward_of is not None
        v = context.process.vocabulary
        changed = context.filled[particle].repeat_interleave(v, 0)
        row = torch.arange(len(changed), device=changed.device)
        changed[row, place.repeat_interleave(v)] = torch.arange(v, device=changed.device).repeat(len(particle))
        return context.reward_of(changed).reshape(-1, v).to(changed.device)


@dataclass(frozen=True, eq=False)
class RewardGradient(TokenGuidance):
    """Each token is preferred by the reward's gradient with respect to its one-hot entry: one gradient for all places.

    To first order what `LocalReward` computes; good where the reward is nearly linear in one place.

    Args:
        relaxed: maps (N, L, V) float64, one-hot rows or probabilities, to the reward (N,), with gradients kept.
        at: where the gradient is taken: at the one-hot "completion", or at the "mean" of the prediction.
        gain: as for `LocalReward`.
        limit: the largest tilt either way, nats.

    References:
        Nisonoff et al. (2025), ICLR (the first-order form).
        Grathwohl, Swersky, Hashemi, Duvenaud & Maddison (2021), Oops I Took A Gradient, ICML, section 3.
    """

    relaxed: Callable[[Tensor], Tensor]
    _: KW_ONLY
    at: Literal["completion", "mean"] = "completion"
    gain: float = 1.0
    limit: float = 20.0

    def __post_init__(self) -> None:
        check_name("place of the gradient", self.at, ("completion", "mean"))

    def __call__(self, context: TokenContext, particle: Tensor, place: Tensor) -> Tensor:
        with torch.enable_grad():
            if self.at == "completion":
                point = torch.nn.functional.one_hot(context.filled, context.process.vocabulary).to(torch.float64)
            else:
                point = context.log_p0.detach().to(torch.float64).exp()
            point.requires_grad_(True)
            value = self.relaxed(point)
            if not isinstance(value, Tensor) or value.shape != (len(point),):
                raise ShapeError("`relaxed` must return one number a sequence, a tensor (n,)")
            slope = gradient(value, point, "`relaxed`", of="the tokens' probabilities")
        return (self.gain * context.strength * slope[particle, place]).clamp(-self.limit, self.limit)


@dataclass(frozen=True, eq=False)
class FunctionTilt(TokenGuidance):
    """Tilts (N, L, V) from a function (tokens (N, L), t) of the user's; they must be finite."""

    function: Callable[[Tensor, float], Tensor]

    needs_reward: ClassVar[bool] = False
    references: ClassVar[tuple[Reference, ...]] = ()

    def __call__(self, context: TokenContext, particle: Tensor, place: Tensor) -> Tensor:
        tilt = self.function(context.tokens, context.t)
        shape = (*context.tokens.shape, context.process.vocabulary)
        if not isinstance(tilt, Tensor) or tilt.shape != shape:
            raise ShapeError(f"guidance must return tilts of shape {shape}")
        return tilt[particle, place]


Guides = Literal["reward"] | float | TokenGuidance | Callable[[Tensor, float], Tensor]


def as_guidance(guidance: Guides | None) -> TokenGuidance | None:
    """What was given, as an object: "reward" and numbers are `LocalReward`, functions are `FunctionTilt`.

    Raises:
        UnknownName: another name than "reward".
        TypeError: none of these.
    """
    if guidance is None or isinstance(guidance, TokenGuidance):
        return guidance
    if isinstance(guidance, str):
        if guidance != "reward":
            raise UnknownName("guidance", guidance, ("reward", "None, a number, a TokenGuidance, a function"))
        return LocalReward()
    if isinstance(guidance, int | float) and not isinstance(guidance, bool):
        return LocalReward(float(guidance)) if guidance else None
    if callable(guidance) and not isinstance(guidance, type):
        return FunctionTilt(guidance)
    raise WrongType(f"guidance must be None, 'reward', a number, a TokenGuidance or a function, not {guidance!r}")
