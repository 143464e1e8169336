"""A network whose input and output have unit scale at every noise level."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from motes.diffusion.processes.process import Process
from motes.errors import check_positive


@dataclass(frozen=True)
class Scales:
    """The numbers of a noise level: alpha s, sigma, the standard deviation of x_t, and its place in [0, 1]."""

    signal: Tensor
    sigma: Tensor
    root: Tensor
    place: Tensor


def scales(process: Process, spread: float, x: Tensor, t: Tensor) -> Scales:
    """The scales at times t (N,), shaped to multiply x (N, ...); the place (N,) is linear in log(alpha / sigma)."""
    check_positive(spread=spread)
    shape, t = (-1, *[1] * (x.ndim - 1)), t.to(torch.float64)
    signal, sigma = spread * process.alpha(t), process.sigma(t)
    low, high = float(process.log_snr(process.t_max)), float(process.log_snr(process.t_min))
    place = (high - process.log_snr(t)) / (high - low)
    root = torch.sqrt(signal**2 + sigma**2)
    return Scales(*(level.to(x).reshape(shape) for level in (signal, sigma, root)), place=place.to(x))


class Scaled(nn.Module):
    """Any network F as a prediction of the data, scaled so that F sees and is asked for things of unit variance.

    With the standard deviation s of the data and v = alpha^2 s^2 + sigma^2,

        data = (alpha s^2 / v) x + (sigma s / sqrt(v)) F(x / sqrt(v), place),

    where the place of a time runs from 0 (data) to 1 (noise) along log(alpha / sigma). Needed where the noise is much
    larger than the data (`VarianceExploding`, `EDM`); train it with `predicts="data"`.

    Args:
        network: F, maps ((N, ...), (N,)) to the shape of its first argument.
        process: gives alpha and sigma.
        spread: the standard deviation s of the data.

    Raises:
        ValueError: on a call, for a spread that is not positive.

    References:
        Karras, Aittala, Aila & Laine (2022), Elucidating the Design Space of Diffusion-Based Generative Models,
        NeurIPS, section 5; here for any alpha.
    """

    network: Any
    process: Process
    spread: float

    def __init__(self, network: Any, process: Process, *, spread: float = 1.0):
        super().__init__()
        self.network, self.process, self.spread = network, process, spread

    def forward(self, x: Tensor, t: Tensor, **more: Any) -> Tensor:
        """The predicted data, like x (N, ...), at times t (N,)."""
        at = scales(self.process, self.spread, x, t)
        out = self.network(x / at.root, at.place, **more)
        return self.spread / at.root * (at.signal / at.root * x + at.sigma * out)
