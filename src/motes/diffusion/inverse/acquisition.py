"""Choosing what to measure next by what the particles disagree about."""

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
from motes.core.files.resuming import must_agree
from motes.core.particles import Particles
from motes.core.weights import normalise
from motes.diffusion.denoisers.denoiser import Denoiser
from motes.diffusion.evaluation.evaluator import Evaluator, OneModel
from motes.diffusion.guidance.value import ValueGradient
from motes.diffusion.inverse.observation import Observation
from motes.diffusion.inverse.operators import Function
from motes.diffusion.processes.initial_law import initial_states
from motes.diffusion.processes.transition import Transitions, transitions
from motes.diffusion.sampler import ImageSampler
from motes.diffusion.sampling.chain import WeightedChain
from motes.diffusion.sampling.reverse import SAMPLER
from motes.errors import MotesError, ShapeError, check_name, check_positive
from motes.rng import Rng

ACTIVE = cited("nolan2025", "the choice of measurements")
AT_ONCE = 1 << 16
"""How many distances between particles are held at once."""
CHOICES = ("entropy", "variance", "random", "equispaced")


@dataclass(frozen=True, eq=False)
class ActiveDiffusion(ImageSampler):
    """A reverse diffusion that asks for measurements on its way, each where its particles disagree the most.

    There are L candidates; candidate l measures the numbers `measure(images)[:, l]` of an image, with normal noise. At
    chosen steps the next one is picked from those that are left, asked of `ask`, and from then on guides and weighs.
    The weighted particles target p(x_0 | all that was measured), which does not depend on how the candidates were
    picked, since they are picked by what was measured and by the sampler's own random numbers alone; the log normaliser
    estimates the log-density of the measurements that were made. With the choice made by the particles themselves the
    estimate is consistent but not unbiased.

    Args:
        denoiser: the prior.
        steps: the number of steps, or the falling times.
        measure: maps images (n, *shape) to (n, L, m), linearly: all candidates of m numbers each.
        ask: maps the number of a candidate to its measurement (m,) of the true image, noise included.
        std: the standard deviation of the measurements' noise.
        budget: how many are measured.
        shape: of one image.
        choice: "entropy", of the mixture of normals that the particles predict; "variance", the same for one normal;
            "random" and "equispaced" for comparison.
        first: candidates that are measured before the first step.
        window: the share of the steps, from and to, over which the measurements are spread.
        scale, guidance, integrator, noise, coarse, micro_batch, dtype, device: as for `Observation` and
            `ReverseDiffusion`.

    Raises:
        ValueError, UnknownName, ShapeError: what was given does not fit.

    References:
        Nolan, Stevens, van Nierop & van Sloun (2025), Active Diffusion Subsampling, TMLR, Eq. (7) and Algorithm 1.
    """

    denoiser: Denoiser
    steps: int | Tensor
    _: KW_ONLY
    measure: Callable[[Tensor], Tensor]
    ask: Callable[[int], Tensor]
    std: float
    budget: int
    shape: tuple[int, ...]
    choice: Literal["entropy", "variance", "random", "equispaced"] = "entropy"
    first: tuple[int, ...] = ()
    window: tuple[float, float] = (0.1, 0.8)
    scale: float = 1.0
    guidance: float = 1.0
    integrator: str = "multistep"
    noise: float = 1.0
    coarse: int = 4
    micro_batch: int | None = None
    dtype: torch.dtype = torch.float32
    device: str = "cpu"
    table: Transitions = field(init=False, repr=False)
    chain: WeightedChain = field(init=False, repr=False)

    quantity: ClassVar[str] = "log normaliser"
    references: ClassVar[tuple[Reference, ...]] = (SAMPLER, ACTIVE)  # type: ignore[misc]

    def __post_init__(self) -> None:
        check_name("choice", self.choice, CHOICES)
        check_positive(std=self.std, scale=self.scale)
        if not 0 <= self.window[0] < self.window[1] <= 1:
            raise MotesError(f"window must be two rising shares of the steps in [0, 1], not {self.window}")
        table = transitions(
            self.denoiser.process, self.steps, integrator=self.integrator, noise=self.noise, history=True
        )
        blank = self.measure(torch.zeros(1, *self.shape, dtype=self.dtype, device=self.device))
        if blank.ndim != 3 or len(blank) != 1:
            raise ShapeError(f"measure must return (n, L, m) for n images, not {tuple(blank.shape)} for one")
        count = blank.shape[1]
        if not len(self.first) <= self.budget <= count or self.budget < 1:
            raise MotesError(f"budget must be from {max(1, len(self.first))} to {count}, not {self.budget}")
        if len(set(self.first)) != len(self.first) or any(not 0 <= l < count for l in self.first):  # noqa: E741
            raise MotesError(f"first must name different candidates from 0 to {count - 1}, not {self.first}")
        object.__setattr__(self, "table", table)
        models = OneModel(self.denoiser, table)
        evaluator = Evaluator(models, None, torch.zeros_like(table.times), micro_batch=self.micro_batch)
        knobs = {"coarse": self.coarse, "integrator": self.integrator, "noise": self.noise}
        object.__setattr__(self, "chain", WeightedChain.of(models, evaluator, steps=self.steps, **knobs))
        object.__setattr__(self, "quantity", self.chain.quantity)
        object.__setattr__(self, "_size", tuple(blank.shape[1:]))

    @property
    def when(self) -> list[int]:
        """The number of measurements that are there after each step, (K + 1,)."""
        last = self.table.steps
        start, end = self.window[0] * last, max(self.window[1] * last, self.window[0] * last + 1)
        open_, rest = len(self.first), self.budget - len(self.first)
        return [open_ + min(rest, max(0, math.ceil(rest * (k - start) / (end - start)))) for k in range(last)] + [
            self.budget
        ]

    def init(self, rng: Rng, n: int) -> Particles:
        count, m = self._size  # type: ignore[attr-defined]
        shared = {
            "asked": torch.full((self.budget,), -1, dtype=torch.int64),
            "y": torch.full((count, m), math.nan, dtype=torch.float64),
            "entropy": torch.full((self.budget,), math.nan, dtype=torch.float64),
        }
        for l in self.first:  # noqa: E741
            shared = self._asked(shared, l, math.nan)
        shared |= {"probe": self._probe()}
        state = initial_states(rng, self.denoiser.process, None, (n, *self.shape), self.dtype, self.device)
        chain = self._chain(shared)
        x = self._known(chain, rng, state, 0)
        return chain.start(rng, x, shared=shared, info=self._info(shared, 0))

    def step(self, rng: Rng, particles: Particles) -> Particles:
        k, shared = particles.t, particles.shared
        while self._count(shared) < self.when[k + 1]:
            shared = self._next(rng, particles, shared)
        state, log_ratio = self.table.guided_step(rng, k, particles.x)
        chain = self._chain(shared)
        x = self._known(chain, rng, state, k + 1)
        return chain.step(rng, particles, x, log_ratio, shared=shared, info=self._info(shared, k + 1))

    @property
    def last(self) -> int:
        return self.table.steps

    def restore(self, particles: Particles) -> Particles:
        """The particles, if the model and the measurements still say of them what their file says.

        Raises:
            FileError: the denoiser or the measurements have changed since.
        """
        then = particles.shared["probe"]
        must_agree("answer of `measure`", self._probe(), then, "the one that began it", rows=False)
        return self._chain(particles.shared).evaluator.restored(particles, self.device)

    def remarks(self, particles: Particles) -> list[str]:
        observation = self._observation(particles.shared)
        if not self.done(particles):
            return []
        said = observation.remarks(particles.x["reward"], particles.log_weight) if observation else []
        return self.chain.remarks(particles, said)

    def coarse_level(self, particles: Particles) -> CoarseLevel | None:
        return self.chain.coarse_level(particles)

    def systematic(self, particles: Particles) -> Systematic | None:
        return self.chain.systematic(particles)

    # ---------------------------------------------------------------- measuring

    def _probe(self) -> Tensor:
        """What is measured of two fixed images, by which a file can tell one `measure` from another."""
        image = Rng(0).at("probe").normal((2, *self.shape), dtype=self.dtype).to(self.device)
        return self._measured(image)

    def _count(self, shared: Any) -> int:
        return int((shared["asked"] >= 0).sum())

    def _asked(self, shared: Any, candidate: int, entropy: float) -> dict[str, Tensor]:
        y = torch.as_tensor(self.ask(candidate))
        if y.shape != shared["y"].shape[1:]:
            raise ShapeError(f"ask({candidate}) returned shape {tuple(y.shape)}, not {tuple(shared['y'].shape[1:])}")
        if not bool(torch.isfinite(y).all()):
            raise MotesError(f"ask({candidate}) returned a number that is not finite")
        i = self._count(shared)
        new = {name: value.clone() for name, value in shared.items()}
        new["asked"][i], new["y"][candidate], new["entropy"][i] = candidate, y.to(new["y"]), entropy
        return new

    def _next(self, rng: Rng, particles: Particles, shared: Any) -> dict[str, Tensor]:
        left = torch.ones(len(shared["y"]), dtype=torch.bool)
        left[shared["asked"][shared["asked"] >= 0]] = False
        if self.choice == "random":
            order = rng.at("choice", inner=self._count(shared)).permutation(len(left))
            score = order.argsort().to(torch.float64)
        elif self.choice == "equispaced":
            score = -spread_out(len(left), self.budget, shared["asked"][shared["asked"] >= 0])
        else:
            predicted = self._measured(particles.x["denoised"])
            score = SCORES[self.choice](predicted, normalise(particles.log_weight), self.std)
        score = score.cpu().where(left, torch.tensor(-math.inf, dtype=score.dtype))
        best = int(score.argmax())
        return self._asked(shared, best, float(score[best]) if self.choice in SCORES else math.nan)

    def _measured(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            return self.measure(images).to(torch.float64).cpu()

    def _observation(self, shared: Any) -> Observation | None:
        asked = shared["asked"][shared["asked"] >= 0]
        if not len(asked):
            return None
        operator = Function(lambda images: self.measure(images)[:, asked.to(images.device)], shape=self.shape)
        return Observation(operator, shared["y"][asked], self.std, scale=self.scale)

    def _chain(self, shared: Any) -> WeightedChain:
        """The chain, asked about what has been measured: the twist speaks for the reward until the end."""
        observation = self._observation(shared)
        guidance = ValueGradient(self.guidance) if observation and self.guidance else None
        reward = observation.reward if observation else None
        return self.chain.about(reward=reward, twist=observation, guidance=guidance)

    def _known(self, chain: WeightedChain, rng: Rng, state: Tensor, k: int) -> dict[str, Tensor]:
        x = chain.evaluator(rng, state, k)
        x["total"] = chain.evaluator.worth(x, k)
        x.pop("twist", None)
        return x

    def _info(self, shared: Any, k: int) -> dict[str, float]:
        level = float(self.denoiser.process.sigma(self.table.times[k]))
        return {"noise_level": level, "measurements": float(self._count(shared))}


def mixture_entropy(predicted: Tensor, weight: Tensor, noise: float) -> Tensor:
    """(L,) how much the particles disagree about each candidate, nats.

    -sum_i w_i log sum_j w_j exp(-|mu_i - mu_j|^2 / (2 noise^2)): up to the entropy of the noise, an upper bound on that
    of the mixture of normals that the particles predict, by pairwise divergences.

    Args:
        predicted: (N, L, m) each particle's prediction of each candidate.
        weight: (N,) normalised.
        noise: the standard deviation of the measurement.

    References:
        Nolan et al. (2025), Active Diffusion Subsampling, TMLR, Eq. (7).
        Kolchinsky & Tracey (2017), Estimating Mixture Entropy with Pairwise Distances, Entropy 19, Eq. (10).
    """
    log_weight, score = torch.log(weight), []
    for part in predicted.transpose(0, 1).split(max(1, AT_ONCE // len(weight) ** 2)):
        far = torch.cdist(part, part).square()  # (candidates, N, N)
        inside = (log_weight - far / (2 * noise**2)).logsumexp(2)
        score.append(-(weight * inside.where(weight > 0, 0.0)).sum(1))
    return torch.cat(score)


def normal_entropy(predicted: Tensor, weight: Tensor, noise: float) -> Tensor:
    """(L,) the information gain 1/2 sum log(1 + variance / noise^2) of each candidate, as if all were normal, nats."""
    mean = (weight[:, None, None] * predicted).sum(0)
    variance = (weight[:, None, None] * (predicted - mean).square()).sum(0)
    return 0.5 * torch.log1p(variance / noise**2).sum(1)


SCORES = {"entropy": mixture_entropy, "variance": normal_entropy}


def spread_out(count: int, budget: int, asked: Tensor) -> Tensor:
    """(count,) the rank of each candidate in an evenly spaced choice of `budget`; what was asked counts first."""
    grid = [round(i * count / budget) % count for i in range(budget)]
    order = [l for l in grid if l not in asked.tolist()]  # noqa: E741
    rank = torch.full((count,), float(count), dtype=torch.float64)
    for i, l in enumerate(order):  # noqa: E741
        rank[l] = i
    return rank
