"""The compiled loops behind `_fast.py` (numba). Each works on a part of the population and releases the GIL."""

from __future__ import annotations

import numpy as np
from numba import njit

from motes.rng.elementary import EXP, INV_LN2, LN2_HIGH, LN2_LOW

TILE = 1024
SHIFTER = 6755399441055744.0
"""1.5 * 2^52: a small whole number added to it stands in the last bits."""
FLOOR = -61.0
"""exp of this is below any cell, and so are all below."""


@njit(cache=True, nogil=True)
def exponential(log_weight, top, scale, value, power):
    """value = exp(log_weight - top) * scale; `power` is scratch.

    It repeats rng/elementary.py operation by operation, so its bits are the same.
    """
    bits = power.view(np.int64)
    for i in range(log_weight.size):
        x = max(log_weight[i] - top, FLOOR)
        k = np.floor(x * INV_LN2 + 0.5)
        r = (x - k * LN2_HIGH) - k * LN2_LOW
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
        value[i] = ((r * r * p + r) + 1.0) * scale
        power[i] = k + SHIFTER
    for i in range(log_weight.size):
        bits[i] = (bits[i] + 1023) << 52
    for i in range(log_weight.size):
        value[i] *= power[i]


@njit(cache=True, nogil=True)
def shares(log_weight, top, scale, out):
    """out = the sums of floor(exp(log_weight - top) * scale); returns the last of them."""
    value, power = np.empty(TILE), np.empty(TILE)
    running = np.int64(0)
    for tile in range(0, log_weight.size, TILE):
        source, target = log_weight[tile : tile + TILE], out[tile : tile + TILE]
        exponential(source, top, scale, value[: source.size], power)
        for i in range(source.size):
            running += np.int64(value[i])
            target[i] = running
    return running


@njit(cache=True, nogil=True)
def rescale(sums, before, all_shares, ratio, line):
    """In place: where stretches end, from sums that have `before` in front of them."""
    for i in range(sums.size):
        s = sums[i] + before
        end = min(np.int64(np.float64(s) * ratio), line)
        sums[i] = line if s == all_shares else end


@njit(cache=True, nogil=True)
def reach(end, offset, bits):
    """How many of the places j + offset_j lie before `end`."""
    if offset.size == 1:
        return (end - offset[0] + (np.int64(1) << bits) - 1) >> bits
    unit = end >> bits
    if unit >= offset.size:
        return np.int64(offset.size)
    return unit + np.int64(offset[unit] < end - (unit << bits))


@njit(cache=True, nogil=True)
def carry(out, base):
    """Fill the places that are not marked with the last mark before them, and add `base`."""
    owner = np.int64(0)
    for j in range(out.size):
        owner = max(owner, out[j])
        out[j] = owner + base


@njit(cache=True, nogil=True)
def lattice(end, offset, bits, base, first, out):
    """The owners of the places j + offset_j for j from `first` on, as many as `out` has: mark beginnings, carry on.

    `end` is a part of the population that begins with particle `base`, and `out` is what this part owns.
    """
    out[:] = 0
    at, n = np.uint64(0), np.uint64(out.size)
    if offset.size == 1:
        shift = (np.int64(1) << bits) - 1 - offset[0] - (first << bits)
        for i in range(end.size):
            if at < n:
                out[at] = i  # a childless particle's mark is overwritten by the next one
            at = np.uint64((end[i] + shift) >> bits)
    else:
        most = offset.size - 1
        for i in range(end.size):
            if at < n:
                out[at] = i
            unit = end[i] >> bits
            into = end[i] - (unit << bits)  # 0 at the end of the line, where there is no further place
            at = np.uint64(unit - first + np.int64(offset[np.uint64(min(unit, most))] < into))
    carry(out, base)


@njit(cache=True, nogil=True)
def tally(end, u, line, bits, bucket_bits, out):
    """Add to out how many of the places u * line each particle owns; negative u are none.

    Places go through buckets of neighbouring units, so that all that a bucket needs is in the nearest cache. There
    `guide` says who owns the start of each unit: the walk from there is short on average.
    """
    length, most = np.float64(line), line - 1
    buckets = (most >> bucket_bits) + 1
    begin = np.zeros(buckets + 1, np.int64)
    for j in range(u.size):
        if u[j] >= 0:
            begin[np.uint64(min(np.int64(u[j] * length), most) >> bucket_bits) + np.uint64(1)] += 1
    for k in range(1, begin.size):
        begin[k] += begin[k - 1]
    near, past = np.empty(begin[buckets], np.int64), begin.copy()
    for j in range(u.size):
        if u[j] >= 0:
            place = min(np.int64(u[j] * length), most)
            k = np.uint64(place >> bucket_bits)
            near[np.uint64(past[k])] = place
            past[k] += 1
    units, owner = np.int64(1) << (bucket_bits - bits), np.uint64(0)
    round_up, guide = (np.int64(1) << bits) - 1, np.empty(units, np.int64)
    for k in range(buckets):
        start = np.int64(k) << bucket_bits
        stop = min(start + (np.int64(1) << bucket_bits), line)
        n = np.uint64((stop - start) >> bits)
        guide[:] = 0
        at, i = np.uint64(0), owner
        while True:
            if at < n:
                guide[at] = i
            if end[i] >= stop:
                break
            at = np.uint64((end[i] - start + round_up) >> bits)
            i += np.uint64(1)
        carry(guide, np.int64(0))
        owner = i
        while end[owner] == stop and stop < line:
            owner += np.uint64(1)
        for j in range(begin[k], begin[k + 1]):
            place = near[j]
            i = np.uint64(guide[np.uint64((place - start) >> bits)])
            # three steps without a branch to guess wrong: few walks are longer
            i += np.uint64(end[i] <= place)
            i += np.uint64(end[i] <= place)
            i += np.uint64(end[i] <= place)
            while end[i] <= place:
                i += np.uint64(1)
            out[i] += 1


@njit(cache=True, nogil=True)
def split(end, bits, whole, rest):
    """Whole units of each stretch, and the sums of the cells left over; returns how many units are whole."""
    before, remains, units = np.int64(0), np.int64(0), np.int64(0)
    for i in range(end.size):
        length = end[i] - before
        before = end[i]
        whole[i] = length >> bits
        units += whole[i]
        remains += length - (whole[i] << bits)
        rest[i] = remains
    return units


@njit(cache=True, nogil=True)
def spared(end, u, out):
    """See `_grid.spared`; returns how many are not."""
    before, longest, dead = np.int64(0), np.int64(0), np.int64(0)
    for i in range(end.size):
        longest = max(longest, end[i] - before)
        before = end[i]
    before, scale = np.int64(0), np.float64(longest)
    for i in range(end.size):
        length = end[i] - before
        before = end[i]
        over = min(np.int64(u[i] * scale), longest - 1) - length
        out[i] = (np.float64(over) + 0.5) / np.float64(longest - length) if over >= 0 else -1.0
        dead += over >= 0
    return dead


@njit(cache=True, nogil=True)
def replace(u, parent, out):
    """Each slot its own parent, or the next of `parent` where u is not negative."""
    k = np.uint64(0)
    for i in range(u.size):
        out[i] = i
        if u[i] >= 0:
            out[i] = parent[k]
            k += np.uint64(1)


@njit(cache=True, nogil=True)
def expand(count, out):
    """Parents in ascending order, from the number of their children."""
    out[:] = 0
    at, n = np.uint64(0), np.uint64(out.size)
    for i in range(count.size):
        if at < n:
            out[at] = i
        at += np.uint64(count[i])
    carry(out, np.int64(0))


@njit(cache=True, nogil=True)
def pivot(rest, u, bits, count):
    """See `ssp.pivot`."""
    unit = np.int64(1) << bits
    holder, held, before = 0, np.int64(0), np.int64(0)
    for i in range(rest.size):
        b = rest[i] - before
        before = rest[i]
        both = held + b
        whole = both >= unit
        total = 2 * unit - both if whole else both
        win = np.int64(u[i] * np.float64(total)) < (unit - b if whole else b)
        # above one unit the winner holds on and the loser is rounded up; below, the loser is rounded down
        if whole:
            count[holder if win else i] += 1
        holder = i if win else holder
        held = both - unit if whole else both
