"""Denoising tokens: a network learns the law of each clean token, given a noised sequence."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from motes.diffusion.discrete.process import TokenProcess
from motes.errors import MotesError, UnknownName, check_share
from motes.learn.objective import Objective
from motes.rng import Rng

WEIGHTINGS = ("bound", "plain")


@dataclass(frozen=True)
class TokenDenoising(Objective):
    """The cross-entropy of clean tokens given noised ones, nats for each place, at times spread over (0, 1).

    With a mask only masked places count. "bound" weighs them by -alpha'(t) / (1 - alpha(t)), which makes the mean loss
    an upper bound of the negative log-likelihood for each token, for any schedule: it is the mean over all orders of
    the sequence's chain of conditionals. "plain" is without weights. Without a mask every place counts alike.
    In all cases the optimum is the exact law of each clean token given the noised sequence.

    Args:
        process: noises the tokens.
        weighting: "bound" or "plain"; without a mask there is only "plain".
        drop: the probability that a label is hidden (-1), where examples are (tokens, label).

    Raises:
        UnknownName: another weighting.
        ValueError: "bound" for a process without a mask, or `drop` outside [0, 1].

    References:
        Sahoo et al. (2024), Simple and Effective Masked Diffusion Language Models, NeurIPS.
        Ou et al. (2025), Your Absorbing Discrete Diffusion Secretly Models the Conditional Distributions of Clean Data,
        ICLR (all orders).
        Austin et al. (2021), Structured Denoising Diffusion Models in Discrete State-Spaces, NeurIPS, section 3.4.
    """

    process: TokenProcess
    _: KW_ONLY
    weighting: str | None = None
    drop: float = 0.0

    def __post_init__(self) -> None:
        if self.weighting not in (None, *WEIGHTINGS):
            raise UnknownName("weighting", self.weighting, WEIGHTINGS)
        if self.weighting == "bound" and not self.process.masks:
            raise MotesError('weighting="bound" needs a process with a mask; use "plain"')
        check_share("[0, 1]", drop=self.drop)

    def __call__(self, network: nn.Module, rng: Rng, batch: tuple[Tensor, ...]) -> Tensor:
        clean, masks = batch[0], self.process.masks
        place = (torch.arange(len(clean), dtype=torch.float64) + rng.at("time").uniform(())) / len(clean)
        t = place.to(clean.device)
        tokens = self.process.noise(rng.at("noise"), clean, t)
        more: dict[str, Any] = {}
        if len(batch) > 1:
            more["label"] = torch.where(rng.at("drop").uniform((len(clean),)) < self.drop, -1, batch[1])
        log_p = torch.log_softmax(network(tokens, t, **more), dim=-1)
        nats = -log_p.gather(-1, clean[..., None])[..., 0]
        if not masks:
            return nats.mean(1)
        nats = torch.where(tokens < 0, nats, 0.0)
        if self.weighting == "plain":
            return nats.sum(1) / (tokens < 0).sum(1).clamp(min=1)
        weight = -self.process.slope(t) / (1 - self.process.alpha(t))
        return nats.mean(1) * weight.to(nats)
