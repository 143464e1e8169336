"""A network, whatever it predicts, as a prediction of the data.

x_t = alpha x_0 + sigma noise makes the four predictions in use one and the same up to a linear map:
noise = (x - alpha data) / sigma, score = (alpha data - x) / sigma^2, velocity = alpha noise - sigma data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from motes.core.errors import ShapeError, UnknownName
from motes.diffusion.process import Process

PREDICTIONS = ("noise", "data", "velocity", "score")
CONDITIONS = ("t", "sigma")


@dataclass(frozen=True)
class Denoiser:
    """A model of a process, wrapped so that it can be asked for the data, the noise, the score or the velocity.

    Args:
        model: maps (x (N, ...), condition (N,)) to a tensor like x.
        process: the process it was trained for.
        predicts: what it returns: "noise", "data", "score" (the gradient of the log-density of x_t) or "velocity"
            (alpha noise - sigma data).
        condition: what the model is told: the time "t", the noise level "sigma", or a function of the time.
        name: kept with runs, so that a resumed run can tell another model.

    Raises:
        UnknownName: another prediction or condition.
        ShapeError: on a call, when the model returns another shape than x has.

    References:
        Efron (2011), Tweedie's Formula and Selection Bias, JASA 106 (the score as a denoised prediction).
        Salimans & Ho (2022), Progressive Distillation for Fast Sampling of Diffusion Models, ICLR (velocity).

    Example:
        >>> import torch
        >>> from motes.diffusion import Denoiser, VariancePreserving
        >>> denoiser = Denoiser(lambda x, t: torch.zeros_like(x), VariancePreserving(), predicts="data")
        >>> float(denoiser.data(torch.ones(1, 2), 0.5).sum())
        0.0
    """

    model: Callable[[Tensor, Tensor], Tensor]
    process: Process
    predicts: Literal["noise", "data", "velocity", "score"] = "noise"
    condition: Literal["t", "sigma"] | Callable[[Tensor], Tensor] = "t"
    name: str = ""

    def __post_init__(self) -> None:
        if self.predicts not in PREDICTIONS:
            raise UnknownName("prediction", self.predicts, PREDICTIONS)
        if not callable(self.condition) and self.condition not in CONDITIONS:
            raise UnknownName("condition", self.condition, CONDITIONS)

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
        return (alpha * x - sigma * out) / (alpha**2 + sigma**2)

    def noise(self, x: Tensor, t: Tensor | float) -> Tensor:
        """The expected noise given x (N, ...) at time t."""
        if self.predicts == "noise":
            return self._raw(x, t)
        alpha, sigma = self._levels(x, t)
        return (x - alpha * self.data(x, t)) / sigma

    def score(self, x: Tensor, t: Tensor | float) -> Tensor:
        """The gradient of the log-density of x_t at x (N, ...), nats per unit of x."""
        return self._raw(x, t) if self.predicts == "score" else -self.noise(x, t) / self._levels(x, t)[1]

    def velocity(self, x: Tensor, t: Tensor | float) -> Tensor:
        """alpha * noise - sigma * data, given x (N, ...) at time t."""
        if self.predicts == "velocity":
            return self._raw(x, t)
        alpha, sigma = self._levels(x, t)
        return alpha * self.noise(x, t) - sigma * self.data(x, t)

    def settings(self) -> dict[str, Any]:
        """What identifies the denoiser, as JSON."""
        condition = self.condition if isinstance(self.condition, str) else "function"
        return {"name": self.name, "predicts": self.predicts, "condition": condition, **self.process.settings()}

    def _raw(self, x: Tensor, t: Tensor | float) -> Tensor:
        t = torch.as_tensor(t, dtype=torch.float64).expand(len(x))
        if callable(self.condition):
            condition = self.condition(t)
        else:
            condition = t if self.condition == "t" else self.process.sigma(t)
        out = self.model(x, condition.to(x))
        if out.shape != x.shape:
            raise ShapeError(f"the model returned shape {tuple(out.shape)} for x of shape {tuple(x.shape)}")
        return out

    def _levels(self, x: Tensor, t: Tensor | float) -> tuple[Tensor, Tensor]:
        shape = (-1, *[1] * (x.ndim - 1))
        t = torch.as_tensor(t, dtype=torch.float64)
        return self.process.alpha(t).to(x).reshape(shape), self.process.sigma(t).to(x).reshape(shape)
