"""The CPU route's compiled loops (numba): a tile of addresses to words, words to numbers, all in the first-level cache.

This file repeats the arithmetic of philox.py, threefry.py, squares.py, elementary.py and normal.py operation by
operation; numba contracts and reorders nothing, so the bits are the reference route's (tests/rng/test_routes.py).
A tile is an array of quads, four consecutive words of one particle each, so that the compiler can use vector
instructions over the quads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from motes.rng.elementary import LN2_HIGH, LN2_LOW, LOG, SQRT_HALF_BITS
from motes.rng.normal import CENTRE, SPLIT, A, B, C, D, E, F
from motes.rng.philox import M0, M1, W0, W1
from motes.rng.threefry import PARITY

TILE = 512
MASK = np.uint64(0xFFFFFFFF)
S32 = np.uint64(32)
UNIFORM32, UNIFORM, NORMAL, EXPONENTIAL, GUMBEL = range(5)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile on first use, and keep the machine code for later processes where there is a place to keep it."""
    # error_model: a division that may not raise can use vector instructions
    try:
        return njit(cache=True, nogil=True, error_model="numpy")(function)
    except RuntimeError:  # no folder to write to
        return njit(nogil=True, error_model="numpy")(function)


inlined = njit(nogil=True, inline="always", error_model="numpy")

PM0, PM1, PW0, PW1 = np.uint64(M0), np.uint64(M1), np.uint64(W0), np.uint64(W1)
TPARITY = np.uint64(PARITY)
# the exponent bits of 2^52: a whole number below 2^52 under them is 2^52 plus that number
MAGIC = np.uint64(0x4330000000000000)
LOG_SHIFT = np.uint64((1024 << 52) - SQRT_HALF_BITS)
S52 = np.uint64(52)


@inlined
def _swap(x):
    return (x << S32) | (x >> S32)


@compiled
def philox(particle, quad, step, inner, key, w):
    for i in range(particle.shape[0]):
        c0, c1, c2, c3 = quad[i], particle[i], step, inner
        k0, k1 = key & MASK, key >> S32
        for _ in range(10):
            p0, p1 = c0 * PM0, c2 * PM1
            c0, c1, c2, c3 = (p1 >> S32) ^ c1 ^ k0, p1 & MASK, (p0 >> S32) ^ c3 ^ k1, p0 & MASK
            k0, k1 = (k0 + PW0) & MASK, (k1 + PW1) & MASK
        w[0, i], w[1, i], w[2, i], w[3, i] = c0, c1, c2, c3


@inlined
def _rotate(x0, x1, r):
    x0 = (x0 + x1) & MASK
    return x0, (((x1 << r) | (x1 >> (S32 - r))) & MASK) ^ x0


@compiled
def threefry(particle, quad, step, inner, key, w):
    r0, r1, r2, r3 = np.uint64(13), np.uint64(15), np.uint64(26), np.uint64(6)
    r4, r5, r6, r7 = np.uint64(17), np.uint64(29), np.uint64(16), np.uint64(24)
    k0, k1 = key & MASK, key >> S32
    k2 = k0 ^ k1 ^ TPARITY
    for half in range(2):
        for i in range(particle.shape[0]):
            x0 = (quad[i] * np.uint64(2) + np.uint64(half) + k0) & MASK
            x1 = (particle[i] + k1) & MASK
            a, b, c = k0, k1, k2
            for j in range(5):
                if j % 2 == 0:
                    x0, x1 = _rotate(x0, x1, r0)
                    x0, x1 = _rotate(x0, x1, r1)
                    x0, x1 = _rotate(x0, x1, r2)
                    x0, x1 = _rotate(x0, x1, r3)
                else:
                    x0, x1 = _rotate(x0, x1, r4)
                    x0, x1 = _rotate(x0, x1, r5)
                    x0, x1 = _rotate(x0, x1, r6)
                    x0, x1 = _rotate(x0, x1, r7)
                a, b, c = b, c, a
                x0, x1 = (x0 + a) & MASK, (x1 + b + np.uint64(j + 1)) & MASK
            w[2 * half, i], w[2 * half + 1, i] = x0, x1


@compiled
def squares32(particle, quad, step, inner, key, w):
    for j in range(4):
        for i in range(particle.shape[0]):
            y = ((particle[i] << S32) | (quad[i] * np.uint64(4) + np.uint64(j))) * key
            z = y + key
            x = _swap(y * y + y)
            x = _swap(x * x + z)
            x = _swap(x * x + y)
            w[j, i] = (x * x + z) >> S32


@compiled
def squares64(particle, quad, step, inner, key, w):
    for j in range(2):
        for i in range(particle.shape[0]):
            y = ((particle[i] << S32) | (quad[i] * np.uint64(2) + np.uint64(j))) * key
            z = y + key
            x = _swap(y * y + y)
            x = _swap(x * x + z)
            x = _swap(x * x + y)
            t = x * x + z
            x = _swap(t)
            t = t ^ ((x * x + y) >> S32)
            w[2 * j, i], w[2 * j + 1, i] = t >> S32, t & MASK


@compiled
def _log(x, n):
    """Replace x[:n] by its logarithm (elementary.log)."""
    bits = x.view(np.uint64)
    for i in range(n):
        shifted = (bits[i] + LOG_SHIFT) >> S52  # the exponent + 1024, never negative
        bits[i] = bits[i] - ((shifted - np.uint64(1024)) << S52)
        f = x[i] - 1.0
        k = np.float64(np.int64(shifted)) - 1024.0
        s = f / (f + 2.0)
        z = s * s
        half = f * f * 0.5
        p = z * LOG[7] + LOG[6]
        p = p * z + LOG[5]
        p = p * z + LOG[4]
        p = p * z + LOG[3]
        p = p * z + LOG[2]
        p = p * z + LOG[1]
        p = p * z + LOG[0]
        tail = s * (half + p * z) + k * LN2_LOW
        x[i] = k * LN2_HIGH - ((half - tail) - f)


@inlined
def _ratio(x, P, Q):
    p = x * P[7] + P[6]
    q = x * Q[7] + Q[6]
    p, q = p * x + P[5], q * x + Q[5]
    p, q = p * x + P[4], q * x + Q[4]
    p, q = p * x + P[3], q * x + Q[3]
    p, q = p * x + P[2], q * x + Q[2]
    p, q = p * x + P[1], q * x + Q[1]
    p, q = p * x + P[0], q * x + Q[0]
    return p, q


@compiled
def _normal(u, n, at, tail):
    """Replace u[:n] by its normal quantile; `at` and `tail` are scratch."""
    m = 0
    for i in range(n):
        at[m] = i
        q = u[i] - 0.5
        tail[m] = min(u[i], 1.0 - u[i])
        m += abs(q) > CENTRE
    for j in range(m):
        # the sign is kept beside the place
        at[j] = at[j] * 2 + (u[at[j]] < 0.5)
    for i in range(n):
        q = u[i] - 0.5
        p, d = _ratio(0.180625 - q * q, A, B)
        u[i] = q * p / d
    _log(tail, m)
    for j in range(m):
        r = np.sqrt(-tail[j])
        p, d = _ratio(r - 1.6, C, D)
        tail[j] = p / d
        if r > SPLIT:
            p, d = _ratio(r - SPLIT, E, F)
            tail[j] = p / d
    for j in range(m):
        u[at[j] >> 1] = -tail[j] if at[j] & 1 else tail[j]


@compiled
def spread(ids, count, start, particle, quad):
    """The addresses of quads start, start + 1, ... when each particle of `ids` has `count` quads."""
    row, column = start // count, start % count
    for i in range(particle.shape[0]):
        particle[i] = np.uint64(ids[row])
        quad[i] = np.uint64(column)
        column += 1
        if column == count:
            column = 0
            row += 1


@compiled
def store_bits(w, start, per_row, count, out):
    """Put words (4, n) of quads start, ... into out (rows, count), flat."""
    row, column = start // per_row, start % per_row
    for i in range(w.shape[1]):
        at = row * count + 4 * column
        for j in range(min(4, count - 4 * column)):
            out[at + j] = np.int64(w[j, i])
        column += 1
        if column == per_row:
            column = 0
            row += 1


@compiled
def numbers(what, high, low, u):
    """Turn words (n,) and words (n,) into numbers u (n,)."""
    tail, at = np.empty(TILE, np.float64), np.empty(TILE, np.int64)
    scale = 2.0**-23 if what == UNIFORM32 else 2.0**-52
    logs = 1 if what == EXPONENTIAL else 2 if what == GUMBEL else 0
    for first in range(0, u.shape[0], TILE):
        x = u[first : first + TILE]
        h, g = high[first : first + TILE], low[first : first + TILE]
        n = x.shape[0]
        bits = x.view(np.uint64)
        if what == UNIFORM32:
            for i in range(n):
                bits[i] = (h[i] >> np.uint64(9)) | MAGIC
        else:
            for i in range(n):
                bits[i] = (h[i] << np.uint64(20)) | (g[i] >> np.uint64(12)) | MAGIC
        for i in range(n):
            x[i] = (x[i] - 4503599627370495.5) * scale  # 2^52 - 1/2: exact
        if what == NORMAL:
            _normal(x, n, at, tail)
        for _ in range(logs):
            _log(x, n)
            for i in range(n):
                x[i] = -x[i]


@compiled
def store_numbers(u, start, per_row, count, out):
    """Put numbers (2, n), two a quad, of quads start, ... into out (rows, count), flat."""
    row, column = start // per_row, start % per_row
    for i in range(u.shape[1]):
        at = row * count + 2 * column
        out[at] = u[0, i]
        if 2 * column + 1 < count:
            out[at + 1] = u[1, i]
        column += 1
        if column == per_row:
            column = 0
            row += 1
