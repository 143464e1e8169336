"""A flow model tilted by a reward, whatever data and noise it was trained on: the flow is kept, its noise is tilted."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field, replace
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from motes.core.cite import Reference, cited
from motes.core.estimate.coarse_level import CoarseLevel
from motes.core.estimate.systematic import Systematic
from motes.core.estimate.unearned import unearned
from motes.core.estimate.variance import StandardError
from motes.core.files.resuming import must_agree, on_device
from motes.core.micro_batches import in_parts
from motes.core.model import FeynmanKac
from motes.core.particles import Particles
from motes.core.remark import ALL, Remark
from motes.core.temperature import next_temperature
from motes.core.views.images import shown
from motes.core.weights import normalise
from motes.diffusion.arguments import check_images, check_networks
from motes.diffusion.composing.crosswise import rows
from motes.diffusion.denoisers.denoiser import Denoiser
from motes.diffusion.evaluation.checks import checked_reward, not_finite, refuse
from motes.diffusion.flows.flow import REFERENCES
from motes.diffusion.flows.solvers import FLOWS, Leg
from motes.diffusion.processes.transition import falling
from motes.diffusion.short import too_few
from motes.errors import MotesError, check_name
from motes.rng import Rng

LATENT = cited("cotter2013", "the moves of the noise")
FORGOTTEN = 0.1
"""The correlation with its beginning, of the noise and of the reward, at which a sweep of moves ends."""
SHORT = 6
"""With fewer steps than this nothing tells how their error falls: by two of Euler's, where four times as much was left
as one of them changed."""
STUCK = 0.5
"""The correlation from which a run that ended its moves for their number says so."""


@dataclass(frozen=True, eq=False)
class TiltedFlow(FeynmanKac):
    """Samples of a flow model tilted by exp(reward), by tempering over the noise that the flow begins with.

    An image is a function of its noise, so the flow's law tilted by exp(reward(image)) is the normal law of the noise
    tilted by exp(reward(flow(noise))): no score, divergence or likelihood is needed, and nothing hangs on how data and
    noise were paired in training. The reward comes in by as much as the conditional effective sample size allows;
    between, the noise is moved by preconditioned Crank-Nicolson steps, each of which costs one flow a particle. The
    temperatures come from the particles, so the estimate of the normaliser is consistent and not unbiased; without
    moves (a mild reward) it is plain importance sampling, which is.

    Args:
        denoiser: the model, with its process.
        steps: the number of steps K over the process's grid, even; or the falling times (K + 1,).
        reward: maps images (N, *shape) to (N,) nats; -inf excludes an image.
        shape: the shape of one image.
        integrator: of the flow: "heun", "euler", "ddim" or "dpm++2m".
        max_sweeps: flows a particle at each temperature, at most; they end when the noise has forgotten where it was.
        conditional_ess: the conditional effective sample size that a rise of the temperature leaves, as a fraction.
        micro_batch, dtype, device: as for `ReverseDiffusion`.

    Raises:
        NanLogPotential: the model or the reward returned what is not finite; names particles.
        ShapeError, UnknownName, ValueError: what was given does not fit.

    References:
        Cotter, Roberts, Stuart & White (2013), MCMC Methods for Functions, Statistical Science 28 (the moves).
        Zhou, Johansen & Aston (2016), Toward Automatic Model Comparison, JCGS 25 (the temperatures).

    Example:
        >>> import torch, motes
        >>> from motes.diffusion import Denoiser, RectifiedFlow, TiltedFlow
        >>> def velocity(x, t):  # the optimal transport from N(0.3, 1/4) at t = 0 to N(0, 1) at t = 1
        ...     return (0.5 * x - 0.3) / (0.5 + 0.5 * t[:, None])
        >>> flow = Denoiser(velocity, RectifiedFlow(), predicts="flow")
        >>> model = TiltedFlow(flow, 8, reward=lambda x: x[:, 0], shape=(1,))
        >>> run = motes.sample(model, 2000, seed=1, progress=False)  # log E[exp(x)] = 0.425
        >>> abs(run.log_evidence - 0.425) < 4 * run.log_evidence_se
        True
    """

    denoiser: Denoiser
    steps: int | Tensor
    _: KW_ONLY
    reward: Callable[[Tensor], Tensor]
    shape: tuple[int, ...]
    integrator: str = "heun"
    max_sweeps: int = 40
    conditional_ess: float = 0.8
    micro_batch: int | None = None
    dtype: torch.dtype = torch.float32
    device: str = "cpu"
    times: Tensor = field(init=False, repr=False)

    quantity: ClassVar[str] = "log normaliser"
    references: ClassVar[tuple[Reference, ...]] = (*REFERENCES, LATENT)  # type: ignore[misc]

    def __post_init__(self) -> None:
        check_images(self.denoiser, self.reward, self.shape, self.dtype, self.device)
        check_networks(denoiser=self.denoiser, reward=self.reward)
        check_name("integrator of a flow", self.integrator, FLOWS)
        if not 0 < self.conditional_ess < 1 or self.max_sweeps < 1:
            raise MotesError(
                f"need 0 < conditional_ess < 1 and max_sweeps >= 1, not {self.conditional_ess} and {self.max_sweeps}"
            )
        process = self.denoiser.process
        times = process.times(self.steps) if isinstance(self.steps, int) else falling(self.steps, process)
        if len(times) % 2 == 0:
            raise MotesError(f"the number of steps must be even, for the check with half of them; not {len(times) - 1}")
        object.__setattr__(self, "times", times)

    def init(self, rng: Rng, n: int) -> Particles:
        noise = rng.at("start").normal((n, *self.shape), dtype=self.dtype).to(self.device)
        x = self._images(noise, self.times)
        shared = {"temperature": 0.0, "move": 0.5, "kept": 0.0, "coarse": 0.0, "noise": 0.0}
        return Particles.start(x, torch.zeros(n, dtype=torch.float64), shared=shared, info=self._info(x, 0.0))

    def step(self, rng: Rng, particles: Particles) -> Particles:
        x, shared, t = particles.x, dict(particles.shared), particles.shared["temperature"]
        if t > 0:
            x, shared["move"], kept = self._moved(rng, x, shared["move"], t)
            shared["kept"] = max(shared["kept"], kept)
        alive = bool(((particles.log_weight > -math.inf) & (x["reward"] > -math.inf)).any())
        new = next_temperature(particles.log_weight, x["reward"], t, self.conditional_ess) if alive else 1.0
        moved = particles.step(x, (new - t) * x["reward"], shared={**shared, "temperature": new})
        if new == 1 and alive:
            coarse = self._images(moved.x["noise"], self.times[::2])
            more = {"coarse": coarse["image"], "gap": coarse["reward"] - x["reward"]}
            moved = replace(moved, x=moved.x | more)
            moved = replace(moved, shared=moved.shared | self._discretisation(moved))
        return replace(moved, info=self._info(x, new))

    def done(self, particles: Particles) -> bool:
        return bool(particles.shared["temperature"] == 1)

    def progress(self, particles: Particles) -> float:
        return float(particles.shared["temperature"])

    def must_resample(self, particles: Particles) -> bool:
        return particles.t > 0

    def shows(self) -> str:
        return shown(self.shape)

    def view(self, particles: Particles) -> Tensor:
        """The images (N, *shape)."""
        return particles.x["image"]

    def advice(self, particles: Particles) -> str:
        return (
            "The reward excludes every image drawn: use more particles, or a reward that grows towards what it wants, "
            "by which the particles can find it"
        )

    def order(self, particles: Particles) -> Tensor:
        """(N,) the reward."""
        return particles.x["reward"]

    def remarks(self, particles: Particles) -> list[Remark]:
        said, shared = [], particles.shared
        if shared["kept"] > STUCK:
            text = (
                f"after {self.max_sweeps} moves at a temperature the particles still remember where they were "
                f"(correlation {shared['kept']:.2f}): what resampling copied is still together. Take more sweeps or "
                "more particles"
            )
            said.append(Remark(text, ALL, withholds=True))
        if self.done(particles) and self._unknown:
            said.append(Remark(self._too_few, ALL, withholds=True))
        return said

    def coarse_level(self, particles: Particles) -> CoarseLevel | None:
        """The images that half as many steps make of the same noise."""
        if "gap" not in particles.x:
            return None
        row = torch.arange(particles.n)
        return CoarseLevel(particles.x["coarse"], particles.log_weight + particles.x["gap"], row, self._share)

    @property
    def _unknown(self) -> bool:
        """Whether the steps are too few to know their error, whether half as many show one or not."""
        return len(self.times) <= SHORT

    @property
    def _too_few(self) -> str:
        return too_few(len(self.times) - 1, "half as many", SHORT)

    def standard_error(self, particles: Particles) -> StandardError | None:
        return unearned(particles, particles.x["reward"] if self.done(particles) else None)

    def systematic(self, particles: Particles) -> Systematic | None:
        """The error of the flow's steps, by the same noise at half as many."""
        if not self.done(particles):
            return None
        value, noise = particles.shared["coarse"], particles.shared["noise"]
        if self._unknown:
            return Systematic(math.nan, 0.0, self._too_few)
        text = (
            f"with {len(self.times) - 1} steps of the flow the log normaliser is off by about {value:+.2g} nats, by "
            "the same noise at half as many: use more steps"
        )
        return Systematic(abs(value), max(0.0, abs(value) - 2 * noise), text)

    def restore(self, particles: Particles) -> Particles:
        """The particles, if the flow and the reward still say of the first of them what their file says.

        Raises:
            FileError: they have changed since.
        """
        x = on_device(particles.x, ("noise", "image", "coarse"), self.device)
        for name, value in self._images(x["noise"][:8], self.times).items():
            must_agree(name, value, x[name][:8], "the model or the reward that began it")
        return replace(particles, x=x)

    def _images(self, noise: Tensor, times: Tensor) -> dict[str, Tensor]:
        """The images that the flow makes of noise (N, *shape), and their rewards (N,)."""
        process = self.denoiser.process

        def carried(z: Tensor) -> Tensor:
            x, previous, before = process.start_std * z, None, float(times[0])
            with torch.no_grad():
                for t, s in pairwise(times.tolist()):
                    now = self.denoiser.data(x, t)
                    leg = Leg(process, x, t, s, now, previous, before, self.denoiser.data)
                    x, previous, before = FLOWS[self.integrator](leg), now, t
                last = float(times[-1])
                return self.denoiser.data(x, last) if float(process.sigma(last)) > 0 else x

        image = in_parts(carried, self.micro_batch, noise)
        refuse(not_finite(image), "the flow left the finite numbers", "model")
        with torch.no_grad():
            reward = in_parts(lambda x: checked_reward(self.reward(x), len(x)), self.micro_batch, image).cpu()
        refuse(reward.isnan() | (reward == math.inf), "the reward is NaN or +inf", "reward")
        return {"noise": noise, "image": image, "reward": reward}

    def _moved(self, rng: Rng, x: dict[str, Tensor], size: float, t: float) -> tuple[dict[str, Tensor], float, float]:
        """Particles after their moves at temperature t, the sizes of the moves, and what they remember."""
        n, begun, kept = len(x["reward"]), x, 1.0
        for j in range(self.max_sweeps):
            xi = rng.at("move", inner=j).normal(tuple(x["noise"].shape), dtype=self.dtype).to(self.device)
            new = self._images(math.sqrt(1 - size**2) * x["noise"] + size * xi, self.times)
            chance = chances(new["reward"], x["reward"], t)
            accepted = rng.at("accept", inner=j).uniform((n,), dtype=torch.float64) < chance
            x = {name: torch.where(rows(accepted, v).bool(), new[name], v) for name, v in x.items()}
            size = min(max(size * math.exp(0.5 * (float(chance.mean()) - 0.3)), 1e-3), 0.999)
            kept = max(_correlation(x["noise"], begun["noise"]), _correlation(x["reward"], begun["reward"]))
            if kept < FORGOTTEN:
                break
        return x, size, kept

    def _discretisation(self, particles: Particles) -> dict[str, float]:
        """How far the log normaliser is off for the flow's steps, nats, by the same noise at half as many; its se."""
        weight = normalise(particles.log_weight)
        alive = weight > 0
        weight, gap = weight[alive], particles.x["gap"][alive]
        change = float(torch.logsumexp(weight.log() + gap, 0))
        noise = float((weight.square() @ ((gap - change).exp() - 1).square()).sqrt())
        return {"coarse": self._share * change, "noise": self._share * noise}

    @property
    def _share(self) -> float:
        """What the flow's steps err by, as a share of what half as many differ by."""
        order = 1 if self.integrator in ("euler", "ddim") else 2
        return 1 / (2**order - 1)

    def _info(self, x: dict[str, Tensor], t: float) -> dict[str, float]:
        return {"temperature": t, "reward": float(x["reward"].mean())}


def chances(new: Tensor, old: Tensor, t: float) -> Tensor:
    """(N,) the probabilities of accepting moves between rewards `old`, finite, and `new` at temperature t."""
    return torch.where(new > -math.inf, t * (new - old), -math.inf).clamp(max=0).exp()


def _correlation(now: Tensor, then: Tensor) -> float:
    """The correlation of two states of a population, all dimensions together; 0 where nothing varies."""
    a, b = (v.to(torch.float64).flatten(1) if v.ndim > 1 else v.to(torch.float64)[:, None] for v in (now, then))
    a, b = (v.nan_to_num(neginf=-1e300) - v.nan_to_num(neginf=-1e300).mean(0) for v in (a, b))
    scale = float(a.square().sum() * b.square().sum()) ** 0.5
    return float((a * b).sum()) / scale if 0 < scale < math.inf else 0.0
