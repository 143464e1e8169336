"""Reverse diffusion as a Feynman-Kac model: noise, denoising steps, and a reward that the samples are tilted by.

The unguided sampler is a Markov chain of K normal transitions (diffusion/processes/transition.py) and ends in an image
x_0. The particles target its law tilted by exp(reward(x_0)), and the normaliser is E[exp(reward(x_0))] under that
chain: exactly for the chain as it is discretised, at any number of steps and of particles, whatever the guidance. How
far that is from the model without discretisation the run estimates by coarse paths (diffusion/sampling/multilevel.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from motes.core.cite import Reference, cited
from motes.core.estimate.coarse_level import CoarseLevel
from motes.core.estimate.systematic import Systematic
from motes.core.estimate.unearned import unearned
from motes.core.estimate.variance import StandardError
from motes.core.particles import Particles
from motes.diffusion.arguments import check_final, check_images
from motes.diffusion.collapse import collapse_remarks
from motes.diffusion.data_scale import data_scale, scale_remarks, unknown, when
from motes.diffusion.denoisers.denoiser import Denoiser
from motes.diffusion.evaluation.evaluator import Evaluator, OneModel
from motes.diffusion.evaluation.intermediate_reward import POTENTIALS, Schedule, strengths
from motes.diffusion.guidance import FunctionGuidance, Guidance, Twist, ValueGradient, guidances
from motes.diffusion.processes.initial_law import InitialLaw, initial_states
from motes.diffusion.processes.process import Process
from motes.diffusion.processes.transition import Transitions, transitions
from motes.diffusion.sampler import ImageSampler
from motes.diffusion.sampling.chain import WeightedChain
from motes.diffusion.sampling.multilevel import LEVELS
from motes.errors import MotesError, UnknownName, WrongType, check_name
from motes.rng import Rng

SAMPLER = cited("song2021score", "the reverse diffusion")
STEERING = cited("singhal2025", "the intermediate rewards")

Guides = Literal["reward"] | float | Guidance | Callable[[Tensor, float], Tensor]


@dataclass(frozen=True, eq=False)
class ReverseDiffusion(ImageSampler):
    """Samples of a diffusion model, tilted by exp(reward) and weighted for it.

    Args:
        denoiser: the model, of the noising process that is walked back.
        steps: the number of steps K over the process's grid, or the falling times (K + 1,).
        reward: maps images (N, *shape) to (N,) nats; on the way it is asked about the denoised prediction. It must be
            finite there; at the end -inf excludes an image.
        guidance: what moves the mean of each transition: None; "reward", its variance times the gradient of the
            predicted reward (or of the twist) through the denoiser, a number multiplies it; a function (x, t) -> like
            x instead of that gradient; or a `Guidance`, or the name of one. The weights make up for it exactly, so it
            changes the error and not the target.
        shape: the shape of one image.
        integrator: "multistep", of second order; or "ancestral" (or "ddim"), "exponential" or "euler-maruyama", of
            first order: see `transition.py`.
        noise: a step's noise relative to the integrator's own; must be positive.
        schedule: how much of the predicted reward counts on the way, see `intermediate_reward.strengths`.
        potential: "difference", "max" or "sum", see `intermediate_reward.POTENTIALS`.
        twist: a better guess than the predicted reward of what a path is worth before its end, see `guidance.Twist`; it
            counts in full whatever the schedule.
        final: the image is the "denoised" prediction at the last time, or the last "state" itself.
        start: the law of the states at the first time, see `Start`; None is the process's own normal law.
        coarse: one particle in `coarse` also runs a path with steps of thrice the length, by which the run knows the
            error that its steps make (see `multilevel.py`); costs 1 / (3 coarse) of the evaluations. Below 18 steps
            that error cannot be known and nothing has an error bar. With 0 there are no such paths: the normaliser is
            then named for the chain of K steps, and its error bar is for that.
        micro_batch: images a call of the model; fixing it makes results independent of how the population is cut.
        dtype, device: of the images; weights are float64.

    Raises:
        NanLogPotential: the model or the reward returned NaN, +inf, or -inf on the way; names particles and step.
        ShapeError, UnknownName, ValueError: what was given does not fit; a step without noise is refused.

    References:
        Song et al. (2021), ICLR; Singhal et al. (2025), arXiv 2501.06848 (potentials); Wu et al. (2023), NeurIPS,
        section 3 (weights of guided transitions).

    Example:
        >>> import torch, motes
        >>> from motes.diffusion import VariancePreserving, gaussian
        >>> process = VariancePreserving()
        >>> denoiser = gaussian(process, torch.zeros(2), torch.eye(2))
        >>> model = motes.ReverseDiffusion(denoiser, 20, reward=lambda x: x[:, 0], shape=(2,))
        >>> run = motes.sample(model, 1000, seed=1, progress=False)  # log E[exp(x)] = 1/2 under N(0, 1)
        >>> abs(run.log_evidence - 0.5) < 0.2
        True
    """

    denoiser: Denoiser
    steps: int | Tensor | Transitions
    _: KW_ONLY
    reward: Callable[[Tensor], Tensor] | None = None
    guidance: Guides | None = None
    shape: tuple[int, ...]
    integrator: str = "multistep"
    noise: float = 1.0
    schedule: Schedule = "signal"
    potential: str = "difference"
    twist: Twist | None = None
    final: Literal["denoised", "state"] = "denoised"
    start: InitialLaw | None = None
    coarse: int = 4
    micro_batch: int | None = None
    dtype: torch.dtype = torch.float32
    device: str = "cpu"
    process: Process = field(init=False, repr=False)
    table: Transitions = field(init=False, repr=False)
    strength: Tensor = field(init=False, repr=False)
    evaluator: Evaluator = field(init=False, repr=False)
    chain: WeightedChain = field(init=False, repr=False)

    quantity: ClassVar[str] = "log normaliser"

    def __post_init__(self) -> None:
        check_images(self.denoiser, self.reward, self.shape, self.dtype, self.device)
        object.__setattr__(self, "process", self.denoiser.process)
        if self.twist is not None and not isinstance(self.twist, Twist):
            raise WrongType(f"twist must be a guidance.Twist, such as inverse.Observation, not {self.twist!r}")
        if self.start is not None and not isinstance(self.start, InitialLaw):
            raise WrongType(f"start must be a law to start from, such as schedule.Teleport, not {self.start!r}")
        check_name("potential", self.potential, POTENTIALS)
        check_final(self.final)
        guidance = as_guidance(self.guidance)
        if self.reward is None and guidance is not None and guidance.value:
            raise MotesError("guidance by the reward needs a reward; give one, or a function (x, t) as guidance")
        if self.reward is None and self.twist is not None:
            raise MotesError("a twist guesses what the reward will be: give the reward too")
        table = transitions(self.process, self.steps, integrator=self.integrator, noise=self.noise, history=True)
        strength = strengths(self.schedule, self.process, table.times)
        models = OneModel(self.denoiser, table, self.final)
        evaluator = Evaluator(models, self.reward, strength, self.twist, guidance, self.micro_batch)
        object.__setattr__(self, "table", table)
        object.__setattr__(self, "strength", strength)
        object.__setattr__(self, "evaluator", evaluator)
        knobs = {"coarse": self.coarse, "integrator": self.integrator, "noise": self.noise}
        object.__setattr__(self, "chain", WeightedChain.of(models, evaluator, steps=self.steps, **knobs))
        object.__setattr__(self, "quantity", self.chain.quantity)
        object.__setattr__(self, "references", tuple(self._references()))

    def init(self, rng: Rng, n: int) -> Particles:
        zero = torch.zeros(n, dtype=torch.float64)
        state = initial_states(rng, self.process, self.start, (n, *self.shape), self.dtype, self.device)
        x = self.evaluator(rng, state, 0)
        history = zero + POTENTIALS[self.potential][1]
        x["total"], x["history"] = self._total(x, 0, zero, history)
        shared = {"probe": self.evaluator.probe(x["state"])}
        if self.twist is not None and self.twist.data_scale is not None:
            shared |= unknown()
        return self.chain.start(rng, x, shared=shared, info=self._info(x, 0))

    def step(self, rng: Rng, particles: Particles) -> Particles:
        k, old = particles.t, particles.x
        state, log_ratio = self.table.guided_step(rng, k, old)
        x = self.evaluator(rng, state, k + 1)
        x["total"], x["history"] = self._total(x, k + 1, old["total"], old["history"])
        shared = self._seen(particles.shared, x, k + 1)
        return self.chain.step(rng, particles, x, log_ratio, shared=shared, info=self._info(x, k + 1))

    @property
    def last(self) -> int:
        return self.table.steps

    def _seen(self, shared: dict[str, Any], x: dict[str, Tensor], k: int) -> dict[str, Any]:
        """What is shared after step k: with the spread of the data, once, where guidance takes one for granted."""
        times = self.table.times
        scale = None if self.twist is None else self.twist.data_scale
        if scale is None or k != when(self.process, times, scale):
            return shared
        found = data_scale(self.process, float(times[k]), x["state"], x["denoised"])
        return {**shared, "data_scale": torch.tensor(found, dtype=torch.float64)}

    def restore(self, particles: Particles) -> Particles:
        """The particles, if this model still says of them what their file says.

        Raises:
            FileError: the denoiser or the reward has changed since.
        """
        return self.evaluator.restored(particles, self.device, particles.shared["probe"])

    def order(self, particles: Particles) -> Tensor:
        """(N,) the reward, by which sorted resampling orders the particles (zeros where it was not asked)."""
        return particles.x["reward"] if self.reward is not None else super().order(particles)

    def remarks(self, particles: Particles) -> list[str]:
        if not self.done(particles):
            return []
        said: list[str] = []
        if self.twist is not None:
            said += self.twist.remarks(particles.x["reward"], particles.log_weight)
            said += collapse_remarks(particles)
            said += scale_remarks(self.twist.data_scale, float(particles.shared.get("data_scale", math.nan)))
        return self.chain.remarks(particles, said)

    def coarse_level(self, particles: Particles) -> CoarseLevel | None:
        return self.chain.coarse_level(particles)

    def standard_error(self, particles: Particles) -> StandardError | None:
        earned = particles.x["reward"] if self.reward is not None and self.done(particles) else None
        return unearned(particles, earned)

    def systematic(self, particles: Particles) -> Systematic | None:
        return None if self.reward is None else self.chain.systematic(particles)

    def _references(self) -> list[Reference]:
        return (
            [SAMPLER]
            + [LEVELS] * (self.chain.level is not None)
            + [STEERING] * (self.reward is not None)
            + [cited("wu2023twisted", "the weights of guided transitions")] * (self.guidance is not None)
        )

    def _total(self, x: dict[str, Tensor], k: int, total: Tensor, history: Tensor) -> tuple[Tensor, Tensor]:
        """The log-potential of each path up to time k, and the history that the next one needs."""
        if k == self.table.steps:
            return x["reward"], history
        return POTENTIALS[self.potential][0](self.evaluator.worth(x, k), total, history)

    def _info(self, x: dict[str, Tensor], k: int) -> dict[str, float]:
        info = {"noise_level": float(self.process.sigma(self.table.times[k]))}
        if "twist" in x:
            info["twist"] = float(x["twist"].mean())
        return {**info, "reward": float(x["reward"].mean())} if self.evaluator.asks(k) else info


def as_guidance(guidance: Guides | None) -> Guidance | None:
    """What was given, as an object: names, numbers and functions have one each.

    Raises:
        UnknownName: a name that is neither "reward" nor in `motes.diffusion.guidance.guidances`.
        MotesError: guidance that has no default for what it needs.
        TypeError: none of these.
    """
    if guidance is None or isinstance(guidance, Guidance):
        return guidance
    if isinstance(guidance, str):
        if guidance != "reward" and guidance not in guidances:
            raise UnknownName("guidance", guidance, ("reward", *guidances))
        made = ValueGradient() if guidance == "reward" else guidances.make(guidance)
        if isinstance(made, Guidance):
            return made
        raise WrongType(f"{guidance} is a guess of what a path is worth: give it as twist, with what it needs")
    if isinstance(guidance, int | float) and not isinstance(guidance, bool):
        return ValueGradient(float(guidance)) if guidance else None
    if callable(guidance) and not isinstance(guidance, type):
        return FunctionGuidance(guidance)
    raise WrongType(f'guidance must be None, "reward", a number, a Guidance or a function (x, t), not {guidance!r}')
