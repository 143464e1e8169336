"""Asking several models, the reward and the guidance about a population, once each and in parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from motes.core.micro_batches import in_parts
from motes.diffusion.arguments import check_networks
from motes.diffusion.composing.driftlite import divergence
from motes.diffusion.composing.weighing import Grid
from motes.diffusion.denoisers.denoiser import Denoiser
from motes.diffusion.evaluation.look import Guidance, Look, blamed, not_finite, refuse
from motes.diffusion.evaluation.potential import checked_reward
from motes.errors import FileError, ShapeError, name_particles
from motes.rng import Rng

RAN = "models, or at the exponents: states that ran away are a sign of a product that cannot be normalised"


@dataclass(frozen=True)
class Ensemble:
    """What is known of states at each time of a composition.

    Args:
        denoisers, grid: the models and the steps.
        reward: maps images (N, *shape) to (N,) nats, or None.
        strength: (K + 1,) how much of the predicted reward counts at each time.
        guidance: what moves the means; or None.
        densities: whether the models are asked for their log-densities.
        divergences: whether the divergence of each score is wanted.
        weighed: whether weights make up for guidance.
        final: whether the image at the end is the "denoised" prediction or the "state".
        micro_batch: rows a call.
    """

    denoisers: tuple[Denoiser, ...]
    grid: Grid
    reward: Callable[[Tensor], Tensor] | None
    strength: Tensor
    guidance: Guidance | None
    densities: bool
    divergences: bool
    weighed: bool
    final: Literal["denoised", "state"]
    micro_batch: int | None

    def __post_init__(self) -> None:
        check_networks(denoiser=self.denoisers, reward=self.reward, guidance=self.guidance)

    def asks(self, k: int) -> bool:
        """Whether the reward is asked about the prediction at time k."""
        if self.reward is None or k == self.grid.steps:
            return self.reward is not None
        return float(self.strength[k]) != 0 or (self.guidance is not None and self.guidance.value)

    def __call__(self, rng: Rng | None, state: Tensor, k: int) -> dict[str, Tensor]:
        """What is known of states (N, *shape) after k steps.

        Args:
            rng: the address of what guidance and divergences draw; None leaves both out.
            state: (N, *shape).
            k: the number of steps done.

        Returns:
            "state", "scores" (N, M, *shape), "denoised", "reward" (N,), "total" (N,) the reward's part of a path's
            log-weight so far and, where wanted, "log_density" (N,) sum_i w_i log q_i, "divergence" (N, M), "shift".

        Raises:
            NanLogPotential: something is not finite; names particles and step.
            ShapeError: a function returned another shape.
        """
        last, t = k == self.grid.steps, float(self.grid.times[k])
        guidance = None if last or rng is None else self.guidance
        traces = self.divergences and not last and rng is not None
        graph = traces or bool(guidance and guidance.graph)
        asks, w = self.asks(k), self.grid.exponents[k]

        def look(x: Tensor, row: Tensor) -> tuple[Tensor, ...]:
            x = x.detach().requires_grad_(graph)
            with torch.set_grad_enabled(graph):
                scores = torch.stack([d.score(x, t) for d in self.denoisers], dim=1)
                image = self.image(x, scores, k)
                asked = x if last and self.final == "state" else image
                zero = torch.zeros(len(x), dtype=torch.float64, device=x.device)
                reward = checked_reward(self.reward(asked), len(x)) if asks and self.reward else zero
                out = [scores, image, reward]
                if self.densities:
                    out.append(torch.stack([d.log_density(x, t) for d in self.denoisers], dim=1) @ w.to(x.device))
                if traces and rng is not None:
                    probe = rng.at("probe").shard(row if rng.ids is None else rng.ids[row])
                    out.append(torch.stack([divergence(s, x, probe) for s in scores.unbind(1)], dim=1))
                if guidance:
                    out.append(guidance(self._look(rng or Rng(0), x, row, k, image, reward if asks else None)))
            return tuple(o.detach() if o.ndim > 2 or o.shape == x.shape else o.detach().cpu() for o in out)

        scores, image, reward, *more = in_parts(look, self.micro_batch, state, torch.arange(len(state)))
        x = {"state": state, "scores": scores, "denoised": image, "reward": reward}
        x["total"] = reward if last else float(self.strength[k]) * reward
        names = ["log_density"] * self.densities + ["divergence"] * traces + ["shift"] * bool(guidance)
        x |= dict(zip(names, more, strict=True))
        self._check(x, k, f"at step {k} of {self.grid.steps} (t={t:.4g})")
        return x

    def restored(self, x: dict[str, Tensor], k: int, device: str) -> dict[str, Tensor]:
        """Saved particles on the device, if the models and the reward still say of them what their file says.

        Raises:
            FileError: a denoiser or the reward has changed since.
        """
        images = ("state", "scores", "denoised", "shift", "anchor", "slope")  # files hold them on the CPU
        x = {name: v.to(device) if name in images else v for name, v in x.items()}
        now = self(None, x["state"], k)
        for name in ("scores", "reward"):
            near = torch.isclose(x[name], now[name], rtol=1e-3, atol=1e-3).reshape(len(x["state"]), -1).all(1)
            if not near.all():
                raise FileError(
                    f"the {name} of {name_particles((~near).nonzero().flatten().tolist())} is not what it was when the "
                    "run was saved: resume with the denoisers and the reward that began it"
                )
        return x

    def image(self, x: Tensor, scores: Tensor, k: int) -> Tensor:
        """The predictions of the data, averaged over the models by exponent."""
        t = self.grid.times[k]
        alpha, sigma = float(self.grid.process.alpha(t)), float(self.grid.process.sigma(t))
        exponent = float(self.grid.exponents[k].sum())
        return (x + sigma**2 * self.grid.combined(k, scores) / exponent) / alpha

    def _average(self, x: Tensor, t: Tensor, k: int) -> Tensor:
        w = self.grid.exponents[k]
        return sum((float(v) * d.data(x, t) for v, d in zip(w, self.denoisers, strict=True)), 0 * x) / float(w.sum())

    def _look(self, rng: Rng, x: Tensor, row: Tensor, k: int, image: Tensor, predicted: Tensor | None) -> Look:
        grid, t = self.grid, self.grid.times[k]
        a, added = grid.bridge(k)
        variance = float(grid.churn[k]) * added / a**2
        score = float(grid.exponents[k].sum() * grid.process.alpha(t) / grid.process.sigma(t) ** 2)
        ahead = None if predicted is None else float(self.strength[k + 1]) * predicted
        return Look(
            x,
            float(t),
            float(grid.times[k + 1]),
            k,
            grid.times,
            image,
            Denoiser(lambda at, time: self._average(at, time, k), grid.process, predicts="data"),
            self.reward,
            predicted,
            ahead,
            variance,
            0.5 * float(grid.flow[k] + grid.churn[k]) * added / a * score,
            variance**0.5,
            self.weighed,
            rng,
            row,
        )

    def _check(self, x: dict[str, Tensor], k: int, where: str) -> None:
        t = self.grid.times[k]
        levels = float(self.grid.process.alpha(t) + self.grid.process.sigma(t))

        def check(bad: Tensor, what: str, whose: str) -> None:
            refuse(bad, what, blamed(x, bad, self.guidance is not None and k > 0, levels, whose))

        check(not_finite(x["scores"]), f"a score is not finite {where}", RAN)
        reward = x["reward"]
        check(reward.isnan() | (reward == torch.inf), f"the reward is NaN or +inf {where}", "reward")
        if k < self.grid.steps:
            early = (
                'reward: before the end it would kill what may end well; schedule="end" asks about final images only'
            )
            check(reward == -torch.inf, f"the reward is -inf {where}", early)
        if "log_density" in x:
            check(~torch.isfinite(x["log_density"]), f"a log-density is not finite {where}", RAN)
        if "shift" in x:
            if x["shift"].shape != x["state"].shape:
                raise ShapeError(
                    f"guidance returned shape {tuple(x['shift'].shape)} for states of shape {tuple(x['state'].shape)}"
                )
            check(not_finite(x["shift"]), f"guidance is not finite {where}", "guidance or the reward")
