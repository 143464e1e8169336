"""Samples of a diffusion or flow model by its probability flow: integrators of higher order, without weights."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor

from motes.core.cite import cited
from motes.core.estimate.variance import StandardError
from motes.core.files.resuming import must_agree
from motes.core.micro_batches import in_parts
from motes.core.particles import Particles
from motes.core.remark import Remark
from motes.diffusion.arguments import check_final, check_networks
from motes.diffusion.denoisers.denoiser import Denoiser
from motes.diffusion.evaluation.checks import not_finite, refuse
from motes.diffusion.flows.coupling import coupling_remarks, tested
from motes.diffusion.flows.solvers import FLOWS, Leg
from motes.diffusion.processes.initial_law import initial_states
from motes.diffusion.processes.transition import falling
from motes.diffusion.sampler import ImageSampler
from motes.diffusion.short import alone
from motes.errors import MotesError, check_name
from motes.rng import Rng

REFERENCES = (cited("song2021score", "the probability flow"), cited("karras2022", "the integration of the flow"))


@dataclass(frozen=True, eq=False)
class ProbabilityFlow(ImageSampler):
    """Samples of a diffusion or flow model by its probability flow, in few evaluations and with equal weights.

    The flow dx/dt = alpha' data(x, t) + sigma' noise(x, t) carries noise to data deterministically, with the marginals
    of the process. `churn` makes it stochastic: before each step noise is added anew, its variance (in x / alpha) churn
    times what the step will remove, and the flow is followed from there; the marginals stay, and errors made earlier
    fade. The samples have the model's law but for the error of the discretisation; a step has no density, so nothing
    can be weighed: for rewards see `ReverseDiffusion`.

    Args:
        denoiser: the model, with its process.
        steps: the number of steps K over the process's grid, or the falling times (K + 1,).
        integrator: "heun", "euler", "ddim" or "dpm++2m".
        churn: noise added relative to noise removed, at least 0; 1 is as much as the reverse equation has. It is never
            raised above that of the first time. Not for "dpm++2m", which extrapolates along its path.
        shape: the shape of one image.
        final: the image is the "denoised" prediction at the last time, or the last "state" itself.
        micro_batch: images a call of the model.
        dtype, device: of the images.

    Raises:
        NanLogPotential: the model returned what is not finite; names particles and step.
        ShapeError, UnknownName, ValueError: what was given does not fit.

    References:
        Song et al. (2021), Score-Based Generative Modeling through Stochastic Differential Equations, ICLR, section
        4.3; Karras, Aittala, Aila & Laine (2022), NeurIPS, Algorithms 1 and 2 (there churn is fixed per step).

    Example:
        >>> import torch, motes
        >>> from motes.diffusion import VariancePreserving, gaussian
        >>> from motes.diffusion.flows.flow import ProbabilityFlow
        >>> denoiser = gaussian(VariancePreserving(), 3 * torch.ones(1), torch.eye(1) / 4)
        >>> run = motes.sample(ProbabilityFlow(denoiser, 20, shape=(1,)), 1000, seed=1, progress=False)
        >>> 2.9 < float(run.mean().value) < 3.1
        True
    """

    denoiser: Denoiser
    steps: int | Tensor
    _: KW_ONLY
    integrator: str = "heun"
    churn: float = 0.0
    shape: tuple[int, ...]
    final: Literal["denoised", "state"] = "denoised"
    micro_batch: int | None = None
    dtype: torch.dtype = torch.float32
    device: str = "cpu"
    times: Tensor = field(init=False, repr=False)
    raised: Tensor = field(init=False, repr=False)

    quantity: ClassVar[str] = "log normaliser"

    def __post_init__(self) -> None:
        check_networks(denoiser=self.denoiser)
        check_name("integrator of a flow", self.integrator, FLOWS)
        check_final(self.final)
        if not 0 <= self.churn < math.inf:
            raise MotesError(f"churn must be at least 0 and finite, not {self.churn}")
        if self.churn and self.integrator == "dpm++2m":
            raise MotesError('"dpm++2m" extrapolates along its path, which churn would tear: use "heun" or "ddim"')
        process = self.denoiser.process
        times = process.times(self.steps) if isinstance(self.steps, int) else falling(self.steps, process)
        nu = torch.exp(-process.log_snr(times))
        if not bool(torch.isfinite(nu).all()):
            raise MotesError("nothing is left of the data at the first time: start where alpha is positive")
        high = torch.sqrt(nu[:-1] ** 2 + self.churn * (nu[:-1] ** 2 - nu[1:] ** 2)).clamp(max=float(nu[0]))
        higher = high > nu[:-1] * (1 + 1e-12)
        raised = torch.where(higher, process.time(-torch.log(high)), times[:-1])
        object.__setattr__(self, "times", times)
        object.__setattr__(self, "raised", raised)
        more = (cited("lu2022dpmpp", "the multistep integrator"),) if self.integrator == "dpm++2m" else ()
        object.__setattr__(self, "references", REFERENCES + more)

    def init(self, rng: Rng, n: int) -> Particles:
        state = initial_states(rng, self.denoiser.process, None, (n, *self.shape), self.dtype, self.device)
        x = {"state": state, "denoised": self._ask(state, float(self.times[0]), 0)}
        if self.integrator == "dpm++2m":
            x["previous"] = x["denoised"]
        zero = torch.zeros(n, dtype=torch.float64)
        shared = {"probe": self._probe()}
        if self.churn:
            shared |= tested([self.denoiser], self.shape, self.dtype, self.device, self.micro_batch)
        return Particles.start(x, zero, shared=shared, info=self._info(0))

    def step(self, rng: Rng, particles: Particles) -> Particles:
        k, old = particles.t, particles.x
        t, raised, s = float(self.times[k]), float(self.raised[k]), float(self.times[k + 1])
        state, denoised = old["state"], old["denoised"]
        if raised > t:
            state = self._noised(rng, state, t, raised)
            denoised = self._ask(state, raised, k)
        previous, before = (old["previous"], float(self.times[k - 1])) if k and "previous" in old else (None, t)
        leg = Leg(
            self.denoiser.process, state, raised, s, denoised, previous, before, lambda x, t: self._ask(x, t, k + 1)
        )
        x = {"state": FLOWS[self.integrator](leg)}
        x["denoised"] = self._arrived(x["state"], denoised, k + 1)
        if "previous" in old:
            x["previous"] = denoised
        return particles.step(x, torch.zeros(particles.n, dtype=torch.float64), info=self._info(k + 1))

    @property
    def last(self) -> int:
        return len(self.raised)

    def restore(self, particles: Particles) -> Particles:
        """The particles, if this model still says what it said when they were saved.

        Raises:
            FileError: the denoiser has changed since.
        """
        then = particles.shared["probe"]
        must_agree("answer of the denoiser", self._probe(), then, "the one that began it", rows=False)
        return particles

    def must_resample(self, particles: Particles) -> bool:
        return False

    def standard_error(self, particles: Particles) -> StandardError:
        return StandardError(math.nan, "", "the probability flow weighs nothing; motes.ReverseDiffusion does")

    def remarks(self, particles: Particles) -> list[Remark]:
        said = coupling_remarks(particles.shared)
        return said + (alone(self.last, self.integrator == "heun") if self.done(particles) else [])

    def _noised(self, rng: Rng, state: Tensor, t: float, raised: float) -> Tensor:
        """From time t to the later time `raised`, by the forward process."""
        process = self.denoiser.process
        keep = process.alpha(raised) / process.alpha(t)
        std = torch.sqrt((process.sigma(raised) ** 2 - (keep * process.sigma(t)) ** 2).clamp(min=0))
        return float(keep) * state + float(std) * rng.at("noise").normal(tuple(state.shape), dtype=self.dtype).to(state)

    def _arrived(self, state: Tensor, denoised: Tensor, k: int) -> Tensor:
        """What is shown of the states after k steps: asked of the model only where it is of use."""
        last = k == self.last
        if last and (self.final == "state" or float(self.denoiser.process.sigma(self.times[k])) == 0):
            return state
        if not last and float(self.raised[k]) > float(self.times[k]):
            return denoised  # the next step asks elsewhere
        return self._ask(state, float(self.times[k]), k)

    def _ask(self, state: Tensor, t: float, k: int) -> Tensor:
        with torch.no_grad():
            denoised = in_parts(lambda x: self.denoiser.data(x, t), self.micro_batch, state)
        where = f"at step {k} of {self.last} (t={t:.4g})"
        refuse(not_finite(denoised), f"the denoised prediction is not finite {where}", "model")
        return denoised

    def _probe(self) -> Tensor:
        """What the model says of two fixed images, by which a file can tell it from others."""
        image = Rng(0).at("probe").normal((2, *self.shape), dtype=self.dtype).to(self.device)
        with torch.no_grad():
            return self.denoiser.data(image, float(self.times[0])).cpu()

    def _info(self, k: int) -> dict[str, float]:
        return {"noise_level": float(self.denoiser.process.sigma(self.times[k]))}
