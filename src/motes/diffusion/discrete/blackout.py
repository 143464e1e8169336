"""Blackout diffusion: counts that only die on the way to noise, and are only born on the way back."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from motes.core.cite import cited
from motes.core.estimate.systematic import Systematic
from motes.core.estimate.unearned import unearned
from motes.core.estimate.variance import StandardError
from motes.core.files.resuming import must_agree
from motes.core.micro_batches import in_parts
from motes.core.particles import Particles
from motes.core.remark import ALL, MEANS, Remark
from motes.core.views.images import shown
from motes.diffusion.arguments import check_networks, falling_times
from motes.diffusion.discrete import stale
from motes.diffusion.evaluation.checks import EARLY, checked_reward, not_finite, refuse
from motes.diffusion.evaluation.intermediate_reward import POTENTIALS, Schedule, strengths
from motes.diffusion.sampler import StepSampler
from motes.errors import MotesError, ShapeError, check_name, plural
from motes.rng import Rng

HOW = ("poisson", "binomial")


@dataclass(frozen=True)
class Blackout:
    """Each unit of a count dies at rate 1: x_t is Binomial(x_0, exp(-t)), and everything ends at 0.

    Args:
        t_min, t_max: the last and the first time of a sampler; at t_max all counts are taken to be 0, so that
            x_0 exp(-t_max) should be small.

    References:
        Santos, Fox, Lubbers & Lin (2023), Blackout Diffusion, ICML, section 4.
    """

    t_min: float = 0.0
    _: KW_ONLY
    t_max: float = 10.0

    def __post_init__(self) -> None:
        if not 0 <= self.t_min < self.t_max:
            raise MotesError(f"need 0 <= t_min < t_max, not t_min={self.t_min}, t_max={self.t_max}")

    def alpha(self, t: Tensor | float) -> Tensor:
        """The probability exp(-t) that a unit is alive at time t, float64."""
        return torch.exp(-torch.as_tensor(t, dtype=torch.float64))

    def noise(self, rng: Rng, x0: Tensor, t: Tensor | float) -> Tensor:
        """Counts drawn from q(x_t | x_0), as `x0` (N, *shape); t is one time, or (N,)."""
        alpha = self.alpha(t)
        alpha = alpha.reshape(-1, *[1] * (x0.ndim - 1)) if alpha.ndim else alpha
        return rng.at("forward").binomial(x0, alpha.expand(x0.shape)).to(x0.dtype)

    def born(self, t: float, s: float) -> float:
        """The probability that a unit which is dead at time t was alive at s < t."""
        return (math.exp(-s) - math.exp(-t)) / -math.expm1(-t)

    def times(self, steps: int) -> Tensor:
        """The (steps + 1,) falling times of a sampler, float64, with equally many births a step for a given count."""
        if steps < 1:
            raise MotesError(f"a sampler needs at least 1 step, not {steps}")
        alive = torch.linspace(math.exp(-self.t_max), math.exp(-self.t_min), steps + 1, dtype=torch.float64)
        times = -torch.log(alive)
        times[0], times[-1] = self.t_max, self.t_min
        return times


MISSING = (
    "births are drawn from the mean of what is missing, not from its law: the weights are exact for this chain, whose "
    "law is the model's in the limit of many steps (at any number for Poisson data)"
)


@dataclass(frozen=True, eq=False)
class ReverseBlackout(StepSampler):
    """Counts of a blackout model, tilted by exp(reward) and weighted for it.

    From time t to s the units that are still to come, x_0 - x_t in number, have each been born with probability
    (e^-s - e^-t) / (1 - e^-t). A model knows their mean m = E[x_0 | x_t] - x_t only, so a step draws
    Binomial(m, that), m rounded up or down by lot, or Poisson of the same mean (tau-leaping, which for Poisson data is
    exact). Both miss how x_0 varies given x_t, an error that falls with the number of steps; the weights are exact for
    the chain as it is. With "poisson" the run tells what half as many steps would change (`stale.py`), and the error
    bar carries it; otherwise the normaliser is named for the chain, and a remark doubts it.

    Args:
        model: maps counts (N, *shape) int64 and times (N,) to E[x_0 | x_t], (N, *shape), float.
        process: the process.
        steps: the number of steps K, or the falling times (K + 1,).
        reward: maps counts (N, *shape) to (N,) nats; on the way it is asked about the predicted mean, rounded.
        guidance: None, or a function (x, t) to the log of what multiplies the mean births of the next step, like x;
            the weights make up for it exactly. Needs "poisson".
        shape: the shape of one sample.
        births: "poisson" or "binomial".
        schedule, potential: as for `ReverseDiffusion`; "signal" is exp(-t).
        micro_batch: rows a call of the model and of the reward.

    Raises:
        NanLogPotential: the model, guidance or reward is NaN or +inf, or -inf on the way; names the particles.
        ShapeError, UnknownName, ValueError: what was given does not fit.

    References:
        Santos, Fox, Lubbers & Lin (2023), Blackout Diffusion, ICML, section 4; Gillespie (2001), J. Chem. Phys. 115.

    Example:
        >>> import torch, motes
        >>> from motes.diffusion.discrete import Blackout, ReverseBlackout
        >>> poisson = lambda x, t: x + 6.0 * (1 - torch.exp(-t))[:, None]  # exact for counts from Poisson(6)
        >>> model = ReverseBlackout(poisson, Blackout(), 5, shape=(1,))
        >>> run = motes.sample(model, 2000, seed=0, progress=False)
        >>> abs(float(run.mean().value) - 6.0) < 0.3
        True
    """

    model: Callable[[Tensor, Tensor], Tensor]
    process: Blackout
    steps: int | Tensor
    _: KW_ONLY
    reward: Callable[[Tensor], Tensor] | None = None
    guidance: Callable[[Tensor, float], Tensor] | None = None
    shape: tuple[int, ...]
    births: str = "poisson"
    schedule: Schedule = "signal"
    potential: str = "difference"
    micro_batch: int | None = None
    name: str = "model"
    times: Tensor = field(init=False, repr=False)
    strength: Tensor = field(init=False, repr=False)

    quantity: ClassVar[str] = "log normaliser"
    references = (cited("santos2023", "the pure-death process"),)

    def __post_init__(self) -> None:
        check_networks(model=self.model, reward=self.reward, guidance=self.guidance)
        check_name("law of births", self.births, HOW)
        check_name("potential", self.potential, POTENTIALS)
        if self.guidance is not None and self.births != "poisson":
            raise MotesError('guidance changes the mean of the births, which needs births="poisson"')
        times = falling_times(self.steps, self.process.times)
        signal = self.schedule == "signal"
        curve: Schedule = (lambda t: math.exp(-t)) if signal else self.schedule
        object.__setattr__(self, "times", times)
        if not self._pairs:
            object.__setattr__(self, "quantity", f"log normaliser of the chain of {plural(len(times) - 1, 'step')}")
        object.__setattr__(self, "strength", strengths(curve, self.process, times))  # type: ignore[arg-type]

    def init(self, rng: Rng, n: int) -> Particles:
        zero = torch.zeros(n, dtype=torch.float64)
        x = self._observe(torch.zeros((n, *self.shape), dtype=torch.int64), 0)
        x["total"], x["history"] = self._total(x, 0, zero, zero + POTENTIALS[self.potential][1])
        x |= {"gap": zero, "stale": torch.zeros_like(x["mean"])} if self._pairs else {}
        return Particles.start(x, x["total"], info=self._info(x, 0))

    def step(self, rng: Rng, particles: Particles) -> Particles:
        k, old = particles.t, particles.x
        born = self.process.born(float(self.times[k]), float(self.times[k + 1]))
        missing = (old["mean"] - old["count"]).clamp(min=0.0)
        log_ratio = torch.zeros(particles.n, dtype=torch.float64)
        if self.births == "binomial":
            units = torch.floor(missing + rng.at("units").uniform(tuple(missing.shape)))  # whole, of the same mean
            new = rng.at("births").binomial(units, torch.full_like(missing, born))
        elif self.guidance is None:
            new = rng.at("births").poisson(missing * born)
        else:
            tilt = self._tilt(old["count"], k)
            base = missing * born
            new = rng.at("births").poisson(base * torch.exp(tilt))
            # log Poisson(new; base) / Poisson(new; base e^tilt)
            log_ratio = (base * torch.expm1(tilt) - new * tilt).flatten(1).sum(1)
        x = self._observe(old["count"] + new.to(torch.int64), k + 1)
        x["total"], x["history"] = self._total(x, k + 1, old["total"], old["history"])
        if self._pairs:
            x |= self._gap(k, old, missing * born, new)
        return particles.step(x, x["total"] - old["total"] + log_ratio, info=self._info(x, k + 1))

    @property
    def last(self) -> int:
        return len(self.times) - 1

    def shows(self) -> str:
        return shown(self.shape)

    def view(self, particles: Particles) -> Tensor:
        """The counts (N, *shape) int64, that grow from 0 to x_0."""
        return particles.x["count"]

    def order(self, particles: Particles) -> Tensor:
        """(N,) the reward, by which sorted resampling orders the particles (zeros where it was not asked)."""
        return particles.x["reward"] if self.reward is not None else super().order(particles)

    def remarks(self, particles: Particles) -> list[str]:
        if not self._pairs:
            return [Remark(MISSING, MEANS if self.reward is None else ALL)]
        return stale.doubts(particles.log_weight, particles.x["gap"], MISSING) if self.done(particles) else []

    def standard_error(self, particles: Particles) -> StandardError | None:
        earned = particles.x["reward"] if self.reward is not None and self.done(particles) else None
        return unearned(particles, earned)

    def systematic(self, particles: Particles) -> Systematic | None:
        if not self._pairs or self.reward is None or not self.done(particles):
            return None
        return stale.systematic(particles.log_weight, particles.x["gap"], self.last)

    @property
    def _pairs(self) -> bool:
        """Whether two steps by one prediction are one of twice the length."""
        return self.births == "poisson" and self.last > 1

    def _gap(self, k: int, x: dict[str, Tensor], expected: Tensor, births: Tensor) -> dict[str, Tensor]:
        """What particles carry for `stale`: the births a unit of signal that were expected, and the log-ratio so far.

        Args:
            k, x: the step, and the particles before it.
            expected, births: (N, *shape) of the step, without guidance.
        """
        alive = math.exp(-float(self.times[k + 1])) - math.exp(-float(self.times[k]))  # what is born of a signal of 1
        if k % 2 == 0:
            return {"gap": x["gap"], "stale": expected / alive}
        held = x["stale"] * alive
        ratio = torch.xlogy(births, held) - torch.xlogy(births, expected) - held + expected
        return {"gap": x["gap"] + ratio.flatten(1).sum(1), "stale": x["stale"]}

    def restore(self, particles: Particles) -> Particles:
        """The particles, if model and reward still say of them what their file says.

        Raises:
            FileError: the model or the reward has changed since.
        """
        now = self._observe(particles.x["count"], particles.t)
        for name in ("mean", "reward"):
            must_agree(name, now[name], particles.x[name], "the model and the reward that began it")
        return particles

    def _observe(self, count: Tensor, k: int) -> dict[str, Tensor]:
        """The predicted mean of x_0 and its reward at time k; the counts themselves at time 0."""
        last, t = k == self.last, float(self.times[k])
        asks = self.reward is not None and (last or float(self.strength[k]) != 0)
        reward_of = self.reward

        def rows(x: Tensor) -> tuple[Tensor, Tensor]:
            with torch.no_grad():
                mean = x if last else self.model(x, torch.full((len(x),), t, dtype=torch.float64))
                if mean.shape != x.shape:
                    raise ShapeError(f"the model must return shape {tuple(x.shape)}, not {tuple(mean.shape)}")
                image = x if last else mean.clamp(min=0.0).nan_to_num().round().to(torch.int64)
                zero = torch.zeros(len(x), dtype=torch.float64)
                reward = checked_reward(reward_of(image), len(x)).cpu() if asks and reward_of else zero
            return mean.to(torch.float64), reward

        mean, reward = in_parts(rows, self.micro_batch, count)
        where = f"at step {k} of {self.last}"
        refuse(not_finite(mean), f"the predicted mean is not finite {where}", "model")
        refuse(reward.isnan() | (reward == torch.inf), f"the reward is NaN or +inf {where}", "reward")
        if not last:
            refuse(reward == -torch.inf, f"the reward is -inf {where}", EARLY)
        return {"count": count, "mean": mean, "reward": reward}

    def _tilt(self, count: Tensor, k: int) -> Tensor:
        assert self.guidance is not None
        tilt = self.guidance(count, float(self.times[k])).to(torch.float64)
        if tilt.shape != count.shape:
            raise ShapeError(f"guidance must return shape {tuple(count.shape)}, not {tuple(tilt.shape)}")
        refuse(not_finite(tilt), f"guidance is not finite at step {k + 1} of {self.last}", "guidance")
        return tilt

    def _total(self, x: dict[str, Tensor], k: int, total: Tensor, history: Tensor) -> tuple[Tensor, Tensor]:
        if k == self.last:
            return x["reward"], history
        return POTENTIALS[self.potential][0](float(self.strength[k]) * x["reward"], total, history)

    def _info(self, x: dict[str, Tensor], k: int) -> dict[str, float]:
        info = {"noise_level": 1 - math.exp(-float(self.times[k]))}
        return {**info, "reward": float(x["reward"].mean())} if self.reward is not None else info
