"""Chains that corrupt and denoise: a Markov chain over images whose stationary law is the model's."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from motes.core.cite import cited
from motes.core.estimate.variance import StandardError
from motes.core.files.resuming import on_device
from motes.core.micro_batches import in_parts
from motes.core.particles import Particles
from motes.core.views.images import shown
from motes.diffusion.arguments import check_networks
from motes.diffusion.denoisers.denoiser import Denoiser
from motes.diffusion.evaluation.checks import not_finite, refuse
from motes.diffusion.processes.transition import Transitions, transitions
from motes.diffusion.sampler import StepSampler
from motes.errors import MotesError, ShapeError, check_at_least
from motes.rng import Rng


@dataclass(frozen=True, eq=False)
class CorruptDenoise(StepSampler):
    """Images that are noised to a level and denoised again, sweep by sweep.

    x_t ~ q(x_t | x_0), x_0 ~ p(x_0 | x_t): two steps of a Gibbs sampler for the joint law, so the stationary law is
    that of the data wherever the chain begins, if the second step is exact. Here it is the model's own reverse sampler
    from t, exact up to its step size. Small t moves little and needs few steps; for N(0, c^2) and alpha = 1 the images
    are an autoregression with coefficient c^2 / (c^2 + sigma^2). Equal weights; the chain says nothing about
    normalisers.

    Args:
        denoiser: the model.
        samples: (M, *shape) where the chains begin; particle i takes sample i modulo M.
        t: the time that images are corrupted to.
        steps: steps of the reverse sampler from t to t_min, or its falling times, which begin with t.
        sweeps: how often.
        integrator, noise: of the reverse sampler; noise = 1 for the chain to be the joint law's.
        micro_batch: rows a call of the model.

    Raises:
        NanLogPotential: the model's prediction is not finite; names particles.
        ShapeError, ValueError: samples, times or sweeps that do not fit.

    References:
        Bengio, Yao, Alain & Vincent (2013), Generalized Denoising Auto-Encoders as Generative Models, NeurIPS,
        section 3 (the chain; their walkback trains a model along it).

    Example:
        >>> import torch, motes
        >>> from motes.diffusion import VarianceExploding, gaussian
        >>> process = VarianceExploding(sigma_min=0.01, sigma_max=10)
        >>> denoiser = gaussian(process, torch.zeros(1), torch.eye(1))
        >>> chain = CorruptDenoise(denoiser, torch.full((1, 1), 5.0), float(process.time(0.0)), steps=20, sweeps=8)
        >>> bool(motes.sample(chain, 400, seed=0, progress=False).view.mean().abs() < 0.4)  # 5 is forgotten
        True
    """

    denoiser: Denoiser
    samples: Tensor
    t: float
    _: KW_ONLY
    steps: int | Tensor = 20
    sweeps: int = 20
    integrator: str = "ancestral"
    noise: float = 1.0
    micro_batch: int | None = None
    table: Transitions = field(init=False, repr=False)

    quantity: ClassVar[str] = "log normaliser"
    references = (cited("bengio2013", "the chain that corrupts and denoises"),)

    def __post_init__(self) -> None:
        check_networks(denoiser=self.denoiser)
        process = self.denoiser.process
        if self.samples.ndim < 2 or not len(self.samples):
            raise ShapeError(f"samples must be (M, *shape), not {tuple(self.samples.shape)}")
        check_at_least(1, sweeps=self.sweeps)
        if not process.t_min < self.t <= process.t_max:
            raise MotesError(f"t must lie in ({process.t_min}, {process.t_max}], not {self.t}")
        if isinstance(self.steps, int):
            ends = [float(process.log_snr(t)) for t in (self.t, process.t_min)]
            times = process.time(torch.linspace(ends[0], ends[1], self.steps + 1, dtype=torch.float64))
            times[0], times[-1] = self.t, process.t_min
        else:
            times = self.steps.double()
            if float(times[0]) != self.t:
                raise MotesError(f"the times must begin with t={self.t}, not {float(times[0])}")
        object.__setattr__(
            self, "table", transitions(process, times, integrator=self.integrator, noise=self.noise, still=True)
        )

    def init(self, rng: Rng, n: int) -> Particles:
        x = self.samples[torch.arange(n) % len(self.samples)]
        return Particles.start({"image": x}, torch.zeros(n, dtype=torch.float64), info=self._info())

    def step(self, rng: Rng, particles: Particles) -> Particles:
        x, process, table = particles.x["image"], self.denoiser.process, self.table

        def noise(purpose: str, inner: int = 0) -> Tensor:
            return rng.at(purpose, inner=inner).normal(tuple(x.shape), dtype=x.dtype).to(x.device)

        state = float(process.alpha(self.t)) * x + float(process.sigma(self.t)) * noise("corrupt")
        for k in range(table.steps):
            mean = float(table.keep[k]) * state + float(table.pull[k]) * self._data(state, float(table.times[k]))
            std = float(table.std[k])
            state = mean + std * noise("denoise", k) if std else mean
        image = self._data(state, float(table.times[-1]))
        refuse(not_finite(image), f"the denoised prediction is not finite in sweep {particles.t + 1}", "model")
        return particles.step({"image": image}, torch.zeros(particles.n, dtype=torch.float64), info=self._info())

    @property
    def last(self) -> int:
        return self.sweeps

    def shows(self) -> str:
        return shown(self.samples.shape[1:])

    def view(self, particles: Particles) -> Tensor:
        """The images (N, *shape)."""
        return particles.x["image"]

    def restore(self, particles: Particles) -> Particles:
        """The particles on the device of the samples."""
        return replace(particles, x=on_device(particles.x, ("image",), self.samples.device))

    def must_resample(self, particles: Particles) -> bool:
        return False

    def standard_error(self, particles: Particles) -> StandardError:
        return StandardError(math.nan, "", "a chain that corrupts and denoises has no normaliser")

    def _data(self, x: Tensor, t: float) -> Tensor:
        with torch.no_grad():
            return in_parts(lambda part: self.denoiser.data(part, t), self.micro_batch, x)

    def _info(self) -> dict[str, float]:
        return {"noise_level": float(self.denoiser.process.sigma(self.t))}
