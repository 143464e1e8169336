"""A network, whatever it predicts, as a prediction of the data.

x_t = alpha x_0 + sigma noise makes all predictions in use one and the same up to a linear map:
noise = (x - alpha data) / sigma, score = (alpha data - x) / sigma^2, velocity = alpha noise - sigma data, and
flow = alpha' data + sigma' noise, the expected dx_t/dt of a sample along its path from data to noise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from motes.diffusion.processes.process import Process
from motes.errors import MotesError, ShapeError, UnknownName, WrongType, check_name

PREDICTIONS = ("noise", "data", "velocity", "score", "flow", "backward flow")
CONDITIONS = ("t", "sigma")


def unknown(x: Tensor, t: Tensor | float) -> Tensor:
    """The log-density of a denoiser that has none.

    Raises:
        MotesError: always.
    """
    raise MotesError(
        "this denoiser has no log-density: most networks know only its gradient, the score. Give one with "
        "Denoiser(..., log_density=f), or use a denoiser that has it (gaussian, mixture, empirical)"
    )


@dataclass(frozen=True)
class NoisedDensity:
    """The log-density that a denoiser was given, asked with any time and answered in float64."""

    function: Callable[[Tensor, Tensor], Tensor]

    def __call__(self, x: Tensor, t: Tensor | float) -> Tensor:
        """(N,) float64 nats at x (N, ...) and time t, a number or (N,).

        Raises:
            ShapeError: the function returned another shape.
        """
        out = self.function(x, torch.as_tensor(t, dtype=torch.float64).expand(len(x)))
        if out.shape != (len(x),):
            raise ShapeError(
                f"log_density must return shape ({len(x)},), one number a particle, not {tuple(out.shape)}"
            )
        return out.to(torch.float64)


SIZES = ("shape", "size", "dimension", "channels")
"""Words by which torch says that a tensor does not fit."""


@dataclass(frozen=True)
class Denoiser:
    """A model of a process, wrapped so that it can be asked for the data, the noise, the score or the velocity.

    Args:
        model: maps (x (N, ...), condition (N,)) to a tensor like x.
        process: the process it was trained for.
        predicts: what it returns: "noise", "data", "score" (the gradient of the log-density of x_t), "velocity" (alpha
            noise - sigma data), "flow" (dx/dt of flow models in the process's time, from data to noise: noise - data
            for straight lines) or "backward flow" (its negative, for models whose time runs from noise to data).
        condition: what the model is told: the time "t", the noise level "sigma", or a function of the time.
        name: kept with runs, so that a resumed run can tell another model.
        log_density: maps (x (N, ...), t (N,)) to the (N,) log-density of x_t, nats, where it is known; methods whose
            weights need it say so. Asked as `denoiser.log_density(x, t)`, with t a number or (N,), for (N,) float64.

    Raises:
        MotesError: on a call of `log_density`, when the model has none; on a call with an x that needs gradients, when
            the model keeps none.
        UnknownName: another prediction or condition.
        ShapeError: on a call, when the model refuses the shape of x or returns another.

    References:
        Efron (2011), Tweedie's Formula and Selection Bias, JASA 106 (the score as a denoised prediction).
        Salimans & Ho (2022), Progressive Distillation for Fast Sampling of Diffusion Models, ICLR (velocity).
        Albergo, Boffi & Vanden-Eijnden (2023), Stochastic Interpolants, arXiv 2303.08797, section 2 (flow and score).

    Example:
        >>> import torch
        >>> from motes.diffusion import Denoiser, VariancePreserving
        >>> denoiser = Denoiser(lambda x, t: torch.zeros_like(x), VariancePreserving(), predicts="data")
        >>> float(denoiser.data(torch.ones(1, 2), 0.5).sum())
        0.0
    """

    model: Callable[[Tensor, Tensor], Tensor]
    process: Process
    _: KW_ONLY
    predicts: Literal["noise", "data", "velocity", "score", "flow", "backward flow"] = "noise"
    condition: Literal["t", "sigma"] | Callable[[Tensor], Tensor] = "t"
    name: str = ""
    log_density: Callable[[Tensor, Any], Tensor] = unknown

    def __post_init__(self) -> None:
        if not callable(self.model):
            raise WrongType(f"model must be a function (x, condition) -> like x, not {self.model!r}")
        if not isinstance(self.process, Process):
            raise WrongType(f"process must be a process such as VariancePreserving(), not {self.process!r}")
        check_name("prediction", self.predicts, PREDICTIONS)
        if not callable(self.condition) and self.condition not in CONDITIONS:
            raise UnknownName("condition", self.condition, CONDITIONS)
        given = self.log_density or unknown  # None is none
        known = given if given is unknown or isinstance(given, NoisedDensity) else NoisedDensity(given)
        object.__setattr__(self, "log_density", known)

    @property
    def has_log_density(self) -> bool:
        """Whether `log_density` is known."""
        return self.log_density is not unknown

    def data(self, x: Tensor, t: Tensor | float) -> Tensor:
        """The expected data given x (N, ...) at time t, a number or (N,)."""
        out = self._raw(x, t)
        if self.predicts == "data":
            return out
        alpha, sigma = self._levels(x, t)
        if self.predicts == "noise":
            return (x - sigma * out) / alpha
        if self.predicts == "score":
            return (x + sigma**2 * out) / alpha
        if self.predicts == "velocity":
            return (alpha * x - sigma * out) / (alpha**2 + sigma**2)
        alpha_rate, sigma_rate = self._rates(x, t)
        return (sigma_rate * x - sigma * self._forward(out)) / (alpha * sigma_rate - alpha_rate * sigma)

    def noise(self, x: Tensor, t: Tensor | float) -> Tensor:
        """The expected noise given x (N, ...) at time t."""
        if self.predicts == "noise":
            return self._raw(x, t)
        alpha, sigma = self._levels(x, t)
        if self.predicts in ("flow", "backward flow"):
            alpha_rate, sigma_rate = self._rates(x, t)
            out = self._forward(self._raw(x, t))
            return (alpha * out - alpha_rate * x) / (alpha * sigma_rate - alpha_rate * sigma)
        return (x - alpha * self.data(x, t)) / sigma

    def score(self, x: Tensor, t: Tensor | float) -> Tensor:
        """The gradient of the log-density of x_t at x (N, ...), nats per unit of x."""
        return self._raw(x, t) if self.predicts == "score" else -self.noise(x, t) / self._levels(x, t)[1]

    def velocity(self, x: Tensor, t: Tensor | float) -> Tensor:
        """alpha * noise - sigma * data, given x (N, ...) at time t."""
        if self.predicts == "velocity":
            return self._raw(x, t)
        alpha, sigma = self._levels(x, t)
        data = self.data(x, t)
        return alpha * (x - alpha * data) / sigma - sigma * data

    def flow(self, x: Tensor, t: Tensor | float) -> Tensor:
        """The expected dx_t/dt given x (N, ...) at time t: the velocity of the probability flow."""
        if self.predicts in ("flow", "backward flow"):
            return self._forward(self._raw(x, t))
        alpha, sigma = self._levels(x, t)
        alpha_rate, sigma_rate = self._rates(x, t)
        data = self.data(x, t)
        return alpha_rate * data + sigma_rate * (x - alpha * data) / sigma

    def _raw(self, x: Tensor, t: Tensor | float) -> Tensor:
        t = torch.as_tensor(t, dtype=torch.float64).expand(len(x))
        if callable(self.condition):
            condition = self.condition(t)
        else:
            condition = t if self.condition == "t" else self.process.sigma(t)
        try:
            out = self.model(x, condition.to(x))
        except RuntimeError as error:
            if "memory" in str(error) or not any(word in str(error) for word in SIZES):
                raise
            raise ShapeError(
                f"the model refused x of shape {tuple(x.shape)}, images of shape {tuple(x.shape[1:])}: give the "
                f"sampler the `shape` that the model was made for. It said: {str(error).splitlines()[0]}"
            ) from error
        if not isinstance(out, Tensor):
            raise ShapeError(
                f"the model returned a {type(out).__name__}, not a tensor: wrap it so that it returns the prediction "
                "alone, as in Denoiser(lambda x, t: model(x, t).sample, ...) or model(x, t)[0]"
            )
        if out.shape != x.shape:
            raise ShapeError(f"the model returned shape {tuple(out.shape)} for x of shape {tuple(x.shape)}")
        if x.requires_grad and torch.is_grad_enabled() and not out.requires_grad:
            raise MotesError(  # x itself is a part of most predictions, so a gradient would come out, and be wrong
                "the model keeps no gradients, and its gradient is asked for: it must be made of torch operations, "
                "outside of no_grad; else use what needs no gradient of the denoiser"
            )
        return out

    def _forward(self, flow: Tensor) -> Tensor:
        return -flow if self.predicts == "backward flow" else flow

    def _rates(self, x: Tensor, t: Tensor | float) -> tuple[Tensor, Tensor]:
        shape = (-1, *[1] * (x.ndim - 1))
        alpha, sigma = self.process.rates(torch.as_tensor(t, dtype=torch.float64))
        return alpha.to(x).reshape(shape), sigma.to(x).reshape(shape)

    def _levels(self, x: Tensor, t: Tensor | float) -> tuple[Tensor, Tensor]:
        shape = (-1, *[1] * (x.ndim - 1))
        t = torch.as_tensor(t, dtype=torch.float64)
        return self.process.alpha(t).to(x).reshape(shape), self.process.sigma(t).to(x).reshape(shape)
