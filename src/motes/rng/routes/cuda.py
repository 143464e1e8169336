"""The fast route on CUDA: one Triton kernel for the normative generator, the reference route for the others.

The bits are the reference's: contraction of products and sums is switched off, and float64 division and square root
round correctly on CUDA. Every constant that float32 cannot hold is loaded from a float64 table, because a number in
a kernel's source may be rounded to float32 on its way.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from motes.rng.elementary import LN2_HIGH, LN2_LOW, LOG, SQRT_HALF_BITS
from motes.rng.generators import Generator
from motes.rng.normal import CENTRE, SPLIT, A, B, C, D, E, F
from motes.rng.philox import M0, M1, W0, W1

from . import reference

name = "triton"
words = reference.words  # the few words of a rejection sampler are not worth a kernel
BLOCK = 512
WHAT = {"bits": 0, "uniform": 1, "normal": 2, "exponential": 3, "gumbel": 4, "uniform32": 5}
TABLE = (*LOG, *A, *B, *C, *D, *E, *F, LN2_HIGH, LN2_LOW, 2.0**-52, 0.180625, 1.6, SPLIT, CENTRE)
SCALARS = tl.constexpr(56)
CM0, CM1, CW0, CW1 = tl.constexpr(M0), tl.constexpr(M1), tl.constexpr(W0), tl.constexpr(W1)
SQRT_HALF = tl.constexpr(SQRT_HALF_BITS)


@triton.jit
def _horner(x, p):
    value = x * tl.load(p + 7) + tl.load(p + 6)
    for i in tl.static_range(6):
        value = value * x + tl.load(p + 5 - i)
    return value


@triton.jit
def _log(x, table):
    bits = x.to(tl.int64, bitcast=True)
    exponent = (bits - SQRT_HALF) >> 52
    f = (bits - (exponent << 52)).to(tl.float64, bitcast=True) - 1.0
    k = exponent.to(tl.float64)
    s = f / (f + 2.0)
    z = s * s
    half = f * f * 0.5
    tail = s * (half + _horner(z, table) * z) + k * tl.load(table + SCALARS + 1)
    return k * tl.load(table + SCALARS) - ((half - tail) - f)


@triton.jit
def _normal(u, table):
    q = u - 0.5
    r = tl.load(table + SCALARS + 3) - q * q
    centre = q * _horner(r, table + 8) / _horner(r, table + 16)
    tail = tl.sqrt(-_log(tl.minimum(u, 1.0 - u), table))
    split = tl.load(table + SCALARS + 5)
    near, far = tail - tl.load(table + SCALARS + 4), tail - split
    outer = tl.where(
        tail <= split,
        _horner(near, table + 24) / _horner(near, table + 32),
        _horner(far, table + 40) / _horner(far, table + 48),
    )
    return tl.where(tl.abs(q) <= tl.load(table + SCALARS + 6), centre, tl.where(q < 0.0, -outer, outer))


@triton.jit
def _number(high, low, table, what: tl.constexpr):
    if what == 5:
        u = ((high >> 9).to(tl.float64) + 0.5) * 1.1920928955078125e-07  # 2^-23: a float32 holds it
    else:
        whole = ((high.to(tl.int64) << 20) | (low.to(tl.int64) >> 12)).to(tl.float64)
        u = (whole + 0.5) * tl.load(table + SCALARS + 2)
    if what == 2:
        u = _normal(u, table)
    if what == 3 or what == 4:
        u = -_log(u, table)
    if what == 4:
        u = -_log(u, table)
    return u


@triton.jit
def _kernel(out, ids, address, table, total, per_row, count, what: tl.constexpr, block: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block).to(tl.int64)
    live = at < total
    row = at // per_row
    column = at - row * per_row
    c0 = column.to(tl.uint32)
    c1 = tl.load(ids + row, mask=live, other=0).to(tl.uint32)
    k0, k1 = tl.load(address).to(tl.uint32), tl.load(address + 1).to(tl.uint32)
    c2 = tl.zeros_like(c0) + tl.load(address + 2).to(tl.uint32)
    c3 = tl.zeros_like(c0) + tl.load(address + 3).to(tl.uint32)
    m0, m1 = tl.full((block,), CM0, tl.uint32), tl.full((block,), CM1, tl.uint32)
    w0, w1 = tl.full((), CW0, tl.uint32), tl.full((), CW1, tl.uint32)
    for _ in tl.static_range(10):
        h0, h1, l0, l1 = tl.umulhi(c0, m0), tl.umulhi(c2, m1), c0 * m0, c2 * m1
        c0, c1, c2, c3 = h1 ^ c1 ^ k0, l1, h0 ^ c3 ^ k1, l0
        k0 += w0
        k1 += w1
    if what == 0:
        place, end = row * count + column * 4, (row + 1) * count
        tl.store(out + place, c0.to(tl.int64), mask=live)
        tl.store(out + place + 1, c1.to(tl.int64), mask=live & (place + 1 < end))
        tl.store(out + place + 2, c2.to(tl.int64), mask=live & (place + 2 < end))
        tl.store(out + place + 3, c3.to(tl.int64), mask=live & (place + 3 < end))
    else:
        place, end = row * count + column * 2, (row + 1) * count
        kind = out.dtype.element_ty
        tl.store(out + place, _number(c0, c1, table, what).to(kind), mask=live)
        tl.store(out + place + 1, _number(c2, c3, table, what).to(kind), mask=live & (place + 1 < end))


@lru_cache(maxsize=16)
def _table(device: torch.device) -> Tensor:
    return torch.tensor(TABLE, dtype=torch.float64, device=device)


def draw(
    generator: Generator,
    what: str,
    key: tuple[int, int],
    particle: Tensor,
    count: int,
    step: int,
    inner: int,
    dtype: torch.dtype,
) -> Tensor:
    """Draws 0..count-1 of each particle, (n, count), as in the reference route."""
    if generator.name != "philox4x32-10":
        return reference.draw(generator, what, key, particle, count, step, inner, dtype)
    out = torch.empty((particle.shape[0], count), dtype=dtype, device=particle.device)
    # an argument equal to 1 would become a constant of the kernel, so the address goes through memory
    address = torch.tensor([*key, step, inner], device=particle.device)
    per_row = -(-count // (4 if what == "bits" else 2))
    total = particle.shape[0] * per_row
    code = WHAT["uniform32" if what == "uniform" and dtype == torch.float32 else what]
    kernel: Any = _kernel
    launch = kernel[(triton.cdiv(total, BLOCK),)]
    # total, per_row and count take part in 64-bit arithmetic only
    launch(out, particle, address, _table(out.device), total, per_row, count, code, BLOCK, enable_fp_fusion=False)
    return out
