"""Asking the models, the reward, the twist and the guidance about a population, once each and in parts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from motes.core.files.resuming import must_agree
from motes.core.micro_batches import in_parts
from motes.core.particles import Particles
from motes.core.tree import map_leaves
from motes.diffusion.arguments import check_networks
from motes.diffusion.denoisers.denoiser import Denoiser
from motes.diffusion.evaluation.checks import EARLY, blamed, checked_reward, not_finite, refuse
from motes.diffusion.evaluation.context import Guidance, StepContext, Twist
from motes.diffusion.processes.process import Process
from motes.diffusion.processes.transition import Transitions
from motes.errors import ShapeError
from motes.rng import Rng

Final = Literal["denoised", "state"]


class Models(ABC):
    """The one or several models of a sampler, asked about states at its times."""

    compared: ClassVar[str]
    """What of `ask` tells, in a file, these models from others."""
    process: Process
    denoisers: tuple[Denoiser, ...]
    times: Tensor
    """(K + 1,) falling."""

    @property
    def steps(self) -> int:
        """The number of steps K."""
        return len(self.times) - 1

    @property
    def graph(self) -> bool:
        """Whether what is asked of states before the end needs their gradients, where random numbers are given."""
        return False

    @abstractmethod
    def ask(self, rng: Rng, row: Tensor, x: Tensor, k: int) -> dict[str, Tensor]:
        """What the models say of states after k steps: "denoised", like them, and what else is wanted.

        Args:
            rng, row: the address of what is drawn, and which of its particles these are.
            x: (n, *shape).
            k: the number of steps done.
        """

    @abstractmethod
    def context(self, x: Tensor, k: int, denoised: Tensor) -> StepContext:
        """What the models know of the step from k to k + 1 of states and their predictions (n, *shape)."""

    @abstractmethod
    def faults(self, x: dict[str, Tensor]) -> list[tuple[Tensor, str, str]]:
        """Which particles (N,) have what is not finite, what that is, and what to look at."""


@dataclass(frozen=True, eq=False)
class OneModel(Models):
    """A denoiser, and the steps of a sampler by it.

    Args:
        denoiser, table: the model and the steps.
        final: whether the image at the end is the "denoised" prediction or the "state".
        weighed: whether the sampler weighs what guidance does; else guidance changes the score.
        grid: the times that contexts show, where the table skips some of them; None is the table's own.
    """

    denoiser: Denoiser
    table: Transitions
    final: Final = "denoised"
    weighed: bool = True
    grid: Tensor | None = None
    process: Process = field(init=False, repr=False)
    denoisers: tuple[Denoiser, ...] = field(init=False, repr=False)
    times: Tensor = field(init=False, repr=False)
    gain: Tensor = field(init=False, repr=False)

    compared: ClassVar[str] = "denoised"

    def __post_init__(self) -> None:
        table, process = self.table, self.denoiser.process
        gain = table.std**2
        if not self.weighed:
            gain = table.pull * process.sigma(table.times[:-1]) ** 2 / process.alpha(table.times[:-1])
        object.__setattr__(self, "process", process)
        object.__setattr__(self, "denoisers", (self.denoiser,))
        object.__setattr__(self, "times", table.times)
        object.__setattr__(self, "gain", gain)

    def ask(self, rng: Rng, row: Tensor, x: Tensor, k: int) -> dict[str, Tensor]:
        last = k == self.steps and self.final == "state"
        return {"denoised": x if last else self.denoiser.data(x, float(self.times[k]))}

    def context(self, x: Tensor, k: int, denoised: Tensor) -> StepContext:
        t, grid = self.times[k], self.times if self.grid is None else self.grid
        return StepContext(
            x=x,
            t=float(t),
            s=float(self.times[k + 1]),
            step=k if self.grid is None else int(torch.argmin((grid - t).abs())),
            times=grid,
            denoised=denoised,
            denoiser=self.denoiser,
            gain=float(self.gain[k]),
            pull=float(self.table.pull[k]),
            std=float(self.table.std[k]),
            weighed=self.weighed,
        )

    def faults(self, x: dict[str, Tensor]) -> list[tuple[Tensor, str, str]]:
        return [(not_finite(x["denoised"]), "the denoised prediction is not finite", "model")]


@dataclass(frozen=True, eq=False)
class Evaluator:
    """What is known of states at each time of a sampler.

    Args:
        models: what is asked for predictions, with the times.
        reward: maps images (N, *shape) to (N,) nats, or None.
        strength: (K + 1,) how much of the predicted reward counts at each time.
        twist: what a path is worth before its end, instead of the predicted reward; or None.
        guidance: what moves the means; or None.
        micro_batch: rows a call.
        checked: whether what is not finite is refused.
    """

    models: Models
    reward: Callable[[Tensor], Tensor] | None
    strength: Tensor
    twist: Twist | None = None
    guidance: Guidance | None = None
    micro_batch: int | None = None
    checked: bool = True

    def __post_init__(self) -> None:
        check_networks(denoiser=self.models.denoisers, reward=self.reward, twist=self.twist, guidance=self.guidance)

    def asks(self, k: int) -> bool:
        """Whether the reward is asked about the prediction at time k."""
        if self.reward is None or k == self.models.steps:
            return self.reward is not None
        wanted = self.guidance is not None and self.guidance.value
        return self.twist is None and (wanted or float(self.strength[k]) != 0)

    def __call__(self, rng: Rng | None, state: Tensor, k: int) -> dict[str, Tensor]:
        """The denoised prediction, its reward, the twist and the shift of the next mean, of states (N, *shape).

        Args:
            rng: the address of what models and guidance draw; None leaves guidance out.
            state: (N, *shape).
            k: the number of steps done.

        Returns:
            "state", what the models say ("denoised", ...), "reward" (N,) and, where there are such, "twist" (N,) and
            "shift" like the state.

        Raises:
            NanLogPotential: something is not finite; names particles and step.
            ShapeError: a function returned another shape.
        """
        last, address, asks = k == self.models.steps, rng or Rng(0), self.asks(k)
        guidance = None if last or rng is None else self.guidance
        twist = None if last else self.twist
        graph = self.models.graph and not last and rng is not None
        graph = graph or bool(guidance and guidance.graph) or bool(twist and twist.graph)

        def part(x: Tensor, row: Tensor) -> dict[str, Tensor]:
            x = x.detach().requires_grad_(graph)
            with torch.set_grad_enabled(graph):
                found = self.models.ask(address, row, x, k)
                image, reward = found["denoised"], torch.zeros(len(x), dtype=torch.float64, device=x.device)
                if asks and self.reward:
                    reward = checked_reward(self.reward(image), len(x))
                found["reward"] = reward
                if twist or guidance:
                    context = replace(
                        self.models.context(x, k, image),
                        reward=self.reward,
                        predicted=reward if asks else None,
                        log_value=float(self.strength[k + 1]) * reward if asks else None,
                        address=address,
                        row=row,
                    )
                    if twist:
                        found["twist"] = checked_reward(twist(context), len(x), "twist")
                        context = replace(context, log_value=found["twist"])
                    if guidance:
                        found["shift"] = guidance(context)
            return {name: v.detach() if v.ndim > 1 else v.detach().cpu() for name, v in found.items()}

        x = {"state": state, **in_parts(part, self.micro_batch, state, torch.arange(len(state)))}
        if self.checked:
            self._check(x, k)
        return x

    def worth(self, x: dict[str, Tensor], k: int) -> Tensor:
        """(N,) what paths are thought to be worth after k steps, nats: in the end their reward."""
        if k == self.models.steps:
            return x["reward"]
        return x["twist"] if "twist" in x else float(self.strength[k]) * x["reward"]

    def probe(self, state: Tensor) -> dict[str, Tensor]:
        """What the functions given say of two fixed images like states, by which a file can tell them from others."""
        image, t = Rng(0).at("probe").normal((2, *state.shape[1:]), dtype=state.dtype), float(self.models.times[0])
        image = image.to(state.device)
        with torch.no_grad():
            found = {name: g.probe(image, t) for name, g in (("guidance", self.guidance), ("twist", self.twist)) if g}
            if self.reward is not None:
                found["reward"] = checked_reward(self.reward(image), 2)
        return {name: value.detach().cpu() for name, value in found.items() if value is not None}

    def restored(self, particles: Particles, device: str, probe: dict[str, Tensor] | None = None) -> Particles:
        """Saved particles on the device, if what they were asked of still says of them what their file says.

        Args:
            particles: of the file.
            device: of the states.
            probe: what `probe` said, where the sampler has saved that.

        Raises:
            FileError: a denoiser, the reward, the guidance or the twist has changed since.
        """
        x = map_leaves(lambda leaf: leaf.to(device) if leaf.ndim > 1 else leaf, particles.x)
        if probe is not None:
            for name, value in self.probe(x["state"]).items():
                must_agree(f"answer of the {name}", value, probe.get(name), "the one that began it", rows=False)
        now = self(None, x["state"], particles.t)
        for name in (self.models.compared, "reward"):
            must_agree(name, now[name], x[name], "the denoiser and the reward that began it")
        return replace(particles, x=x)

    def _check(self, x: dict[str, Tensor], k: int) -> None:
        models, t = self.models, self.models.times[k]
        where = f"at step {k} of {models.steps} (t={float(t):.4g})"
        levels = float(models.process.alpha(t) + models.process.sigma(t))

        def check(bad: Tensor, what: str, whose: str) -> None:
            refuse(bad, what, blamed(x, bad, self.guidance is not None and k > 0, levels, whose))

        for bad, what, whose in models.faults(x):
            check(bad, f"{what} {where}", whose)
        reward = x["reward"]
        check(reward.isnan() | (reward == torch.inf), f"the reward is NaN or +inf {where}", "reward")
        if k < models.steps:
            check(reward == -torch.inf, f"the reward is -inf {where}", EARLY)
        if "twist" in x:
            check(~torch.isfinite(x["twist"]), f"the twist is not finite {where}", "twist")
        if "shift" in x:
            if x["shift"].shape != x["state"].shape:
                raise ShapeError(
                    f"guidance returned shape {tuple(x['shift'].shape)} for states of shape {tuple(x['state'].shape)}"
                )
            what, whose = f"guidance is not finite at step {k + 1} of {models.steps}", "guidance"
            if self.guidance is not None and self.guidance.value:
                what, whose = f"the gradient of the reward is not finite {where}", "reward"
            check(not_finite(x["shift"]), what, whose)
