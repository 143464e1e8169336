"""Replica exchange: swaps between temperatures, ladders of equal rejection, the evidence from all walkers."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from motes.errors import MotesError


def pairs(rungs: int, parity: int) -> Tensor:
    """The lower rungs of the pairs (k, k + 1) with k even (`parity` 0) or odd (1), of `rungs` temperatures."""
    return torch.arange(parity, rungs - 1, 2)


def swap_probability(ladder: Tensor, log_likelihood: Tensor) -> Tensor:
    """The probability to accept a swap of each rung with the next: min(1, (L_k / L_k+1)^(b_k+1 - b_k)).

    Args:
        ladder: (K,) inverse temperatures.
        log_likelihood: (N, K) nats; two zeros of the likelihood may change places.

    Returns:
        (N, K - 1).
    """
    gain = ladder.diff() * (log_likelihood[:, :-1] - log_likelihood[:, 1:])
    return gain.nan_to_num(nan=0.0, posinf=math.inf, neginf=-math.inf).clamp(max=0.0).exp()


def exchanged(lower: Tensor, accept: Tensor, rungs: int) -> Tensor:
    """(N, K) which rung's walker comes to each rung, where the swaps of `lower` (P,) are taken or not (N, P)."""
    place = torch.arange(rungs).repeat(len(accept), 1)
    place[:, lower] += accept.long()
    place[:, lower + 1] -= accept.long()
    return place


def equal_rejection(ladder: Tensor, rejection: Tensor) -> Tensor:
    """A ladder (K,) on which all swaps are rejected equally often, by the communication barrier of the present one.

    The sum of rejection rates up to b estimates a function of b alone, which the new ladder cuts into equal parts; it
    is interpolated in log b, and in b below the first rung.

    References:
        Syed, Bouchard-Cote, Deligiannidis & Doucet (2022), Non-reversible parallel tempering: a scalable highly
        parallel MCMC scheme, JRSS B 84(2), section 5.1.

    Args:
        ladder: (K,) from 0 to 1.
        rejection: (K - 1,) mean rejection rates of the pairs.
    """
    barrier = torch.cat([torch.zeros(1).to(ladder), rejection.clamp(min=1e-4).cumsum(0)])
    last = len(ladder) - 1
    wanted = barrier[-1] * torch.arange(1, last) / last
    above = torch.searchsorted(barrier, wanted).clamp(1, last)
    part = (wanted - barrier[above - 1]) / (barrier[above] - barrier[above - 1])
    low, high = ladder[above - 1], ladder[above]
    new = torch.where(low > 0, low * (high / low) ** part, high * part)
    return torch.cat([ladder[:1], new, ladder[-1:]])


def bridge(ladder: Tensor, log_likelihood: Tensor) -> tuple[float, Tensor]:
    """The log evidence from states at all temperatures, and what each of them adds to its error.

    Z is the product of Z_k+1 / Z_k = E_k[L^(d/2)] / E_k+1[L^(-d/2)], d = b_k+1 - b_k, the geometric bridge between
    two neighbours; to first order the error of its logarithm is the mean of the second result.

    References:
        Meng & Wong (1996), Simulating ratios of normalizing constants via a simple identity, Statistica Sinica 6(4),
        section 3.

    Args:
        ladder: (K,) from 0 to 1.
        log_likelihood: (N, T, K) nats.

    Returns:
        The log evidence, nats; and (N, T), of mean zero.

    Raises:
        MotesError: the likelihood is zero somewhere above temperature 0.
    """
    if not (log_likelihood[..., 1:] > -math.inf).all():
        stuck = (log_likelihood[..., 1:] == -math.inf).any(-1).any(-1).nonzero().flatten().tolist()
        raise MotesError(
            f"chains {stuck[:8]} still stand where the likelihood is zero: use more warm-up rounds, more temperatures, "
            "or a likelihood that decreases outside of its support instead of ending"
        )
    half = 0.5 * ladder.diff()
    total, influence = 0.0, torch.zeros_like(log_likelihood[..., 0])
    for sign, x in ((1.0, log_likelihood[..., :-1]), (-1.0, log_likelihood[..., 1:])):
        power = sign * half * x
        mean = power.flatten(0, 1).logsumexp(0) - math.log(power[..., 0].numel())
        total += sign * float(mean.sum())
        influence += sign * ((power - mean).exp() - 1).sum(-1)
    return total, influence
