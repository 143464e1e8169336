"""The distribution function of two correlated normals."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import torch
from torch import Tensor

NODES = 64


def binormal_cdf(h: Tensor, k: Tensor, rho: Tensor) -> Tensor:
    """P(X <= h, Y <= k) for standard normals with correlation rho in (-1, 1), float64, elementwise.

    Its derivative in rho is the density at (h, k). With rho = sin(theta) that leaves a smooth integral, from
    independence for |rho| <= 0.7 and from X = Y (or X = -Y) beyond, by Gauss-Legendre with 64 nodes:

        Phi_2 = Phi(h) Phi(k) + 1/(2 pi) int_0^asin(rho) exp(-(h^2 + k^2 - 2 h k sin t) / (2 cos^2 t)) dt.

    The error is below 1e-7, and below 1e-13 for |rho| <= 0.7 and |h|, |k| <= 5.

    References:
        Drezner & Wesolowsky (1990), On the computation of the bivariate normal integral, J. Stat. Comput. Simul. 35.
    """
    h, k, rho = torch.broadcast_tensors(*(torch.as_tensor(v, dtype=torch.float64) for v in (h, k, rho)))
    strong = rho.abs() > 0.7
    sign = torch.where(rho < 0, -1.0, 1.0).to(torch.float64)
    other = torch.where(strong, sign * k, k)  # P(X <= h, Y <= k) = Phi(h) - P(X <= h, -Y <= -k) for negative rho
    near = _near(h, other, rho.abs().acos())
    turned = torch.where(sign > 0, near, torch.special.ndtr(h) - near)
    return torch.where(strong, turned, _far(h, k, rho.clamp(-0.7, 0.7).asin())).clamp(0.0, 1.0)


def _far(h: Tensor, k: Tensor, end: Tensor) -> Tensor:
    node, weight = _rule()
    t = 0.5 * end[..., None] * (1 + node)
    exponent = -(h * h + k * k)[..., None] + 2 * (h * k)[..., None] * t.sin()
    area = 0.5 * end * ((exponent / (2 * t.cos().square())).exp() @ weight)
    return torch.special.ndtr(h) * torch.special.ndtr(k) + area / (2 * math.pi)


def _near(h: Tensor, k: Tensor, end: Tensor) -> Tensor:
    """From rho = 1: t is pi/2 less the angle, and h^2 + k^2 - 2 h k cos t = (h - k)^2 + 2 h k (1 - cos t)."""
    node, weight = _rule()
    s = 0.5 * (1 + node)  # t = end s^2 puts nodes where the integrand rises, at about |h - k|
    t = end[..., None] * s.square()
    exponent = -(h - k).square()[..., None] / (2 * t.sin().square()) - (h * k)[..., None] / (1 + t.cos())
    area = end * (exponent.exp() @ (weight * s))
    return torch.special.ndtr(torch.minimum(h, k)) - area / (2 * math.pi)


@cache
def _rule() -> tuple[Tensor, Tensor]:
    node, weight = np.polynomial.legendre.leggauss(NODES)
    return torch.from_numpy(node), torch.from_numpy(weight)
