"""Gumbel-top-k: drawing without replacement in one pass, by noise on log-probabilities and a threshold."""

from __future__ import annotations

import torch
from torch import Tensor


def largest(perturbed: Tensor, threshold: Tensor, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """The n largest perturbed log-probabilities above a threshold, where they stand, and the threshold from then on.

    The n largest of log p + Gumbel noise are what drawing one by one without replacement gives; the threshold is the
    largest that was ever dropped.

    Args:
        perturbed: (C,).
        threshold: () the one before; -inf where nothing was dropped.
        n: how many to keep.

    References:
        Kool, van Hoof & Welling (2019), Stochastic beams and where to find them, ICML, section 3.
    """
    k = min(n + 1, len(perturbed))
    value, index = torch.topk(perturbed, k)
    threshold = torch.maximum(threshold, value[n]) if k > n else threshold
    kept = value[:n] > threshold
    return value[:n][kept], index[:n][kept], threshold


def given_maximum(free: Tensor, maximum: Tensor) -> Tensor:
    """Gumbel draws (A, V) moved so that each row's maximum is `maximum` (A,): Kool et al. (2019), appendix B.3."""
    top, parent = free.amax(1, keepdim=True), maximum[:, None]
    u = parent - free + torch.log1p(-torch.exp(free - top))
    return parent - u.clamp(min=0) - torch.log1p(torch.exp(-u.abs()))


def log_inclusion(log_prob: Tensor, threshold: Tensor) -> Tensor:
    """log(1 - exp(-exp(log_prob - threshold))), the probability that a perturbed log-probability passes it."""
    return torch.log(-torch.expm1(-torch.exp(log_prob - threshold)))
