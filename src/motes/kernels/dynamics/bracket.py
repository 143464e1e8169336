"""Slice sampling along curves, for all particles at once: stepping out, then shrinking onto the slice."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from motes.kernels.kernel import State, Target
from motes.rng import Rng

Curve = Callable[[Tensor, Tensor], tuple[Tensor, Tensor | float]]
"""Maps particles (M,) int64 and places t (M,) on their curves to positions (M, d), and what their log-densities are
raised by (a Jacobian, a reference that is divided out). Each particle is at t = 0."""

SHRINKS = 200
"""Places that are tried before a particle stays where it is: the bracket is then beyond the precision of any number."""


def rows_of(rng: Rng, index: Tensor) -> Rng:
    """The numbers of the particles `index` (M,) int64 of a population that draws from `rng`."""
    return rng.shard(index if rng.ids is None else rng.ids[index])


def step_out(
    rng: Rng, target: Target, curve: Curve, level: Tensor, width: Tensor, most: int
) -> tuple[Tensor, Tensor, int]:
    """A bracket around 0, placed at random and widened by `width` (N,) until its ends are outside of the slice.

    At most `most` widths long, with that many shared out to the two sides at random, so that the bracket is as likely
    from any other place of the slice in it.

    Args:
        level: (N,) nats; the slice is where the log-density is above it.

    Returns:
        The ends, (N,) each, and the number of evaluations in all.

    References:
        Neal (2003), Slice sampling, Annals of Statistics 31(3), figure 3.
    """
    n = len(level)
    low = -rng.at("place").uniform((n,), dtype=width.dtype) * width
    high, left = low + width, rng.at("left").integers((n,), most)
    ends, steps = torch.stack([low, high], 1).view(-1), torch.stack([left, most - 1 - left], 1).view(-1)
    open_, evaluations = steps.nonzero().flatten(), 0  # 2 i is the lower end of particle i, 2 i + 1 the upper
    outwards = torch.tensor([-1.0, 1.0], dtype=width.dtype).repeat(n) * width.repeat_interleave(2)
    while len(open_):
        particle = open_ // 2
        value = _value(target.part(particle), curve, particle, ends[open_])[1]
        evaluations += len(open_)
        open_ = open_[value > level[particle]]
        ends[open_] += outwards[open_]
        steps[open_] -= 1
        open_ = open_[steps[open_] > 0]
    return ends[::2], ends[1::2], evaluations


def shrink(
    rng: Rng, target: Target, curve: Curve, state: State, level: Tensor, low: Tensor, high: Tensor
) -> tuple[State, Tensor, Tensor, int]:
    """Move each particle to a place in its slice that is uniform but for the bracket's shrinking towards 0.

    Args:
        state: the particles, at t = 0.
        level: (N,) nats; the slice is where the log-density is above it.
        low, high: (N,) the ends of the brackets.

    Returns:
        The state, the places (N,), which particles found none and stayed (N,), and the number of evaluations in all.

    References:
        Neal (2003), Slice sampling, Annals of Statistics 31(3), figure 5.
    """
    low, high, place = low.clone(), high.clone(), torch.zeros_like(low)
    open_, evaluations, out = torch.arange(len(level)), 0, {}
    for k in range(SHRINKS):
        u = rows_of(rng.at(f"shrink-{k}"), open_).uniform((len(open_),), dtype=low.dtype)
        t = torch.lerp(low[open_], high[open_], u)
        part = target if k == 0 else target.part(open_)
        there, value = _value(part, curve, open_, t)
        evaluations += len(open_)
        found = value > level[open_]
        done = open_[found]
        place[done] = t[found]
        if k == 0:
            out = {key: state[key].clone() for key in there}
        for key, new in there.items():
            out[key][done] = new[found]
        open_, t = open_[~found], t[~found]
        if not len(open_):
            break
        low[open_] = torch.where(t < 0, t, low[open_])
        high[open_] = torch.where(t < 0, high[open_], t)
    stayed = torch.zeros(len(level), dtype=torch.bool)
    stayed[open_] = True
    return out, place, stayed, evaluations


def _value(target: Target, curve: Curve, index: Tensor, t: Tensor) -> tuple[State, Tensor]:
    x, raised = curve(index, t)
    there = target.evaluate(x, False)
    return there, target.log_density(there) + raised
