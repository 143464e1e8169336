"""Expected numbers of children as integers.

n children are to be shared out in proportion to the weights. Everything happens on the line [0, n): particle i owns a
stretch of length n W_i, each child is a place, and its parent is the owner of the place. The line is cut into cells of
2^-bits, so that stretches, places and their sums are int64 and all arithmetic on them is exact: equal weights own
exactly one unit each, whatever N is; sums do not depend on how they are cut into parts; and nothing is left to round
at the end of the line. A stretch is right to about n 2^-53; a particle below 2^-bits of the largest weight owns
nothing.

Long vectors on the CPU go through `_fast.py`, if numba is there, with the same integers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from motes.core.resampling import _fast
from motes.rng import Rng
from motes.rng.elementary import exp


def bits_for(n: int) -> int:
    """How many binary places fit, so that n units still fit into int64 with a bit to spare."""
    return 62 - max(n - 1, 0).bit_length()


def ends(log_weight: Tensor, n: int) -> Tensor:
    """(N,) int64: where each particle's stretch of the line ends; the last is exactly n << bits_for(n)."""
    top, share_bits, line = float(log_weight.max()), bits_for(len(log_weight)), n << bits_for(n)
    if _fast.suits(log_weight):
        return _fast.ends(log_weight, top, share_bits, line)
    share = (exp(log_weight - top) * float(1 << share_bits)).to(torch.int64)
    sums = share.cumsum(0)
    all_shares = int(sums[-1])
    end = (sums.to(torch.float64) * (float(line) / float(all_shares))).to(torch.int64)
    return torch.where(sums == all_shares, line, end.clamp(max=line))


def uniforms(rng: Rng, n: int) -> Tensor:
    """(n,) independent uniform numbers; two to an address, because an address has room for two."""
    return rng.uniform(((n + 1) // 2, 2)).view(-1)[:n]


def cells(u: Tensor, bits: int) -> Tensor:
    """Uniform numbers in (0, 1) as places in one unit, [0, 2^bits)."""
    return (u * float(1 << bits)).to(torch.int64)


def lattice(end: Tensor, offset: Tensor, n: int, bits: int) -> Tensor:
    """(n,) ascending: the owners of the places j + offset_j, one in each unit; `offset` is (n,) or one for all ()."""
    if _fast.suits(end):
        return _fast.lattice(end, offset, n, bits)
    place = (torch.arange(n, device=end.device) << bits) + offset
    return torch.searchsorted(end, place, right=True)


def tally(end: Tensor, u: Tensor, n: int, bits: int) -> Tensor:
    """(N,) how many of the places u (m,), in (0, 1) of the line of n units, each particle owns; negative u are none."""
    if _fast.suits(end):
        return _fast.tally(end, u, n, bits)
    line = n << bits
    place = (u[u >= 0] * float(line)).to(torch.int64).clamp_(max=line - 1)
    return torch.bincount(torch.searchsorted(end, place, right=True), minlength=len(end))


def split(end: Tensor, bits: int) -> tuple[Tensor, Tensor, int]:
    """Whole units of each stretch (N,), where the stretches end when only what is left of each is put together (N,),
    and how many units long that line is."""
    if _fast.suits(end):
        return _fast.split(end, bits)
    whole = end.diff(prepend=end.new_zeros(1)) >> bits
    units = whole.cumsum(0)
    return whole, end - (units << bits), int((end[-1] >> bits) - units[-1])


def expand(count: Tensor, n: int) -> Tensor:
    """(n,) parents in ascending order, from the numbers of their children (N,), which add up to n."""
    if _fast.suits(count):
        return _fast.expand(count, n)
    return torch.repeat_interleave(torch.arange(len(count), device=count.device), count)


def spared(end: Tensor, u: Tensor) -> tuple[Tensor, int]:
    """Who lives, with probability W_i / max W: (N,) -1 where the uniform u_i is below that, else what is left of u_i,
    stretched to (0, 1) and so uniform again; and how many do not."""
    if _fast.suits(end):
        return _fast.spared(end, u)
    length = end.diff(prepend=end.new_zeros(1))
    longest = int(length.max())
    over = (u * float(longest)).to(torch.int64).clamp(max=longest - 1) - length
    again = torch.where(over >= 0, (over.to(torch.float64) + 0.5) / (longest - length).to(torch.float64), -1.0)
    return again, int((over >= 0).sum())


def replace(u: Tensor, parent: Tensor) -> Tensor:
    """(N,) each slot its own parent; where u (N,) is not negative, the parents (m,) in turn."""
    if _fast.suits(u):
        return _fast.replace(u, parent)
    out = torch.arange(len(u), device=u.device)
    out[u >= 0] = parent
    return out
