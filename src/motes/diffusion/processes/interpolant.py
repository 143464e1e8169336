"""Paths of flow models between data and noise: straight lines, arcs, or any of your own."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any

import torch
from torch import Tensor

from motes.core.files.settings import digest, knobs
from motes.diffusion.processes.process import Process, processes
from motes.errors import MotesError, UnknownName

Function = Callable[[Tensor], Tensor]
PATHS: dict[str, tuple[Function, Function]] = {
    "linear": (lambda t: 1 - t, lambda t: t),
    "trigonometric": (lambda t: torch.cos(0.5 * math.pi * t), lambda t: torch.sin(0.5 * math.pi * t)),
}


@processes.register
@dataclass(frozen=True)
class RectifiedFlow(Process):
    """alpha = 1 - t and sigma = t: straight lines from data at t = 0 to standard normal noise at t = 1.

    A network that predicts dx/dt = noise - data has `predicts="flow"`; one whose time runs from noise to data and that
    predicts data - noise has `predicts="backward flow"` and `condition=lambda t: 1 - t`. At t = 1 nothing is left of
    the data, so the equation's coefficients are infinite there: sampling starts a little before, from N(0, t_max^2).

    Args:
        t_min, t_max: the first and the last time, 0 <= t_min < t_max < 1.
        spacing: how steps are spread; "time" is usual for flows.

    Raises:
        UnknownName, ValueError: another spacing; times that do not fit.

    References:
        Liu, Gong & Liu (2023), Flow Straight and Fast, ICLR.
        Lipman, Chen, Ben-Hamu, Nickel & Le (2023), Flow Matching for Generative Modeling, ICLR, Eq. (20)-(23).

    Example:
        >>> import torch
        >>> from motes.diffusion import gaussian
        >>> from motes.diffusion.processes.interpolant import RectifiedFlow
        >>> denoiser = gaussian(RectifiedFlow(), torch.zeros(1), torch.eye(1))
        >>> float(denoiser.flow(torch.ones(1, 1), 0.5))  # halfway between two standard normals nothing moves
        0.0
    """

    t_min: float = 1e-3
    _: KW_ONLY
    t_max: float = 0.999
    spacing: str = "time"

    def __post_init__(self) -> None:
        self._check()
        _below_one(self.t_max)

    def alpha(self, t: Tensor | float) -> Tensor:
        return 1 - _t(t)

    def sigma(self, t: Tensor | float) -> Tensor:
        return _t(t)

    def drift(self, t: Tensor | float) -> Tensor:
        return -1 / (1 - _t(t))

    def diffusion(self, t: Tensor | float) -> Tensor:
        return torch.sqrt(2 * _t(t) / (1 - _t(t)))

    def rates(self, t: Tensor | float) -> tuple[Tensor, Tensor]:
        one = torch.ones_like(_t(t))
        return -one, one

    def time(self, log_snr: Tensor | float) -> Tensor:
        return torch.sigmoid(-_t(log_snr))

    @property
    def start_std(self) -> float:
        return self.t_max


@processes.register
@dataclass(frozen=True)
class Interpolant(Process):
    """x_t = alpha(t) x_0 + sigma(t) noise for functions of your own, with whatever samplers need derived from them.

    f = alpha' / alpha and g^2 = 2 sigma (alpha sigma' - alpha' sigma) / alpha, so that the linear equation has these
    marginals; log(alpha / sigma) is inverted by bisection. A path between data and a normal start that also has noise
    in its middle, alpha x_0 + beta x_1 + gamma z, is the same with sigma^2 = beta^2 + gamma^2.

    Args:
        path: "linear", "trigonometric" (cosine and sine of pi t / 2), or two functions (alpha, sigma) of float64
            tensors of times.
        rates_of: the derivatives (alpha', sigma'); None takes them by automatic differentiation.
        t_min, t_max: the first and the last time; alpha must be positive in between, sigma too but at t_min.
        spacing: how steps are spread.

    Raises:
        UnknownName: another path or spacing.
        ValueError: the functions are no such path: not positive, log(alpha / sigma) does not fall, or the derivatives
            are not theirs.

    References:
        Albergo, Boffi & Vanden-Eijnden (2023), Stochastic Interpolants: A Unifying Framework for Flows and Diffusions,
        arXiv 2303.08797, section 2.

    Example:
        >>> import torch
        >>> from motes.diffusion.processes.interpolant import Interpolant
        >>> square = Interpolant((lambda t: 1 - t**2, lambda t: t))
        >>> [round(float(v), 6) for v in square.rates(0.5)]
        [-1.0, 1.0]
    """

    path: str | tuple[Function, Function] = "linear"
    _: KW_ONLY
    rates_of: tuple[Function, Function] | None = None
    t_min: float = 1e-3
    t_max: float = 0.999
    spacing: str = "time"

    def __post_init__(self) -> None:
        self._check()
        if isinstance(self.path, str) and self.path not in PATHS:
            raise UnknownName("path", self.path, PATHS)
        if isinstance(self.path, str):
            _below_one(self.t_max)
        t = torch.linspace(self.t_min, self.t_max, 201, dtype=torch.float64)
        alpha, sigma = self.alpha(t), self.sigma(t)
        if not (bool((alpha > 0).all()) and bool((sigma[1:] > 0).all()) and float(sigma[0]) >= 0):
            raise MotesError("alpha and sigma must be positive between t_min and t_max (sigma may be 0 at t_min)")
        alpha_rate, sigma_rate = self.rates(t)
        middle, step = t[1:-1], 1e-5 * (self.t_max - self.t_min)
        for name, rate, f in (("alpha", alpha_rate, self.alpha), ("sigma", sigma_rate, self.sigma)):
            slope = (f(middle + step) - f(middle - step)) / (2 * step)
            if not torch.allclose(rate[1:-1], slope, rtol=1e-4, atol=1e-6 * float(slope.abs().max()) + 1e-9):
                raise MotesError(
                    f"the derivative of {name} is not what its values say: write the function in torch operations that "
                    "keep gradients, or give the right rates_of=(alpha', sigma')"
                )
        if not bool((alpha * sigma_rate - alpha_rate * sigma > 0).all()):
            raise MotesError("alpha / sigma must fall from t_min to t_max: t runs from data to noise")

    @property
    def _functions(self) -> tuple[Function, Function]:
        return PATHS[self.path] if isinstance(self.path, str) else self.path

    def alpha(self, t: Tensor | float) -> Tensor:
        return self._functions[0](_t(t)) + 0 * _t(t)  # a constant may come as one number

    def sigma(self, t: Tensor | float) -> Tensor:
        return self._functions[1](_t(t)) + 0 * _t(t)

    def rates(self, t: Tensor | float) -> tuple[Tensor, Tensor]:
        """(d alpha/dt, d sigma/dt) at time t, float64."""
        if self.rates_of is not None:
            zero = 0 * _t(t)
            return self.rates_of[0](_t(t)) + zero, self.rates_of[1](_t(t)) + zero
        return _derivative(self.alpha, _t(t)), _derivative(self.sigma, _t(t))

    def drift(self, t: Tensor | float) -> Tensor:
        return self.rates(t)[0] / self.alpha(t)

    def diffusion(self, t: Tensor | float) -> Tensor:
        alpha, sigma, (alpha_rate, sigma_rate) = self.alpha(t), self.sigma(t), self.rates(t)
        return torch.sqrt(2 * sigma * (alpha * sigma_rate - alpha_rate * sigma) / alpha)

    def time(self, log_snr: Tensor | float) -> Tensor:
        log_snr = _t(log_snr)
        most, least = self.log_snr(self.t_min), self.log_snr(self.t_max)
        if bool((log_snr > most + 1e-9 * most.abs()).any()) or bool((log_snr < least - 1e-9 * least.abs()).any()):
            raise MotesError(f"log(alpha / sigma) lies between {float(least):.4g} and {float(most):.4g} on this path")
        low, high = torch.full_like(log_snr, self.t_min), torch.full_like(log_snr, self.t_max)
        for _ in range(60):
            middle = 0.5 * (low + high)
            before = self.log_snr(middle) > log_snr
            low, high = torch.where(before, middle, low), torch.where(before, high, middle)
        return 0.5 * (low + high)

    @property
    def start_std(self) -> float:
        return float(self.sigma(self.t_max))

    def settings(self) -> dict[str, Any]:
        t = torch.linspace(self.t_min, self.t_max, 17, dtype=torch.float64)
        values = torch.stack([self.alpha(t), self.sigma(t)])
        path = self.path if isinstance(self.path, str) else digest(values)
        return {"name": "Interpolant", **knobs(self), "path": path, "rates_of": None}


def _derivative(f: Function, t: Tensor) -> Tensor:
    with torch.enable_grad():
        t = t.detach().requires_grad_()
        return torch.autograd.grad(f(t).sum(), t)[0]


def _below_one(t_max: float) -> None:
    if t_max >= 1:
        raise MotesError(f"t_max={t_max} must be less than 1, where nothing is left of the data")


def _t(t: Tensor | float) -> Tensor:
    return torch.as_tensor(t, dtype=torch.float64)
