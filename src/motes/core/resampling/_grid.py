"""Expected numbers of children as integers.

n children are to be shared out in proportion to the weights. Everything happens on the line [0, n): particle i owns a
stretch of length n W_i, each child is a point, and its parent is the owner of the place. The line is cut into cells of
2^-bits, so that stretches, points and their sums are int64 and all arithmetic on them is exact: equal weights own
exactly one unit each, whatever N is; sums do not depend on how they are cut into parts; and there is nothing left to
round at the end of the line. A stretch is right to about n 2^-53.
"""

from __future__ import annotations

import torch
from torch import Tensor

from motes.rng.elementary import exp


def bits_for(n: int) -> int:
    """How many binary places fit, so that n units still fit into int64 with a bit to spare."""
    return 62 - max(n - 1, 0).bit_length()


def cells(u: Tensor, bits: int) -> Tensor:
    """Uniform numbers in (0, 1) as places in one unit, [0, 2^bits)."""
    return (u * float(1 << bits)).to(torch.int64)


def ends(log_weight: Tensor, n: int) -> Tensor:
    """(N,) int64: where each particle's stretch ends; the last is exactly n 2^bits_for(n)."""
    top = log_weight.max()
    share = (exp(log_weight - top) * float(1 << bits_for(len(log_weight)))).to(torch.int64)
    sums = share.cumsum(0)
    all_shares, line = int(sums[-1]), n << bits_for(n)
    end = (sums.to(torch.float64) * (float(line) / float(all_shares))).to(torch.int64)
    return torch.where(sums == all_shares, line, end.clamp(max=line))


def owners(end: Tensor, place: Tensor) -> Tensor:
    """(m,) int64: who owns each of the places (m,)."""
    return torch.searchsorted(end, place, right=True)
