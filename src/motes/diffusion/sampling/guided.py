"""Guidance as it is: denoising steps with their means moved, and no weights to make up for it.

Fast, and biased: the images follow whatever law the guidance makes of the model's. `ReverseDiffusion` runs the same
guidance with weights that put it right.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor

from motes.core.cite import cited
from motes.core.estimate.variance import StandardError
from motes.core.particles import Particles
from motes.core.remark import ALL, Remark
from motes.diffusion.arguments import check_final, check_images
from motes.diffusion.denoisers.denoiser import Denoiser
from motes.diffusion.evaluation.evaluator import Evaluator, OneModel
from motes.diffusion.evaluation.intermediate_reward import Schedule, strengths
from motes.diffusion.flows.coupling import coupling_remarks, tested
from motes.diffusion.guidance import Twist
from motes.diffusion.processes.initial_law import InitialLaw, initial_states
from motes.diffusion.processes.transition import Transitions, transitions
from motes.diffusion.sampler import ImageSampler
from motes.diffusion.sampling.reverse import SAMPLER, Guides, as_guidance
from motes.diffusion.short import alone
from motes.errors import MotesError, check_at_least
from motes.rng import Rng

TRAVEL = cited("lugmayr2022", "the repeated steps")


@dataclass(frozen=True, eq=False)
class Guided(ImageSampler):
    """Samples of a diffusion model that guidance pulls where it may: equal weights, and a law without a formula.

    The gradient g of a log-value changes the score, so the mean of a step moves by pull * sigma^2 / alpha * g: with
    noise = 0 too. What the images are worth as samples of the tilted law is not known; `ReverseDiffusion` with the same
    guidance knows.

    Args:
        denoiser: the model.
        steps: the number of steps, or the falling times (K + 1,).
        guidance: a `Guidance`, "reward", a number, or a function (x, t) -> like x; None samples the model itself.
        reward: what guidance by the reward follows, (N, *shape) to (N,) nats; recorded for every image.
        shape: the shape of one image.
        repeats: how often each step is done: in between, the particle is noised again to where the step began.
        integrator, noise: as for `ReverseDiffusion`; noise = 0 is the deterministic sampler.
        schedule, twist, final, start, micro_batch, dtype, device: as for `ReverseDiffusion`.

    Raises:
        NanLogPotential, ShapeError, UnknownName, ValueError: as for `ReverseDiffusion`.

    References:
        Song et al. (2021), ICLR; Lugmayr et al. (2022), RePaint, CVPR, Algorithm 1 (repeats); Ye, Lin, Han, Xu, Liu,
        Liang, Ma, Zou & Ermon (2024), TFG: Unified Training-Free Guidance for Diffusion Models, NeurIPS, Algorithm 1.

    Example:
        >>> import torch, motes
        >>> from motes.diffusion import Guided, VariancePreserving, gaussian
        >>> denoiser = gaussian(VariancePreserving(), torch.zeros(1), torch.eye(1))
        >>> model = Guided(denoiser, 20, guidance="reward", reward=lambda x: x[:, 0], shape=(1,))
        >>> run = motes.sample(model, 1000, seed=1, progress=False)
        >>> 0.5 < float(run.mean().value) < 1.5
        True
    """

    denoiser: Denoiser
    steps: int | Tensor | Transitions
    _: KW_ONLY
    guidance: Guides | None = None
    reward: Callable[[Tensor], Tensor] | None = None
    shape: tuple[int, ...]
    repeats: int = 1
    integrator: str = "ancestral"
    noise: float = 1.0
    schedule: Schedule = "constant"
    twist: Twist | None = None
    final: Literal["denoised", "state"] = "denoised"
    start: InitialLaw | None = None
    micro_batch: int | None = None
    dtype: torch.dtype = torch.float32
    device: str = "cpu"
    table: Transitions = field(init=False, repr=False)
    evaluator: Evaluator = field(init=False, repr=False)

    quantity: ClassVar[str] = "log normaliser"

    def __post_init__(self) -> None:
        check_at_least(1, repeats=self.repeats)
        check_final(self.final)
        check_images(self.denoiser, self.reward, self.shape, self.dtype, self.device)
        guidance = as_guidance(self.guidance)
        if self.reward is None and self.twist is None and guidance is not None and guidance.value:
            raise MotesError("guidance by the reward needs a reward or a twist")
        process = self.denoiser.process
        table = transitions(process, self.steps, integrator=self.integrator, noise=self.noise, still=True)
        schedule = self.schedule if guidance is not None and guidance.value else "end"  # none else is asked on the way
        strength = strengths(schedule, process, table.times)
        models = OneModel(self.denoiser, table, self.final, weighed=False)
        evaluator = Evaluator(models, self.reward, strength, self.twist, guidance, self.micro_batch)
        object.__setattr__(self, "table", table)
        object.__setattr__(self, "evaluator", evaluator)
        object.__setattr__(self, "references", (SAMPLER, TRAVEL) if self.repeats > 1 else (SAMPLER,))

    def init(self, rng: Rng, n: int) -> Particles:
        process = self.denoiser.process
        state = initial_states(rng, process, self.start, (n, *self.shape), self.dtype, self.device)
        x = self.evaluator(rng, state, 0)
        zero, shared = torch.zeros(n, dtype=torch.float64), {"probe": self.evaluator.probe(x["state"])}
        if bool((self.table.std > 0).any()) or self.repeats > 1:
            shared |= tested([self.denoiser], self.shape, self.dtype, self.device, self.micro_batch)
        return Particles.start(x, zero, shared=shared, info=self._info(x, 0))

    def step(self, rng: Rng, particles: Particles) -> Particles:
        k, x = particles.t, particles.x
        state = self._move(rng.at("noise", inner=0), x, k)
        for i in range(self.repeats - 1):
            state = self._back(rng.at("again", inner=i), state, k)
            x = self.evaluator(rng.at("repeat", inner=i), state, k)
            state = self._move(rng.at("noise", inner=i + 1), x, k)
        x = self.evaluator(rng, state, k + 1)
        return particles.step(x, torch.zeros(particles.n, dtype=torch.float64), info=self._info(x, k + 1))

    @property
    def last(self) -> int:
        return self.table.steps

    def restore(self, particles: Particles) -> Particles:
        """The particles, if the model still says of them what their file says.

        Raises:
            FileError: the denoiser, the reward, the guidance or the twist has changed since.
        """
        return self.evaluator.restored(particles, self.device, particles.shared["probe"])

    def must_resample(self, particles: Particles) -> bool:
        return False

    def standard_error(self, particles: Particles) -> StandardError:
        return StandardError(math.nan, "", "guidance alone has no weights; motes.ReverseDiffusion corrects it")

    def remarks(self, particles: Particles) -> list[Remark]:
        said = coupling_remarks(particles.shared)
        if self.evaluator.guidance is not None or self.repeats > 1:
            text = (
                "the guidance is not corrected: the images are biased samples and have no normaliser; "
                "motes.ReverseDiffusion with the same guidance weighs them for the tilted law"
            )
            said.append(Remark(text, ALL))
        elif self.done(particles):
            said += alone(self.table.steps, False)
        return said

    def _move(self, rng: Rng, x: dict[str, Tensor], k: int) -> Tensor:
        mean, std = self.table.mean(k, x["state"], x["denoised"]), float(self.table.std[k])
        if "shift" in x:
            mean.add_(x["shift"])
        if std == 0:
            return mean
        return mean.add_(rng.normal(tuple(mean.shape), dtype=self.dtype).to(self.device).mul_(std))

    def _back(self, rng: Rng, state: Tensor, k: int) -> Tensor:
        """From the end of step k + 1 to its beginning, by the forward process."""
        process, t, s = self.denoiser.process, self.table.times[k], self.table.times[k + 1]
        keep = process.alpha(t) / process.alpha(s)
        std = torch.sqrt((process.sigma(t) ** 2 - (keep * process.sigma(s)) ** 2).clamp(min=0))
        return float(keep) * state + float(std) * rng.normal(tuple(state.shape), dtype=self.dtype).to(self.device)

    def _info(self, x: dict[str, Tensor], k: int) -> dict[str, float]:
        info = {"noise_level": float(self.denoiser.process.sigma(self.table.times[k]))}
        return {**info, "reward": float(x["reward"].mean())} if self.evaluator.asks(k) else info
