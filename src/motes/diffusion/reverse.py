"""Reverse diffusion as a Feynman-Kac model: noise, denoising steps, and a reward that the samples are tilted by.

The unguided sampler is a Markov chain of K normal transitions (diffusion/transition.py) and ends in an image x_0. The
particles target its law tilted by exp(reward(x_0)), and the normaliser is E[exp(reward(x_0))] under that chain: exactly
for the chain as it is discretised, at any number of steps and of particles, whatever the guidance.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from motes.core.cite import Reference
from motes.core.errors import FileError, NanLogPotential, ShapeError, UnknownName, name_particles
from motes.core.model import FeynmanKac
from motes.core.particles import Particles
from motes.core.parts import in_parts
from motes.diffusion.denoiser import Denoiser
from motes.diffusion.potential import POTENTIALS, Schedule, checked_reward, strengths
from motes.diffusion.process import Process
from motes.diffusion.transition import Transitions, transitions
from motes.rng import Rng

SAMPLER = Reference(
    "song2021score",
    "Song, Sohl-Dickstein, Kingma, Kumar, Ermon, Poole",
    2021,
    "Score-Based Generative Modeling through Stochastic Differential Equations",
    "International Conference on Learning Representations",
    "the reverse diffusion",
)
STEERING = Reference(
    "singhal2025",
    "Singhal, Horvitz, Teehan, Ren, Yu, McKeown, Ranganath",
    2025,
    "A General Framework for Inference-time Scaling and Steering of Diffusion Models",
    "arXiv 2501.06848",
    "the intermediate rewards",
)
TWISTING = Reference(
    "wu2023twisted",
    "Wu, Trippe, Naesseth, Blei, Cunningham",
    2023,
    "Practical and Asymptotically Exact Conditional Sampling in Diffusion Models",
    "Advances in Neural Information Processing Systems 36",
    "the weights of guided transitions",
)

Guidance = Literal["reward"] | float | Callable[[Tensor, float], Tensor]


@dataclass(frozen=True, eq=False)
class ReverseDiffusion(FeynmanKac):
    """Samples of a diffusion model, tilted by exp(reward) and weighted for it.

    Args:
        denoiser: the model; its process must be `process`.
        process: the noising process that is walked back.
        steps: the number of steps K over the process's grid, or the falling times (K + 1,).
        reward: maps images (N, *shape) to (N,) nats; on the way it is asked about the denoised prediction. It must be
            finite there; at the end -inf excludes an image.
        guidance: what moves the mean of each transition by its variance times a gradient: None; "reward", the gradient
            of the predicted reward through the denoiser (a number multiplies it); or a function (x, t) -> like x.
            The weights make up for it exactly, so it changes the error and not the target.
        shape: the shape of one image.
        integrator: "ancestral" or "euler-maruyama", see `transition.py` for the normal law of a step.
        noise: a step's noise relative to the integrator's own; must be positive.
        schedule: how much of the predicted reward counts on the way, see `potential.strengths`.
        potential: "difference", "max" or "sum", see `potential.POTENTIALS`.
        final: the image is the "denoised" prediction at the last time, or the last "state" itself.
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
        >>> model = motes.ReverseDiffusion(denoiser, process, 20, reward=lambda x: x[:, 0], shape=(2,))
        >>> run = motes.sample(model, 1000, seed=1, progress=False)  # log E[exp(x)] = 1/2 under N(0, 1)
        >>> abs(run.log_evidence - 0.5) < 0.2
        True
    """

    denoiser: Denoiser
    process: Process
    steps: int | Tensor
    reward: Callable[[Tensor], Tensor] | None = None
    guidance: Guidance | None = None
    _: KW_ONLY
    shape: tuple[int, ...]
    integrator: str = "ancestral"
    noise: float = 1.0
    schedule: Schedule = "signal"
    potential: str = "difference"
    final: Literal["denoised", "state"] = "denoised"
    micro_batch: int | None = None
    dtype: torch.dtype = torch.float32
    device: str = "cpu"
    table: Transitions = field(init=False, repr=False)
    strength: Tensor = field(init=False, repr=False)

    domain: ClassVar[str] = "diffusion"
    quantity: ClassVar[str] = "log normaliser"

    def __post_init__(self) -> None:
        if not isinstance(self.denoiser, Denoiser):
            raise TypeError(f"give a Denoiser(model, process, predicts=...), not a {type(self.denoiser).__name__}")
        if self.denoiser.process != self.process:
            raise ValueError(f"the denoiser belongs to {self.denoiser.process}, the sampler was given {self.process}")
        if self.potential not in POTENTIALS:
            raise UnknownName("potential", self.potential, POTENTIALS)
        if self.final not in ("denoised", "state"):
            raise UnknownName("final", self.final, ("denoised", "state"))
        if isinstance(self.guidance, str) and self.guidance != "reward":
            raise UnknownName("guidance", self.guidance, ("reward", "None, a number, or a function (x, t)"))
        if self._scale and self.reward is None:
            raise ValueError("guidance by the reward needs a reward; give one, or a function (x, t) as guidance")
        table = transitions(self.process, self.steps, self.integrator, self.noise)
        object.__setattr__(self, "table", table)
        object.__setattr__(self, "strength", strengths(self.schedule, self.process, table.times))
        object.__setattr__(self, "references", tuple(self._references()))

    def init(self, rng: Rng, n: int) -> Particles:
        noise = rng.at("start").normal((n, *self.shape), dtype=self.dtype).to(self.device)
        zero = torch.zeros(n, dtype=torch.float64)
        x = self._look(noise * self.process.start_std, 0)
        history = zero + POTENTIALS[self.potential][1]
        x["total"], x["history"] = self._total(x, 0, zero, history)
        return Particles.start(x, x["total"], shared={"probe": self._probe()}, info=self._info(x, 0))

    def step(self, rng: Rng, particles: Particles) -> Particles:
        k, old = particles.t, particles.x
        xi = rng.at("noise").normal((particles.n, *self.shape), dtype=self.dtype).to(self.device)
        mean = float(self.table.keep[k]) * old["state"] + float(self.table.pull[k]) * old["denoised"]
        shift = self._shift(old, k)
        if shift is None:
            state, log_ratio = mean + float(self.table.std[k]) * xi, 0.0
        else:
            state, log_ratio = mean + float(self.table.std[k]) * (xi + shift), log_reference_over_guided(xi, shift)
        x = self._look(state, k + 1)
        x["total"], x["history"] = self._total(x, k + 1, old["total"], old["history"])
        return particles.step(x, x["total"] - old["total"] + log_ratio, info=self._info(x, k + 1))

    def done(self, particles: Particles) -> bool:
        return particles.t >= self.table.steps

    def progress(self, particles: Particles) -> float:
        return particles.t / self.table.steps

    def view(self, particles: Particles) -> Tensor:
        """The images (N, *shape): the denoised predictions on the way, x_0 at the end."""
        return particles.x["denoised"]

    def restore(self, particles: Particles) -> Particles:
        """The particles, if this model still says of them what their file says.

        Raises:
            FileError: the denoiser or the reward has changed since.
        """
        images = ("state", "denoised", "gradient")  # files hold them on the CPU
        saved = {k: v.to(self.device) if k in images else v for k, v in particles.x.items()}
        now = self._look(saved["state"], particles.t)
        for name, value in self._probe().items():
            if not torch.allclose(value, particles.shared["probe"][name], rtol=1e-3, atol=1e-3, equal_nan=True):
                raise FileError(
                    f"the {name} is not what it was when the run was saved: resume with the one it began with"
                )
        for name in ("denoised", "reward"):
            near = torch.isclose(saved[name], now[name], rtol=1e-3, atol=1e-3)
            bad = ~near.flatten(1).all(1) if near.ndim > 1 else ~near
            if bad.any():
                raise FileError(
                    f"the {name} of {name_particles(bad.nonzero().flatten().tolist())} is not what it was when the run "
                    "was saved: resume with the denoiser and the reward that began it"
                )
        return replace(particles, x=saved)

    def _probe(self) -> dict[str, Tensor]:
        """What the functions given say of two fixed images, by which a file can tell them from others."""
        image = Rng(0).at("probe").normal((2, *self.shape), dtype=self.dtype).to(self.device)
        found = {}
        with torch.no_grad():
            if self.reward is not None:
                found["reward"] = checked_reward(self.reward(image), 2)
            if callable(self.guidance):
                found["guidance"] = self.guidance(image, float(self.table.times[0]))
        return {name: value.detach().cpu() for name, value in found.items()}

    def order(self, particles: Particles) -> Tensor:
        """(N,) the reward, by which sorted resampling orders the particles (zeros where it was not asked)."""
        return particles.x["reward"] if self.reward is not None else super().order(particles)

    def settings(self) -> dict[str, Any]:
        callables = {"reward": self.reward, "guidance": self.guidance, "schedule": self.schedule}
        return {
            "denoiser": self.denoiser.settings(),
            "times": hashlib.sha256(self.table.times.numpy().tobytes()).hexdigest()[:16],
            "steps": self.table.steps,
            "shape": list(self.shape),
            **{k: "function" if callable(v) else v for k, v in callables.items()},
            **{k: getattr(self, k) for k in ("integrator", "noise", "potential", "final", "micro_batch", "device")},
            "dtype": str(self.dtype),
        }

    @property
    def _scale(self) -> float:
        """What multiplies the reward's gradient; 0 if guidance does not come from the reward."""
        if self.guidance is None or (callable(self.guidance) and not isinstance(self.guidance, str)):
            return 0.0
        return 1.0 if self.guidance == "reward" else float(self.guidance)

    def _asks(self, k: int) -> bool:
        """Whether the reward is asked at time k."""
        return self.reward is not None and (bool(self._scale) or float(self.strength[k]) != 0)

    def _references(self) -> list[Reference]:
        return [SAMPLER] + [STEERING] * (self.reward is not None) + [TWISTING] * (self.guidance is not None)

    def _look(self, state: Tensor, k: int) -> dict[str, Tensor]:
        """What is known of states at time k: their denoised prediction, its reward, and the reward's gradient."""
        last = k == self.table.steps
        t = float(self.table.times[k])
        wants_gradient = bool(self._scale) and not last
        wants_reward = self._asks(k)

        def look(x: Tensor) -> tuple[Tensor, ...]:
            x = x.detach().requires_grad_(wants_gradient)
            with torch.set_grad_enabled(wants_gradient):
                image = x if last and self.final == "state" else self.denoiser.data(x, t)
                zero = torch.zeros(len(x), dtype=torch.float64, device=x.device)
                reward = checked_reward(self.reward(image), len(x)) if wants_reward and self.reward else zero
                gradient = (_gradient(reward, x),) if wants_gradient else ()
            return image.detach(), reward.detach().cpu(), *gradient

        image, reward, *gradient = in_parts(look, self.micro_batch, state)
        where = f"at step {k} of {self.table.steps} (t={t:.4g})"
        _refuse(_not_finite(image), f"the denoised prediction is not finite {where}", "model")
        _refuse(reward.isnan() | (reward == torch.inf), f"the reward is NaN or +inf {where}", "reward")
        if not last:
            mend = 'reward: before the end it would kill what may end well; schedule="end" asks about final images only'
            _refuse(reward == -torch.inf, f"the reward is -inf {where}", mend)
        x = {"state": state, "denoised": image, "reward": reward}
        if gradient:
            _refuse(_not_finite(gradient[0]), f"the gradient of the reward is not finite {where}", "reward")
            x["gradient"] = gradient[0]
        return x

    def _total(self, x: dict[str, Tensor], k: int, total: Tensor, history: Tensor) -> tuple[Tensor, Tensor]:
        """The log-potential of each path up to time k, and the history that the next one needs."""
        if k == self.table.steps:
            return x["reward"], history
        return POTENTIALS[self.potential][0](float(self.strength[k]) * x["reward"], total, history)

    def _shift(self, x: dict[str, Tensor], k: int) -> Tensor | None:
        """How far guidance moves the mean of step k + 1, in standard deviations of its noise, (N, *shape)."""
        if self.guidance is None:
            return None
        std = float(self.table.std[k])
        if self._scale:
            return std * self._scale * float(self.strength[k + 1]) * x["gradient"]
        if not callable(self.guidance):
            return None
        state = x["state"]
        push = self.guidance(state, float(self.table.times[k]))
        if push.shape != state.shape:
            raise ShapeError(f"guidance returned shape {tuple(push.shape)} for states of shape {tuple(state.shape)}")
        _refuse(_not_finite(push), f"guidance is not finite at step {k + 1} of {self.table.steps}", "guidance")
        return std * push.to(state)

    def _info(self, x: dict[str, Tensor], k: int) -> dict[str, float]:
        info = {"noise_level": float(self.process.sigma(self.table.times[k]))}
        return {**info, "reward": float(x["reward"].mean())} if self._asks(k) else info


def log_reference_over_guided(xi: Tensor, shift: Tensor) -> Tensor:
    """(N,) log of N(xi + shift; 0, I) / N(xi; 0, I), nats: what a transition with its mean moved owes the reference.

    The discrete form of Girsanov's theorem, exact at any step size; xi is the noise drawn, both are (N, ...) in
    standard deviations of the transition.
    """
    xi, shift = xi.to(torch.float64).flatten(1), shift.to(torch.float64).flatten(1)
    return -((xi + 0.5 * shift) * shift).sum(1).cpu()


def _gradient(reward: Tensor, x: Tensor) -> Tensor:
    if not reward.requires_grad:
        raise ValueError(
            "the reward has no gradient with respect to the image, so it cannot guide: compute it with torch "
            "operations that keep gradients, or use guidance=None or a function (x, t)"
        )
    return torch.autograd.grad(reward.sum(), x)[0]


def _not_finite(x: Tensor) -> Tensor:
    return ~torch.isfinite(x.flatten(1)).all(1).cpu()


def _refuse(bad: Tensor, what: str, whose: str) -> None:
    if bool(bad.any()):
        raise NanLogPotential(f"{what} for {name_particles(bad.nonzero().flatten().tolist())}; look at the {whose}")
