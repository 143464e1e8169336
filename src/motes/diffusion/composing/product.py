"""Several models asked at once about the states of a composition."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from motes.diffusion.composing.driftlite import divergence
from motes.diffusion.composing.step_weights import Grid
from motes.diffusion.denoisers.denoiser import Denoiser
from motes.diffusion.evaluation.checks import not_finite
from motes.diffusion.evaluation.context import StepContext, of_rows
from motes.diffusion.evaluation.evaluator import Final, Models
from motes.diffusion.processes.process import Process
from motes.rng import Rng

RAN = "models, or at the exponents: states that ran away are a sign of a product that cannot be normalised"


@dataclass(frozen=True, eq=False)
class ModelProduct(Models):
    """The models of a product of powers, and its steps.

    Of states (N, *shape) they say "scores" (N, M, *shape), "denoised" like the states and, where wanted, "log_density"
    (N,) sum_i w_i log q_i and "divergence" (N, M).

    Args:
        denoisers, grid: the models and the steps.
        densities: whether the models are asked for their log-densities.
        divergences: whether the divergence of each score is wanted.
        weighed: whether weights make up for guidance.
        final: whether the image at the end is the "denoised" prediction or the "state".
    """

    denoisers: tuple[Denoiser, ...]
    grid: Grid
    densities: bool
    divergences: bool
    weighed: bool
    final: Final
    process: Process = field(init=False, repr=False)
    times: Tensor = field(init=False, repr=False)

    compared: ClassVar[str] = "scores"

    def __post_init__(self) -> None:
        object.__setattr__(self, "process", self.grid.process)
        object.__setattr__(self, "times", self.grid.times)

    @property
    def graph(self) -> bool:
        return self.divergences

    def ask(self, rng: Rng, row: Tensor, x: Tensor, k: int) -> dict[str, Tensor]:
        t, last = float(self.times[k]), k == self.steps and self.final == "state"
        scores = torch.stack([d.score(x, t) for d in self.denoisers], dim=1)
        found = {"scores": scores, "denoised": x if last else self._image(x, scores, k)}
        if self.densities:
            w = self.grid.exponents[k].to(x.device)
            found["log_density"] = torch.stack([d.log_density(x, t) for d in self.denoisers], dim=1) @ w
        if self.divergences and x.requires_grad:  # not at the end, nor for the particles of a file
            probe = of_rows(rng.at("probe"), row)
            found["divergence"] = torch.stack([divergence(s, x, probe) for s in scores.unbind(1)], dim=1)
        return found

    def context(self, x: Tensor, k: int, denoised: Tensor) -> StepContext:
        grid, t = self.grid, self.times[k]
        a, added = grid.bridge(k)
        variance = float(grid.churn[k]) * added / a**2
        score = float(grid.exponents[k].sum() * grid.process.alpha(t) / grid.process.sigma(t) ** 2)
        return StepContext(
            x=x,
            t=float(t),
            s=float(self.times[k + 1]),
            step=k,
            times=self.times,
            denoised=denoised,
            denoiser=Denoiser(lambda at, time: self._average(at, time, k), grid.process, predicts="data"),
            gain=variance,
            pull=0.5 * float(grid.flow[k] + grid.churn[k]) * added / a * score,
            std=variance**0.5,
            weighed=self.weighed,
        )

    def faults(self, x: dict[str, Tensor]) -> list[tuple[Tensor, str, str]]:
        found = [(not_finite(x["scores"]), "a score is not finite", RAN)]
        if self.densities:
            found.append((~torch.isfinite(x["log_density"]), "a log-density is not finite", RAN))
        return found

    def _image(self, x: Tensor, scores: Tensor, k: int) -> Tensor:
        """The predictions of the data, averaged over the models by exponent."""
        t = self.times[k]
        alpha, sigma = float(self.process.alpha(t)), float(self.process.sigma(t))
        return (x + sigma**2 * self.grid.combined(k, scores) / float(self.grid.exponents[k].sum())) / alpha

    def _average(self, x: Tensor, t: Tensor, k: int) -> Tensor:
        w = self.grid.exponents[k]
        return sum((float(v) * d.data(x, t) for v, d in zip(w, self.denoisers, strict=True)), 0 * x) / float(w.sum())
