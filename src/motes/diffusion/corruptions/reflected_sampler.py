"""Sampling by reflected diffusion, tilted by a reward, as a Feynman-Kac model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from motes.core.cite import cited
from motes.core.files.resuming import must_agree, on_device
from motes.core.micro_batches import in_parts
from motes.core.particles import Particles
from motes.core.remark import ALL, MEANS, Remark
from motes.core.views.images import shown
from motes.diffusion.arguments import check_networks
from motes.diffusion.corruptions.reflected import Reflected
from motes.diffusion.evaluation.checks import checked_reward, not_finite, refuse
from motes.diffusion.sampler import StepSampler
from motes.errors import MotesError, ShapeError, check_name, plural
from motes.rng import Rng

SCHEDULES = ("end", "linear")


@dataclass(frozen=True, eq=False)
class ReflectedDiffusion(StepSampler):
    """Samples in a box or in the simplex by the reflected reverse equation, tilted by exp(reward).

    From the uniform law at sigma_max each step, from level t to s, moves coordinates u along the score and folds them,

        u_s = fold(u_t + (t^2 - s^2) score(u_t, t) + sqrt(t^2 - s^2) N(0, I)).

    The law of the chain differs from the data's by an error of first order in the steps, and by sigma_min: for the
    density 1 + 0.8 cos(pi x), E cos(pi x) = 0.4 comes out 0.024 low at 60 steps and 0.012 at 120. Weights for the
    reward are exact for the chain, whatever the number of particles and the schedule.

    Args:
        model: the score, (coordinates (n, d), sigma) to (n, d), such as `Reflected.empirical` or a network's.
        reflected: the box or the simplex.
        steps: how many steps, in proportion in sigma; or the falling noise levels (K + 1,).
        reward: maps points (n, d), on the simplex (n, K), to (n,) nats; -inf excludes a point at the end.
        shape: (d,) of coordinates: K - 1 on the simplex.
        schedule: when the reward of states counts, "end", or "linear": more with every step.
        micro_batch: rows a call of the score.
        dtype, device: of the states.

    Raises:
        NanLogPotential: a score or reward that is not finite; names particles.
        ShapeError: functions return other shapes.
        UnknownName: another schedule.

    References:
        Lou & Ermon (2023), Reflected Diffusion Models, ICML, Eq. (6) and section 5 (sampling).

    Example:
        >>> import motes, torch
        >>> box = Reflected("box")
        >>> model = ReflectedDiffusion(box.empirical(torch.tensor([[0.2], [0.9]])), box, 40, shape=(1,))
        >>> x = motes.sample(model, 200, seed=0, progress=False).view
        >>> bool(((x - 0.2).abs() < 0.1).logical_or((x - 0.9).abs() < 0.1).all())
        True
    """

    model: Callable[[Tensor, float], Tensor]
    reflected: Reflected
    steps: int | Tensor
    _: KW_ONLY
    reward: Callable[[Tensor], Tensor] | None = None
    shape: tuple[int, ...]
    schedule: Literal["end", "linear"] = "end"
    micro_batch: int | None = None
    dtype: torch.dtype = torch.float32
    device: str = "cpu"
    sigmas: Tensor = field(init=False, repr=False)

    quantity: ClassVar[str] = "log normaliser"
    references = (cited("lou2023reflected", "the reflected reverse equation"),)

    def __post_init__(self) -> None:
        check_networks(model=self.model, reward=self.reward)
        check_name("schedule", self.schedule, SCHEDULES)
        sigmas = self.reflected.sigmas(self.steps) if isinstance(self.steps, int) else self.steps.double()
        if sigmas.ndim != 1 or len(sigmas) < 2 or not bool((sigmas.diff() < 0).all()) or not bool((sigmas > 0).all()):
            raise MotesError("noise levels must be positive and fall, at least 2 of them")
        object.__setattr__(self, "sigmas", sigmas)
        object.__setattr__(self, "quantity", f"log normaliser of the chain of {plural(len(sigmas) - 1, 'step')}")

    def init(self, rng: Rng, n: int) -> Particles:
        u = self.reflected.uniform(rng.at("start"), (n, *self.shape), self.dtype).to(self.device)
        x = {"state": u, "total": self._total(u, 0)}
        return Particles.start(x, x["total"], info=self._info(0))

    def step(self, rng: Rng, particles: Particles) -> Particles:
        k, u = particles.t, particles.x["state"]
        t, s = float(self.sigmas[k]), float(self.sigmas[k + 1])
        with torch.no_grad():
            score = in_parts(lambda part: self.model(part, t), self.micro_batch, u)
        if score.shape != u.shape:
            raise ShapeError(f"the score returned shape {tuple(score.shape)} for states of shape {tuple(u.shape)}")
        refuse(not_finite(score), f"the score is not finite at step {k + 1} (sigma={t:.4g})", "score")
        noise = rng.at("noise").normal(tuple(u.shape), dtype=self.dtype).to(self.device)
        u = self.reflected.fold(u + (t * t - s * s) * score + (t * t - s * s) ** 0.5 * noise)
        x = {"state": u, "total": self._total(u, k + 1)}
        return particles.step(x, x["total"] - particles.x["total"], info=self._info(k + 1))

    @property
    def last(self) -> int:
        return len(self.sigmas) - 1

    def shows(self) -> str:
        return shown(self.shape)

    def view(self, particles: Particles) -> Tensor:
        """The points, (N, d) of a box or (N, K) of the simplex."""
        return self.reflected.points(particles.x["state"])

    def remarks(self, particles: Particles) -> list[str]:
        return [
            Remark(
                f"the weights are exact for the chain of {plural(self.last, 'step')}, whose law comes near to the "
                "model's as steps get more: an error that the run does not know; double the steps to see it",
                MEANS if self.reward is None else ALL,
            )
        ]

    def restore(self, particles: Particles) -> Particles:
        """The particles, on the device, if the reward says of them what their file says.

        Raises:
            FileError: it does not.
        """
        x = on_device(particles.x, ("state",), self.device)
        must_agree("reward", self._total(x["state"], particles.t), x["total"], "the reward that began it")
        return replace(particles, x=x)

    def _total(self, u: Tensor, k: int) -> Tensor:
        """(n,) the log-potential of the path so far, nats."""
        last = k == self.last
        if self.reward is None or (not last and (self.schedule == "end" or k == 0)):
            return torch.zeros(len(u), dtype=torch.float64)
        with torch.no_grad():
            reward = checked_reward(self.reward(self.reflected.points(u)), len(u)).cpu()
        bad = reward.isnan() | (reward == torch.inf) | ((reward == -torch.inf) & (not last))
        refuse(bad, f"the reward is NaN, +inf, or -inf before the end at step {k}", "reward")
        return reward * (k / self.last)

    def _info(self, k: int) -> dict[str, float]:
        return {"noise_level": float(self.sigmas[k])}
