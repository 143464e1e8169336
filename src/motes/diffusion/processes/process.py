"""Noising processes: how data turns into noise, and the times at which a sampler walks back.

Every process here is x_t = alpha(t) x_0 + sigma(t) noise, the law at time t of the linear equation
dX = f(t) X dt + g(t) dW with f = d log(alpha)/dt and g^2 = d sigma^2/dt - 2 f sigma^2. Times are float64 tensors or
floats from `t_min` (data) to `t_max` (noise).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import KW_ONLY, dataclass
from typing import Literal

import torch
from torch import Tensor

from motes.core.registry import Registry
from motes.errors import MotesError, check_name

SPACINGS = ("time", "snr", "karras", "geometric")


class Process(ABC):
    """A noising process x_t = alpha(t) x_0 + sigma(t) noise with a law to start from.

    References:
        Song, Sohl-Dickstein, Kingma, Kumar, Ermon & Poole (2021), Score-Based Generative Modeling through Stochastic
        Differential Equations, ICLR, section 3.4.
    """

    t_min: float
    t_max: float
    spacing: str
    rho: float = 7.0
    """The power of Karras's spacing."""

    @abstractmethod
    def alpha(self, t: Tensor | float) -> Tensor:
        """What is left of the data at time t, float64."""

    @abstractmethod
    def sigma(self, t: Tensor | float) -> Tensor:
        """The standard deviation of the noise at time t, float64."""

    @abstractmethod
    def drift(self, t: Tensor | float) -> Tensor:
        """f(t) of dX = f(t) X dt + g(t) dW, float64."""

    @abstractmethod
    def diffusion(self, t: Tensor | float) -> Tensor:
        """g(t) of dX = f(t) X dt + g(t) dW, float64."""

    @abstractmethod
    def time(self, log_snr: Tensor | float) -> Tensor:
        """The time at which log(alpha / sigma) is `log_snr`, float64."""

    @property
    @abstractmethod
    def start_std(self) -> float:
        """The standard deviation of the centred normal law that sampling starts from, at t_max."""

    def log_snr(self, t: Tensor | float) -> Tensor:
        """log(alpha / sigma) at time t, float64: falls as t grows."""
        return torch.log(self.alpha(t)) - torch.log(self.sigma(t))

    def rates(self, t: Tensor | float) -> tuple[Tensor, Tensor]:
        """(d alpha/dt, d sigma/dt) at time t, float64."""
        f, sigma = self.drift(t), self.sigma(t)
        return f * self.alpha(t), self.diffusion(t) ** 2 / (2 * sigma) + f * sigma

    def times(self, steps: int, spacing: str | None = None) -> Tensor:
        """The (steps + 1,) times of a sampler, float64, from t_max down to t_min.

        Args:
            steps: number of steps, at least 1.
            spacing: "time" for equal steps in t; "snr" for equal steps in log(alpha / sigma); "karras" for equal steps
                in (sigma / alpha)^(1 / rho), which lie closer near the data, rho = 7 unless the process says another;
                "geometric" for equal ratios of t; None is the process's own.

        Raises:
            UnknownName: another spacing.
            ValueError: no step; geometric times down to 0; "snr" or "karras" from or to where log(alpha / sigma) is
                infinite ("karras" may go down to sigma = 0).

        References:
            Karras, Aittala, Aila & Laine (2022), Elucidating the Design Space, NeurIPS, Eq. (5) ("karras").
        """
        spacing = self.spacing if spacing is None else spacing
        check_name("spacing", spacing, SPACINGS)
        if steps < 1:
            raise MotesError(f"a sampler needs at least 1 step, not {steps}")
        if spacing == "time":
            times = torch.linspace(self.t_max, self.t_min, steps + 1, dtype=torch.float64)
        elif spacing == "geometric":
            if self.t_min <= 0:
                raise MotesError('equal ratios of t never reach t_min=0: give the process t_min > 0, or use "snr"')
            times = self.t_max * (self.t_min / self.t_max) ** torch.linspace(0, 1, steps + 1, dtype=torch.float64)
        else:
            ends = [float(self.log_snr(t)) for t in (self.t_max, self.t_min)]
            if not math.isfinite(ends[0]) or (spacing == "snr" and not math.isfinite(ends[1])):
                raise MotesError(
                    f'spacing "{spacing}" needs a finite log(alpha / sigma) at both ends, not {ends[0]:.4g} '
                    f'at t_max and {ends[1]:.4g} at t_min: move them, or use "time"'
                )
            power = self.rho if spacing == "karras" else 0.0
            times = self.time(_between(ends[0], ends[1], steps, power))
        times[0], times[-1] = self.t_max, self.t_min
        return times

    def _check(self) -> None:
        if not 0 <= self.t_min < self.t_max:
            raise MotesError(f"need 0 <= t_min < t_max, not t_min={self.t_min}, t_max={self.t_max}")
        check_name("spacing", self.spacing, SPACINGS)


processes: Registry[type[Process]] = Registry("process", "motes.diffusion.processes")
"""Every process by its name."""


@processes.register
@dataclass(frozen=True)
class VariancePreserving(Process):
    """alpha^2 + sigma^2 = 1: the data shrinks as the noise grows, and sampling starts from the standard normal.

    Args:
        schedule: "linear" has noise rate beta_min + t (beta_max - beta_min), "cosine" has alpha = cos(pi t / 2).
        beta_min, beta_max: the rates of the linear schedule, per unit of time.
        t_min, t_max: the first and the last time, in (0, 1]; the cosine schedule needs t_max < 1.
        spacing: how steps are spread, "time" or "snr".

    References:
        Ho, Jain & Abbeel (2020), Denoising Diffusion Probabilistic Models, NeurIPS (linear).
        Nichol & Dhariwal (2021), Improved Denoising Diffusion Probabilistic Models, ICML, section 3.2 (cosine).
    """

    schedule: Literal["linear", "cosine"] = "linear"
    _: KW_ONLY
    beta_min: float = 0.1
    beta_max: float = 20.0
    t_min: float = 1e-3
    t_max: float = 0.995
    spacing: str = "time"

    def __post_init__(self) -> None:
        self._check()
        check_name("schedule", self.schedule, ("linear", "cosine"))
        if not 0 < self.beta_min <= self.beta_max:
            raise MotesError(f"need 0 < beta_min <= beta_max, not {self.beta_min}, {self.beta_max}")
        if self.t_max > 1 or (self.schedule == "cosine" and self.t_max >= 1):
            raise MotesError(f"t_max={self.t_max} must be at most 1, and less for the cosine schedule: alpha(1) = 0")

    def _log_alpha(self, t: Tensor) -> Tensor:
        return -0.5 * (self.beta_min * t + 0.5 * (self.beta_max - self.beta_min) * t * t)

    def alpha(self, t: Tensor | float) -> Tensor:
        t = _t(t)
        return torch.cos(0.5 * math.pi * t) if self.schedule == "cosine" else torch.exp(self._log_alpha(t))

    def sigma(self, t: Tensor | float) -> Tensor:
        t = _t(t)
        if self.schedule == "cosine":
            return torch.sin(0.5 * math.pi * t)
        return torch.sqrt(-torch.expm1(2 * self._log_alpha(t)))

    def drift(self, t: Tensor | float) -> Tensor:
        t = _t(t)
        if self.schedule == "cosine":
            return -0.5 * math.pi * torch.tan(0.5 * math.pi * t)
        return -0.5 * (self.beta_min + t * (self.beta_max - self.beta_min))

    def diffusion(self, t: Tensor | float) -> Tensor:
        return torch.sqrt(-2 * self.drift(t))

    def time(self, log_snr: Tensor | float) -> Tensor:
        log_snr = _t(log_snr)
        if self.schedule == "cosine":
            return 2 / math.pi * torch.atan(torch.exp(-log_snr))
        total = torch.nn.functional.softplus(-2 * log_snr)  # the integral of the rate up to t, -2 log(alpha)
        slope = self.beta_max - self.beta_min
        return 2 * total / (self.beta_min + torch.sqrt(self.beta_min**2 + 2 * slope * total))

    @property
    def start_std(self) -> float:
        return 1.0


@processes.register
@dataclass(frozen=True)
class VarianceExploding(Process):
    """alpha = 1: noise is added to the data until it drowns it; sigma(t) grows geometrically over t in [0, 1].

    Args:
        sigma_min, sigma_max: the noise at t = 0 and at t = 1, in units of the data.
        t_min, t_max: the first and the last time, in [0, 1].
        spacing: "snr" and "time" are the same here, since log(sigma) is linear in t.

    References:
        Song et al. (2021), Score-Based Generative Modeling through Stochastic Differential Equations, ICLR, appendix C.
    """

    sigma_min: float = 0.01
    _: KW_ONLY
    sigma_max: float = 50.0
    t_min: float = 0.0
    t_max: float = 1.0
    spacing: str = "time"

    def __post_init__(self) -> None:
        self._check()
        if not 0 < self.sigma_min < self.sigma_max:
            raise MotesError(f"need 0 < sigma_min < sigma_max, not {self.sigma_min}, {self.sigma_max}")

    @property
    def _rate(self) -> float:
        return math.log(self.sigma_max / self.sigma_min)

    def alpha(self, t: Tensor | float) -> Tensor:
        return torch.ones_like(_t(t))

    def sigma(self, t: Tensor | float) -> Tensor:
        return self.sigma_min * torch.exp(self._rate * _t(t))

    def drift(self, t: Tensor | float) -> Tensor:
        return torch.zeros_like(_t(t))

    def diffusion(self, t: Tensor | float) -> Tensor:
        return self.sigma(t) * math.sqrt(2 * self._rate)

    def time(self, log_snr: Tensor | float) -> Tensor:
        return (-_t(log_snr) - math.log(self.sigma_min)) / self._rate

    @property
    def start_std(self) -> float:
        return float(self.sigma(self.t_max))


def _between(first: float, last: float, steps: int, rho: float) -> Tensor:
    """(steps + 1,) values of log(alpha / sigma), equally spaced in exp(-value / rho); rho = 0: in the value."""
    if rho == 0:
        return torch.linspace(first, last, steps + 1, dtype=torch.float64)
    return -rho * torch.log(
        torch.linspace(math.exp(-first / rho), math.exp(-last / rho), steps + 1, dtype=torch.float64)
    )


def _t(t: Tensor | float) -> Tensor:
    return torch.as_tensor(t, dtype=torch.float64)
