"""Asking the model, the reward, the twist and the guidance about a population, once each and in parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from motes.core.micro_batches import in_parts
from motes.diffusion.arguments import check_networks
from motes.diffusion.denoisers.denoiser import Denoiser
from motes.diffusion.evaluation.look import Guidance, Look, Twist, blamed, not_finite, refuse
from motes.diffusion.evaluation.potential import checked_reward
from motes.diffusion.processes.transition import Transitions
from motes.errors import FileError, ShapeError, name_particles
from motes.rng import Rng

EARLY = (
    'reward: before the end it would kill what may end well; ReverseDiffusion with schedule="end" asks about final '
    "images only"
)


@dataclass(frozen=True)
class Observer:
    """What is known of states at each time of a sampler.

    Args:
        denoiser, table: the model and the steps.
        reward: maps images (N, *shape) to (N,) nats, or None.
        strength: (K + 1,) how much of the predicted reward counts at each time.
        twist: what a path is worth before its end, instead of the predicted reward; or None.
        guidance: what moves the means; or None.
        gain: (K,) what turns the gradient of a log-value into a shift of the mean of each step.
        final: whether the image at the end is the "denoised" prediction or the "state".
        micro_batch: rows a call.
        weighed: whether the sampler weighs what guidance does.
        grid: the times that looks show, where the table skips some of them; None is the table's own.
        checked: whether what is not finite is refused.
    """

    denoiser: Denoiser
    table: Transitions
    reward: Callable[[Tensor], Tensor] | None
    strength: Tensor
    twist: Twist | None
    guidance: Guidance | None
    gain: Tensor
    final: Literal["denoised", "state"] = "denoised"
    micro_batch: int | None = None
    weighed: bool = True
    grid: Tensor | None = None
    checked: bool = True

    def __post_init__(self) -> None:
        check_networks(denoiser=self.denoiser, reward=self.reward, twist=self.twist, guidance=self.guidance)

    def asks(self, k: int) -> bool:
        """Whether the reward is asked about the prediction at time k."""
        if self.reward is None or k == self.table.steps:
            return self.reward is not None
        wanted = self.guidance is not None and self.guidance.value
        return self.twist is None and (wanted or float(self.strength[k]) != 0)

    def __call__(self, rng: Rng | None, state: Tensor, k: int) -> dict[str, Tensor]:
        """The denoised prediction, its reward, the twist and the shift of the next mean, of states (N, *shape).

        Args:
            rng: the address of what guidance draws; None leaves guidance out.
            state: (N, *shape).
            k: the number of steps done.

        Returns:
            "state", "denoised", "reward" (N,) and, where there are such, "twist" (N,) and "shift" like the state.

        Raises:
            NanLogPotential: something is not finite; names particles and step.
            ShapeError: a function returned another shape.
        """
        last, t = k == self.table.steps, float(self.table.times[k])
        guidance = None if last or rng is None else self.guidance
        twist = None if last else self.twist
        graph = bool(guidance and guidance.graph) or bool(twist and twist.graph)
        asks = self.asks(k)

        def look(x: Tensor, row: Tensor) -> tuple[Tensor, ...]:
            x = x.detach().requires_grad_(graph)
            with torch.set_grad_enabled(graph):
                image = x if last and self.final == "state" else self.denoiser.data(x, t)
                zero = torch.zeros(len(x), dtype=torch.float64, device=x.device)
                reward = checked_reward(self.reward(image), len(x)) if asks and self.reward else zero
                out = [image, reward]
                if twist or guidance:
                    predicted = reward if asks else None
                    strength = float(self.strength[k + 1])
                    ahead = strength * reward if asks and not twist else None
                    seen = self._look(rng, x, row, k, image, predicted, ahead)
                    if twist:
                        value = twist(seen)
                        if value.shape != zero.shape:
                            raise ShapeError(
                                f"the twist must return one number a particle, a tensor of shape ({len(x)},), "
                                f"not {tuple(value.shape)}"
                            )
                        seen = replace(seen, log_value=value.to(torch.float64))
                        out.append(value.to(torch.float64))
                    if guidance:
                        out.append(guidance(seen))
            return tuple(o.detach() if o.ndim > 1 else o.detach().cpu() for o in out)

        image, reward, *more = in_parts(look, self.micro_batch, state, torch.arange(len(state)))
        x = {"state": state, "denoised": image, "reward": reward}
        x |= dict(zip(["twist"] * bool(twist) + ["shift"] * bool(guidance), more, strict=True))
        if self.checked:
            self._check(x, k, f"at step {k} of {self.table.steps} (t={t:.4g})")
        return x

    def probe(self, shape: tuple[int, ...], dtype: torch.dtype, device: str) -> dict[str, Tensor]:
        """What the functions given say of two fixed images, by which a file can tell them from others."""
        image, t = Rng(0).at("probe").normal((2, *shape), dtype=dtype).to(device), float(self.table.times[0])
        with torch.no_grad():
            found = {name: g.probe(image, t) for name, g in (("guidance", self.guidance), ("twist", self.twist)) if g}
            if self.reward is not None:
                found["reward"] = checked_reward(self.reward(image), 2)
        return {name: value.detach().cpu() for name, value in found.items() if value is not None}

    def recognise(self, now: dict[str, Tensor], then: dict[str, Tensor]) -> None:
        """Compare what probes say now with what a file says.

        Raises:
            FileError: the reward, the guidance or the twist has changed since.
        """
        for name, value in now.items():
            old = then.get(name)
            same = (
                old is not None
                and old.shape == value.shape
                and torch.allclose(value, old.to(value), rtol=1e-3, atol=1e-3, equal_nan=True)
            )
            if not same:
                raise FileError(
                    f"the {name} is not what it was when the run was saved: resume with the one it began with"
                )

    def restored(self, x: dict[str, Tensor], k: int, device: str) -> dict[str, Tensor]:
        """Saved particles on the device, if the model and the reward still say of them what their file says.

        Raises:
            FileError: the denoiser or the reward has changed since.
        """
        images = ("state", "denoised", "previous", "shift", "noise")  # files hold them on the CPU

        def moved(leaves: dict[str, Any]) -> dict[str, Any]:
            inner = {name: moved(v) for name, v in leaves.items() if isinstance(v, dict)}
            return {name: v.to(device) if name in images else inner.get(name, v) for name, v in leaves.items()}

        x = moved(x)
        now = self(None, x["state"], k)
        for name in ("denoised", "reward"):
            near = torch.isclose(x[name], now[name], rtol=1e-3, atol=1e-3)
            bad = ~near.flatten(1).all(1) if near.ndim > 1 else ~near
            if bad.any():
                raise FileError(
                    f"the {name} of {name_particles(bad.nonzero().flatten().tolist())} is not what it was when the run "
                    "was saved: resume with the denoiser and the reward that began it"
                )
        return x

    def _look(
        self,
        rng: Rng | None,
        x: Tensor,
        row: Tensor,
        k: int,
        image: Tensor,
        predicted: Tensor | None,
        ahead: Tensor | None,
    ) -> Look:
        times = self.table.times if self.grid is None else self.grid
        return Look(
            x,
            float(self.table.times[k]),
            float(self.table.times[k + 1]),
            k if self.grid is None else int(torch.argmin((times - self.table.times[k]).abs())),
            times,
            image,
            self.denoiser,
            self.reward,
            predicted,
            ahead,
            float(self.gain[k]),
            float(self.table.pull[k]),
            float(self.table.std[k]),
            self.weighed,
            rng or Rng(0),  # without one nothing is drawn, since guidance is left out
            row,
        )

    def _check(self, x: dict[str, Tensor], k: int, where: str) -> None:
        t = self.table.times[k]
        levels = float(self.denoiser.process.alpha(t) + self.denoiser.process.sigma(t))

        def check(bad: Tensor, what: str, whose: str) -> None:
            refuse(bad, what, blamed(x, bad, self.guidance is not None and k > 0, levels, whose))

        check(not_finite(x["denoised"]), f"the denoised prediction is not finite {where}", "model")
        reward = x["reward"]
        check(reward.isnan() | (reward == torch.inf), f"the reward is NaN or +inf {where}", "reward")
        if k < self.table.steps:
            check(reward == -torch.inf, f"the reward is -inf {where}", EARLY)
        if "twist" in x:
            check(~torch.isfinite(x["twist"]), f"the twist is not finite {where}", "twist")
        if "shift" in x:
            if x["shift"].shape != x["state"].shape:
                raise ShapeError(
                    f"guidance returned shape {tuple(x['shift'].shape)} for states of shape {tuple(x['state'].shape)}"
                )
            value = self.guidance is not None and self.guidance.value
            if value:
                what, whose = f"the gradient of the reward is not finite {where}", "reward"
            else:
                what, whose = f"guidance is not finite at step {k + 1} of {self.table.steps}", "guidance"
            check(not_finite(x["shift"]), what, whose)
