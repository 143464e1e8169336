"""Replica exchange: swaps between temperatures, ladders of equal rejection, the evidence from all walkers."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from motes.errors import MotesError

OVERLAP, BORNE = 0.05, 0.01
"""The share of swaps below which two neighbours hardly overlap, so that the bridge between them rests on draws that are
too rare to be seen: for Gaussian log-likelihoods its terms have then a log-standard deviation of 1.4 and an effective
share of the draws of .14. And the effective share below which few draws bear all of it."""


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


def equal_rejection(ladder: Tensor, rejection: Tensor, rungs: int) -> Tensor:
    """A ladder (rungs,) on which all swaps are rejected equally often, by the communication barrier of the present one.

    The sum of rejection rates up to b estimates a function of b alone, which the new ladder cuts into equal parts; it
    is interpolated in log b, and in b below the first rung.

    References:
        Syed, Bouchard-Cote, Deligiannidis & Doucet (2022), Non-reversible parallel tempering: a scalable highly
        parallel MCMC scheme, JRSS B 84(2), section 5.1.

    Args:
        ladder: (K,) from 0 to 1.
        rejection: (K - 1,) mean rejection rates of the pairs.
        rungs: temperatures of the new ladder, at least 2.
    """
    barrier = torch.cat([torch.zeros(1).to(ladder), rejection.clamp(min=1e-4).cumsum(0)])
    wanted = barrier[-1] * torch.arange(1, rungs - 1) / (rungs - 1)
    above = torch.searchsorted(barrier, wanted).clamp(1, len(ladder) - 1)
    part = (wanted - barrier[above - 1]) / (barrier[above] - barrier[above - 1])
    low, high = ladder[above - 1], ladder[above]
    new = torch.where(low > 0, low * (high / low) ** part, high * part)
    return torch.cat([ladder[:1], new, ladder[-1:]])


def rungs_for(rejection: Tensor, most: int) -> int:
    """The number of temperatures, of those that are there on to `most`, with which half of the swaps are taken.

    The sum of the rejection rates (K - 1,) is about the communication barrier, or less where few swaps are taken; twice
    that many pairs are best.

    References:
        Syed, Bouchard-Cote, Deligiannidis & Doucet (2022), as `equal_rejection`, section 4.2.
    """
    return max(len(rejection) + 1, min(most, math.ceil(2 * float(rejection.sum())) + 1))


def nearest(ladder: Tensor, new: Tensor) -> Tensor:
    """(K',) for each temperature of a new ladder the place of the nearest one in the old ladder (K,), by its rank.

    The first is for the first alone, whose states are draws from the prior.
    """
    place = torch.arange(len(ladder)).to(ladder)
    above = torch.searchsorted(ladder, new).clamp(1, len(ladder) - 1)
    part = (new - ladder[above - 1]) / (ladder[above] - ladder[above - 1])
    found = (place[above - 1] + part).round().long().clamp(min=1)
    return torch.where(new > 0, found, 0)


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
    total, influence = 0.0, torch.zeros_like(log_likelihood[..., 0])
    for sign, power in _powers(ladder, log_likelihood):
        mean = power.flatten(0, 1).logsumexp(0) - math.log(power[..., 0].numel())
        total += sign * float(mean.sum())
        influence += sign * ((power - mean).exp() - 1).sum(-1)
    return total, influence


def hardly_overlap(ladder: Tensor, log_likelihood: Tensor) -> str:
    """Why a `bridge` has no standard error: neighbours that hardly overlap, or few draws that bear it; else empty."""
    taken = swap_probability(ladder, log_likelihood.flatten(0, 1)).mean(0)
    more = "Give more `temperatures`, or more warm-up rounds to find them"
    if (least := float(taken.min())) < OVERLAP:
        return (
            f"neighbouring temperatures hardly overlap: {100 * least:.2g} % of the swaps of one pair would be taken, "
            f"and {100 * OVERLAP:.0f} % is the limit. {more}"
        )
    for _, power in _powers(ladder, log_likelihood):
        flat = power.flatten(0, 1)
        number = float((2 * flat.logsumexp(0) - (2 * flat).logsumexp(0)).min().exp())
        if number < BORNE * len(flat):
            return f"few draws bear the bridge between two temperatures, {number:.1f} of {len(flat)} in effect. {more}"
    return ""


def _powers(ladder: Tensor, log_likelihood: Tensor) -> Iterator[tuple[float, Tensor]]:
    """The logarithms (N, T, K - 1) of what a bridge averages at the lower and at the upper of two neighbours."""
    half = 0.5 * ladder.diff()
    yield 1.0, half * log_likelihood[..., :-1]
    yield -1.0, -half * log_likelihood[..., 1:]
