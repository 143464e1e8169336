"""Walk-jump sampling: accumulate noisy measurements by log-concave steps, then jump to what they measured."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from motes.core.cite import Reference, cited
from motes.core.estimate.variance import StandardError
from motes.core.files.resuming import must_agree
from motes.core.model import FeynmanKac
from motes.core.particles import Particles
from motes.errors import MotesError, NanLogPotential, ShapeError, name_particles
from motes.kernels import Kernel, State, Tally, Target, Undefined, find_kernel, move
from motes.rng import Rng

Smoothed = Callable[[Tensor, float], Tensor]
"""Maps y (N, d) and sigma to (N,) nats: the log-density of x + sigma e at y, with e standard normal."""


@dataclass(frozen=True)
class WalkJump(FeynmanKac):
    """A chain of log-concave Markov chains: measurements y_k = x + s e_k one after the other, then the mean of x.

    With the law p_sigma of x + sigma e and the mean m_k of k measurements, the next one has given the past

        log p(y_k | past) = log p_(s / sqrt(k))(m_k) - |y_k - m_(k-1)|^2 (k - 1) / (2 k s^2) + constant,

    which is log-concave for any law of x if s is large enough, or once it is so for the measurements so far; only m_k
    need be remembered. Each is sampled by some sweeps of a Markov kernel. The jump, which the view of a run shows, is
    the mean of x given the measurements, m + s^2 / k grad log p_(s / sqrt(k))(m). One step of the model is one
    measurement; there are no weights.

    Bias: the law of the jump is not that of x but narrower, and nears it as s^2 / k goes to 0 (for x ~ N(0, v) it is
    N(0, v^2 / (v + s^2 / k))). Besides, each measurement is only as good as its kernel has forgotten its start. It
    needs the smoothed density, with gradients, at the noise levels s, s / sqrt(2), ...: so it is for mixtures and
    other laws where that is known or learnt, not for any density.

    References:
        Saremi, Park & Bach (2024), Chain of log-concave Markov chains, ICLR, arXiv:2305.19473.
        Saremi & Hyvarinen (2019), Neural empirical Bayes, JMLR 20 (walk and jump).

    Args:
        smoothed: maps y (N, dim) and sigma to the log-density of x + sigma e, (N,) nats, with torch operations.
        dim: the length of x.
        sigma: s, the standard deviation of a measurement's noise.
        measurements: how many.
        kernel: what samples them, or its name.
        sweeps: of the kernel, for each measurement.
        spread: the standard deviation of the points from which the first measurement's chains start; None is s.

    Raises:
        ValueError: a number that is not positive.
        MotesError: no gradients flow through `smoothed`, or a kernel on whole numbers.

    >>> import torch, motes
    >>> from motes.density.walk_jump import WalkJump
    >>> def smoothed(y, sigma):  # of two points, at -3 and 3
    ...     return torch.logsumexp(-0.5 * ((y - torch.tensor([-3.0, 3.0])) / sigma) ** 2, 1)
    >>> run = motes.sample(WalkJump(smoothed, 1, sigma=3.0, measurements=40), 100, seed=0, progress=False)
    >>> bool(((run.view.abs() - 3).abs() < 0.1).double().mean() > 0.9)
    True
    """

    smoothed: Smoothed
    dim: int
    _: KW_ONLY
    sigma: float
    measurements: int
    kernel: Kernel | str = "hmc"
    sweeps: int = 10
    spread: float | None = None

    quantity: ClassVar[str] = ""

    def __post_init__(self) -> None:
        numbers = (self.dim, self.sigma, self.measurements, self.sweeps, 1.0 if self.spread is None else self.spread)
        if not min(numbers) > 0:
            raise MotesError("dim, sigma, measurements, sweeps and spread must be positive")
        kernel = find_kernel(self.kernel)
        if kernel.discrete:
            raise MotesError(f"measurements are real vectors, and {type(kernel).__name__} moves whole numbers")
        object.__setattr__(self, "kernel", kernel)
        value = self.smoothed(torch.zeros(1, self.dim, dtype=torch.float64, requires_grad=True), self.sigma)
        if not value.requires_grad:
            raise MotesError("no gradients flow through smoothed: write it with torch operations")

    @property
    def _kernel(self) -> Kernel:
        assert isinstance(self.kernel, Kernel)
        return self.kernel

    @property
    def references(self) -> tuple[Reference, ...]:  # type: ignore[override]
        return (*REFERENCES, *self._kernel.references)

    def init(self, rng: Rng, n: int) -> Particles:
        start = (self.spread or self.sigma) * rng.at("start").normal((n, self.dim))
        parameters = self._kernel.start(self.dim, start.dtype)
        x, parameters, info = self._measure(rng, torch.zeros_like(start), start, 1, parameters)
        flat = torch.zeros(n, dtype=torch.float64)
        return Particles.start(x, flat, shared={"kernel": parameters}, info=info)

    def step(self, rng: Rng, particles: Particles) -> Particles:
        mean, k = particles.x["mean"], particles.t + 2
        start = self.view(particles) + self.sigma * rng.at("start").normal(tuple(mean.shape))
        x, parameters, info = self._measure(rng, mean, start, k, particles.shared["kernel"])
        flat = torch.zeros_like(particles.log_weight)
        return particles.step(x, flat, shared={"kernel": parameters}, info=info)

    def _measure(
        self, rng: Rng, mean: Tensor, start: Tensor, k: int, parameters: dict[str, Any]
    ) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Any]]:
        """The particles with measurement number k, whose chains begin at `start`, and what the kernel has learnt."""
        target = Measurement(self.smoothed, mean, k, self.sigma)
        state = target.start(start)
        weight = torch.full((len(mean),), 1 / len(mean), dtype=torch.float64)
        parameters = self._kernel.fit(parameters, target, state, weight)
        moved = move(self._kernel, rng, target, state, weight, parameters, sweeps=self.sweeps)
        return self._known(torch.lerp(mean, moved.state["position"], 1 / k), k), moved.parameters, moved.info

    def _known(self, mean: Tensor, k: int) -> dict[str, Tensor]:
        value, slope = _gradient(self.smoothed, mean, self.sigma / math.sqrt(k))
        _finite(value, slope, mean)
        return {"mean": mean, "log_density": value, "slope": slope}

    def done(self, particles: Particles) -> bool:
        return particles.t + 1 >= self.measurements

    def view(self, particles: Particles) -> Tensor:
        """(N, dim) the mean of x given the measurements so far."""
        x = particles.x
        return x["mean"] + self.sigma**2 / (particles.t + 1) * x["slope"]

    def restore(self, particles: Particles) -> Particles:
        """The particles, if the smoothed density is still what it was.

        Raises:
            FileError: it has changed since.
        """
        now = self._known(particles.x["mean"], particles.t + 1)
        for name, value in now.items():
            must_agree(name, value, particles.x[name], "the smoothed density that began it", rtol=1e-4, atol=1e-4)
        return particles

    def must_resample(self, particles: Particles) -> bool:
        return False

    def standard_error(self, particles: Particles) -> StandardError:
        return StandardError(math.nan, "", "walk-jump sampling has no weights and so no evidence")

    def progress(self, particles: Particles) -> float:
        return (particles.t + 1) / self.measurements


@dataclass(frozen=True)
class Measurement(Target):
    """The law of measurement number k, given the mean (N, d) of those before."""

    smoothed: Smoothed
    mean: Tensor
    k: int
    sigma: float
    counted: Tally = field(default_factory=Tally, compare=False, repr=False)

    def tally(self) -> Tally:
        return self.counted

    def start(self, position: Tensor) -> State:
        """The state where chains begin, at `position` (N, d).

        Raises:
            NanLogPotential: the smoothed density or its gradient is not finite.
        """
        state = self._state(position)
        _finite(state["value"], state["slope"], position)
        return state

    def evaluate(self, position: Tensor, gradient: bool) -> State:
        state = self._state(position)
        undefined = ~(torch.isfinite(state["value"]) & torch.isfinite(state["slope"]).all(1))
        if undefined.any():
            first = position[undefined][0].tolist()
            self.counted.add(Undefined(undefined, lambda: f"smoothed or its gradient is not finite at {first}"))
            state["value"] = torch.where(undefined, -math.inf, state["value"])
            state["slope"] = torch.where(undefined[:, None], 0.0, state["slope"])
        return state

    def _state(self, position: Tensor) -> State:
        away, share = position - self.mean, (self.k - 1) / (self.k * self.sigma**2)
        value, slope = _gradient(self.smoothed, self.mean + away / self.k, self.sigma / math.sqrt(self.k))
        value = value - 0.5 * share * away.square().sum(1)
        return {"position": position, "value": value, "slope": slope / self.k - share * away}

    def log_density(self, state: State) -> Tensor:
        return state["value"]

    def gradient(self, state: State) -> Tensor:
        return state["slope"]

    def part(self, index: Tensor) -> Measurement:
        return replace(self, mean=self.mean[index])


def _gradient(smoothed: Smoothed, y: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    """The smoothed log-density (N,) float64 and its gradient (N, d).

    Raises:
        ShapeError: its shape is not (N,).
    """
    y = y.detach().requires_grad_()
    value = smoothed(y, sigma)
    if tuple(value.shape) != (len(y),):
        raise ShapeError(f"smoothed must return shape ({len(y)},) for {len(y)} particles, not {tuple(value.shape)}")
    (slope,) = torch.autograd.grad(value.sum(), y)
    return value.detach().to(torch.float64), slope


def _finite(value: Tensor, slope: Tensor, y: Tensor) -> None:
    """Log-densities (N,) and gradients (N, d) at points y (N, d) are numbers.

    Raises:
        NanLogPotential: one is not finite.
    """
    bad = ~(torch.isfinite(value) & torch.isfinite(slope).all(1))
    if bad.any():
        index = bad.nonzero().flatten().tolist()
        raise NanLogPotential(
            f"smoothed or its gradient is not finite for {name_particles(index)}, the first of them at "
            f"{y[index[0]].tolist()}; a smoothed density is positive everywhere"
        )


REFERENCES = (cited("saremi2024", "the accumulated measurements"), cited("saremi2019", "walk and jump"))
