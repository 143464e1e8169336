"""The best few parallel steps of a masked model: how many places to fill at each."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from motes.diffusion.arguments import check_networks
from motes.diffusion.discrete.model import TokenModel
from motes.diffusion.evaluation.checks import refuse
from motes.errors import MotesError
from motes.rng import Rng

LEVELS = 32
"""The most numbers of known places whose entropy is estimated; it is interpolated in between."""


@dataclass(frozen=True)
class FewSteps:
    """A schedule.

    Attributes:
        times: (K + 1,) the falling times, for `ReverseDiscrete(..., rule=Ordered())`.
        counts: (K + 1,) how many places are filled after each step, from 0 to L.
        nats: what the schedule costs, an upper bound of KL(model || sampler).
        even: what as many steps of equal size cost.
        entropy: (L,) the expected entropy of a place given i others, i = 0..L-1, nats.
        entropy_se: (L,) its standard errors.
    """

    times: Tensor
    counts: tuple[int, ...]
    nats: float
    even: float
    entropy: Tensor
    entropy_se: Tensor


def few_steps(rng: Rng, model: TokenModel, data: Tensor, steps: int) -> FewSteps:
    """The schedule of `steps` parallel steps that costs least, places in random order.

    With h(i) the expected entropy of a place given i others, filling b places at once where a are known costs
    sum_{i=a}^{a+b-1} h(a) - h(i) nats: the expected total correlation of the places. h is estimated from sequences of
    the model's law, as the mean of -log p(x_l | i others), and the least sum over all schedules is found by dynamic
    programming. A step of the exact posterior loses nothing but this, so that a fitted coefficient of its rates has
    nothing to gain; the sizes of the steps have.

    Args:
        rng: the address.
        model: of a process that only masks.
        data: (N, L) int64 sequences of the model's law, such as `first_hitting` draws, or the data.
        steps: K, from 1 to L.

    Raises:
        ValueError: a process without masks, masked data, one sequence, or a number of steps out of range.
        NanLogPotential: the model gives probability 0 to some of the data; names the sequences as particles.

    References:
        The total correlation: Watanabe (1960), IBM Journal 4(1). Learned steps of few-step samplers: Sabour, Fidler &
        Kreis (2024), Align Your Steps, ICML (continuous); Fu, Guo & Liu (2025), Learnable Sampler Distillation for
        Discrete Diffusion Models, NeurIPS (discrete). The sum is derived here.
    """
    check_networks(model=model)
    process, (n, length) = model.process, data.shape
    if not process.keeps:
        raise MotesError(f"few_steps schedules unmasking, it needs the process Masked, not {type(process).__name__}")
    process.check(data)
    if n < 2:
        raise MotesError(f"give at least 2 sequences, not {n}: the entropies come with standard errors")
    if bool((data < 0).any()):
        raise MotesError("data must be whole sequences, without masks")
    if not 1 <= steps <= length:
        raise MotesError(f"steps must be from 1 to the {length} places, not {steps}")
    levels = sorted({round(i * (length - 1) / max(1, min(LEVELS, length) - 1)) for i in range(min(LEVELS, length))})
    found = torch.stack([_surprise(rng.at("level", inner=i), model, data, i) for i in levels])  # (levels, N)
    refuse(torch.isinf(found).any(0), "the model gives probability 0 to data", "data, which must be of its law")
    mean, se = found.mean(1), found.std(1) / math.sqrt(n)
    entropy, error = _between(levels, mean, length), _between(levels, se, length)
    counts = best_counts(entropy, steps)
    even = [round(k * length / steps) for k in range(steps + 1)]
    times = process.time(torch.tensor(counts, dtype=torch.float64) / length)
    return FewSteps(times, counts, cost(entropy, counts), cost(entropy, even), entropy, error)


def cost(entropy: Tensor, counts: tuple[int, ...] | list[int]) -> float:
    """What a schedule costs, nats: sum over steps of (b - a) h(a) - sum_{i=a}^{b-1} h(i)."""
    spent = sum((b - a) * float(entropy[a]) for a, b in itertools.pairwise(counts))
    return spent - float(entropy.sum())


def best_counts(entropy: Tensor, steps: int) -> tuple[int, ...]:
    """The counts 0 = m_0 < ... < m_K = L that minimise sum_k (m_{k+1} - m_k) h(m_k), by dynamic programming."""
    length = len(entropy)
    place = torch.arange(length + 1, dtype=torch.float64)
    step = (place[None] - place[:-1, None]) * entropy.to(torch.float64)[:, None]  # (from, to)
    step = step.where(place[None] > place[:-1, None], torch.tensor(math.inf, dtype=torch.float64))
    best, came = step[0], []
    for _ in range(steps - 1):
        total = best[:-1, None] + step
        best, origin = total.min(0)
        came.append(origin)
    counts = [length]
    for origin in reversed(came):
        counts.append(int(origin[counts[-1]]))
    return (0, *reversed(counts))


def _surprise(rng: Rng, model: TokenModel, data: Tensor, known: int) -> Tensor:
    """(N,) -log p of the token at a random place, given `known` other random places."""
    order = rng.at("order").uniform(tuple(data.shape)).argsort(1)
    rank = order.argsort(1)
    place, row = order[:, known], torch.arange(len(data))
    with torch.no_grad():
        log_p0 = model(torch.where(rank < known, data, -1), model.process.time(known / data.shape[1]))
    return -log_p0[row, place, data[row, place]].to(torch.float64)


def _between(levels: list[int], values: Tensor, length: int) -> Tensor:
    """(L,) the values at all levels, on straight lines between those that are known."""
    out = torch.empty(length, dtype=torch.float64)
    for (a, b), (u, v) in zip(itertools.pairwise(levels), itertools.pairwise(values), strict=True):
        out[a : b + 1] = torch.linspace(float(u), float(v), b - a + 1, dtype=torch.float64)
    out[levels[-1]] = values[-1]
    return out
