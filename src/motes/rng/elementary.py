"""log, exp and sqrt in float64 from operations that IEEE rounds: + - * /, bits, and the processor's square root.

Those are rounded alike everywhere, so the result never depends on the machine, the vector width, the place in a
tensor or the route; the library functions of torch promise none of that. Coefficients: Chebyshev fits made with
mpmath in 50 digits; errors below 1 unit in the last place (tests/rng/test_elementary.py).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

SQRT_HALF_BITS = 0x3FE6A09E667F3BCD
LN2_HIGH = 0x162E42FEE00000 / 2**53  # 21 zero bits at the end: exponent * LN2_HIGH is exact
LN2_LOW = 1.9082149292705877e-10
INV_LN2 = 1.4426950408889634

# (2 atanh(s) - 2 s) / s^3 as a polynomial in s^2 on |s| <= 3 - 2 sqrt(2), error 2e-18
LOG = (
    0.66666666666666666465,
    0.40000000000000877606,
    0.28571428570803230015,
    0.22222222391800469329,
    0.181817956308847532,
    0.15386240205813477879,
    0.13268759668560612686,
    0.13086767009948173713,
)
# (exp(r) - 1 - r) / r^2 as a polynomial in r on |r| <= log(2) / 2, error 1.4e-18
EXP = (
    0.5,
    0.16666666666666671008,
    0.041666666666666669767,
    0.0083333333333261120526,
    0.0013888888888883731828,
    0.00019841269874901259234,
    0.000024801587325605322782,
    2.7557255297969644392e-6,
    2.7557273570102139673e-7,
    2.5105259538448493419e-8,
    2.0914717341716375952e-9,
)


def horner(x: Tensor, coefficients: tuple[float, ...]) -> Tensor:
    """sum_k c_k x^k, from the highest power down."""
    value = x * coefficients[-1] + coefficients[-2]
    for c in reversed(coefficients[:-2]):
        value = value * x + c
    return value


def log(x: Tensor) -> Tensor:
    """The natural logarithm of positive normal float64 numbers."""
    bits = x.view(torch.int64)
    exponent = (bits - SQRT_HALF_BITS) >> 52
    f = (bits - (exponent << 52)).view(torch.float64) - 1.0  # in [sqrt(1/2), sqrt(2)) - 1, exactly
    k = exponent.to(torch.float64)
    s = f / (f + 2.0)
    z = s * s
    half = f * f * 0.5
    tail = s * (half + horner(z, LOG) * z) + k * LN2_LOW
    return k * LN2_HIGH - ((half - tail) - f)


def exp(x: Tensor) -> Tensor:
    """The exponential of float64 numbers; below -708 the result is 0, above 709 infinity."""
    k = torch.floor(x.clamp(-745.0, 745.0) * INV_LN2 + 0.5)
    r = (x - k * LN2_HIGH) - k * LN2_LOW
    value = r * r * horner(r, EXP) + r + 1.0
    # two factors, because 2^k alone may not be a number where the product is one
    k = k.to(torch.int64)
    first = k >> 1
    scale1 = ((first + 1023) << 52).view(torch.float64)
    scale2 = ((k - first + 1023) << 52).view(torch.float64)
    value = value * scale1 * scale2
    return torch.where(x < -708.0, 0.0, torch.where(x > 709.0, torch.inf, value))


def sqrt(x: Tensor) -> Tensor:
    """The correctly rounded square root; torch's own is wrong in the last bit of 1 % of float64 numbers on the CPU."""
    if x.device.type == "cpu":
        return torch.from_numpy(np.asarray(np.sqrt(x.detach().numpy())))
    return torch.sqrt(x)
