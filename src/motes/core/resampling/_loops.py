"""The compiled loops behind `_fast.py` (numba). Each works on a part of the population and releases the GIL."""

from __future__ import annotations

import numpy as np
from numba import njit

from motes.rng.elementary import EXP, INV_LN2, LN2_HIGH, LN2_LOW

TILE = 1024
SHIFTER = 6755399441055744.0
"""1.5 * 2^52: a small whole number added to it stands in the last bits."""
FLOOR = -60.0
"""exp of less is below any cell."""


@njit(cache=True, nogil=True)
def shares(log_weight, top, scale, start, stop, out):
    """out = floor(exp(log_weight - top) * scale), summed up from `start` on; returns the last sum.

    The exponential repeats rng/elementary.py operation by operation, so its bits are the same.
    """
    x, power, value = np.empty(TILE), np.empty(TILE), np.empty(TILE)
    bits = power.view(np.int64)
    running = 0
    for tile in range(start, stop, TILE):
        m = min(TILE, stop - tile)
        for i in range(m):
            x[i] = max(log_weight[tile + i] - top, FLOOR - 1.0)
        for i in range(m):
            k = np.floor(x[i] * INV_LN2 + 0.5)
            r = (x[i] - k * LN2_HIGH) - k * LN2_LOW
            p = r * EXP[10] + EXP[9]
            p = p * r + EXP[8]
            p = p * r + EXP[7]
            p = p * r + EXP[6]
            p = p * r + EXP[5]
            p = p * r + EXP[4]
            p = p * r + EXP[3]
            p = p * r + EXP[2]
            p = p * r + EXP[1]
            p = p * r + EXP[0]
            value[i] = (r * r * p + r) + 1.0
            power[i] = k + SHIFTER
        for i in range(m):
            bits[i] = (bits[i] + 1023) << 52
        for i in range(m):
            value[i] = value[i] * power[i] * scale
        for i in range(m):
            running += np.int64(value[i])
            out[tile + i] = running
    return running


@njit(cache=True, nogil=True)
def rescale(sums, before, all_shares, ratio, line, start, stop):
    """In place: where stretches end, from sums that begin at `start` with `before` in front of them."""
    for i in range(start, stop):
        s = sums[i] + before
        end = min(np.int64(np.float64(s) * ratio), line)
        sums[i] = line if s == all_shares else end


@njit(cache=True, nogil=True)
def reach(end, offset, bits):
    """How many of the places j + offset_j lie before `end`."""
    if len(offset) == 1:
        return (end - offset[0] + (1 << bits) - 1) >> bits
    unit = end >> bits
    if unit >= len(offset):
        return np.int64(len(offset))
    return unit + (offset[unit] < end - (unit << bits))


@njit(cache=True, nogil=True)
def lattice(end, offset, bits, start, stop, out):
    """Write the owners start..stop of the places j + offset_j: mark where each begins, then carry forward."""
    first = np.int64(0) if start == 0 else reach(end[start - 1], offset, bits)
    last = reach(end[stop - 1], offset, bits)
    out[first:last] = 0
    at, step, shared = first, (1 << bits) - 1, len(offset) == 1
    shift = step - offset[0] if shared else 0
    for i in range(start, stop):
        if at < last:
            out[at] = i  # a childless particle is overwritten by the next one
        at = (end[i] + shift) >> bits if shared else reach(end[i], offset, bits)
    owner = start
    for j in range(first, last):
        owner = max(owner, out[j])
        out[j] = owner


@njit(cache=True, nogil=True)
def owners(end, guide, place, bits, start, stop, out):
    """Who owns each place; `guide[j]` owns the start of unit j, so the walk from there is short on average."""
    for j in range(start, stop):
        i = guide[place[j] >> bits]
        while end[i] <= place[j]:
            i += 1
        out[j] = i


@njit(cache=True, nogil=True)
def expand(count, out):
    """Parents in ascending order: mark where each family begins, then carry forward."""
    out[:] = 0
    at, n = np.int64(0), len(out)
    for i in range(len(count)):
        if at < n:
            out[at] = i
        at += count[i]
    owner = np.int64(0)
    for j in range(n):
        owner = max(owner, out[j])
        out[j] = owner


@njit(cache=True, nogil=True)
def pivot(part, u, bits, up):
    """See `ssp.pivot`."""
    unit = np.int64(1) << bits
    holder, held = 0, np.int64(0)
    for i in range(len(part)):
        b = part[i]
        both = held + b
        whole = both >= unit
        total = 2 * unit - both if whole else both
        win = np.int64(u[i] * np.float64(total)) < (unit - b if whole else b)
        # above one unit the winner holds on and the loser is rounded up; below, the loser is rounded down
        if whole:
            up[holder if win else i] = 1
        holder = i if win else holder
        held = both - unit if whole else both
