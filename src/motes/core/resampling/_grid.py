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


def places(rng: Rng, n: int, bits: int) -> Tensor:
    """(n,) independent uniform places on the line of n units, in no order."""
    line = n << bits
    return (uniforms(rng, n) * float(line)).to(torch.int64).clamp_(max=line - 1)


def lattice(end: Tensor, offset: Tensor, n: int, bits: int) -> Tensor:
    """(n,) ascending: the owners of the places j + offset_j, one in each unit; `offset` is (n,) or one for all ()."""
    if _fast.suits(end):
        return _fast.lattice(end, offset, n, bits)
    place = (torch.arange(n, device=end.device) << bits) + offset
    return torch.searchsorted(end, place, right=True)


def owners(end: Tensor, place: Tensor, bits: int) -> Tensor:
    """(m,) the owners of the places (m,), in their order."""
    if _fast.suits(end):
        return _fast.owners(end, place, bits)
    return torch.searchsorted(end, place, right=True)


def tally(end: Tensor, place: Tensor, bits: int) -> Tensor:
    """(N,) how many of the places (m,) each particle owns."""
    if _fast.suits(end):
        return _fast.tally(end, place, bits)
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


def spared(log_weight: Tensor, u: Tensor) -> Tensor:
    """(N,) true with probability W_i / max W: whether the uniform u_i is below it."""
    top = float(log_weight.max())
    if _fast.suits(log_weight):
        return _fast.spared(log_weight, top, u)
    return cells(u, 52) < cells(exp(log_weight - top), 52)
