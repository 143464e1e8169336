"""The error that finite steps make, by a coarse chain beside the particles: two step sizes in one run.

One particle in `coarse` carries a second path with steps of thrice the length, driven by the same noise, and guided
and weighed as its own. The two chains differ by the error of the steps, so the ratio of their normalisers, and the
difference of their means, tell how large that is: as multilevel Monte Carlo couples its levels.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from motes.core.cite import cited
from motes.diffusion.evaluation.checks import not_finite
from motes.diffusion.evaluation.evaluator import Evaluator, OneModel
from motes.diffusion.processes.transition import ORDER, Transitions, log_reference_over_guided, transitions
from motes.diffusion.short import SHORT
from motes.rng import Rng

LEVELS = cited("giles2008", "the error of the steps")
STRIDE = 3
"""How many steps a coarse one covers: the error of the coarse chain then stands out from the noise of few paths."""
FALLS = {"ancestral": 0.63, "ddim": 0.63, "exponential": 0.63, "euler-maruyama": 1.0, "multistep": 1.5}
"""The power of the step's length by which the error of an integrator is thought to fall: less than its order, since
coarse steps are often too long for the limit of small ones. For multistep 1.3 to 2.4 were seen. The means of 30 to 270
ancestral steps, on four Gaussians and mixtures with a reward, were off by 1.3 to 3.4 times what the power 1 says of
them, and by .6 to 1.7 times what .63 says."""


@dataclass(frozen=True, eq=False)
class Coarse:
    """A chain of thrice the step length that some of a sampler's particles run beside their own.

    What it needs of a particle lies in its leaf "coarse": "on" (N,) whether it has a coarse path; "state", "denoised",
    "previous" and "shift" of that path like the sampler's own; "noise", what has been drawn of its present step; "gap"
    (N,) its log-weight less the particle's own, without rewards; at the end "log_weight" (N,), the coarse path's whole
    log-weight, "base" (N,), the particle's own without its reward, and "plus" and "minus" (N,), the rewards of its
    image moved by what noise is left.

    Args:
        every: a particle has a coarse path if its number is a multiple of this.
        fine, table: the sampler's steps, and the coarse ones of `STRIDE` of them, the last one of what is left.
        evaluator: asks about coarse states.
        integrator: of the chain.
        mix: (K,) what multiplies the noise of each step in that of its coarse step.
    """

    every: int
    fine: Transitions
    table: Transitions
    evaluator: Evaluator
    integrator: str
    mix: Tensor

    @property
    def rest(self) -> float:
        """What the steps err by, as a share of the difference that steps of `STRIDE` times the length make."""
        return 1 / (STRIDE ** FALLS[self.integrator] - 1)

    @property
    def short(self) -> bool:
        """Whether the chain has too few steps to tell how their error falls."""
        return self.fine.steps < SHORT

    @property
    def least(self) -> float:
        """The same where the error falls as it does for small steps."""
        return 1 / (STRIDE ** ORDER.get(self.integrator, 1) - 1)

    @classmethod
    def beside(cls, every: int, models: OneModel, evaluator: Evaluator, integrator: str, noise: float) -> Coarse | None:
        """The coarse chain of a sampler with this model and evaluator; None if `every` is 0."""
        if every == 0:
            return None
        fine, steps = models.table, models.steps
        at = [*range(0, steps, STRIDE), steps]
        history = fine.back is not None
        table = transitions(models.process, fine.times[at], integrator=integrator, noise=noise, history=history)
        mix = fine.std.clone()
        for first, end in itertools.pairwise(at):
            for k in range(first, end):
                mix[k] *= fine.keep[k + 1 : end].prod()
            mix[first:end] /= mix[first:end].norm()
        models = replace(models, table=table, grid=fine.times)
        coarse = replace(evaluator, models=models, strength=evaluator.strength[at], checked=False)
        return cls(every, fine, table, coarse, integrator, mix)

    def begun(self, rng: Rng, x: dict[str, Tensor]) -> dict[str, Tensor]:
        """The leaf of particles that the evaluator said `x` of, at the first time: both chains begin at one place."""
        n = len(x["state"])
        ids = torch.arange(n) if rng.ids is None else rng.ids.cpu()
        leaf = {name: x[name] for name in ("state", "denoised", "previous") if name in x}
        if "shift" in x:  # drifts go by the variance of the step
            leaf["shift"] = x["shift"] * float((self.table.std[0] / self.fine.std[0]) ** 2)
        zero = torch.zeros(n, dtype=torch.float64)
        return {**leaf, "noise": torch.zeros_like(x["state"]), "on": ids % self.every == 0, "gap": zero}

    def step(self, rng: Rng, k: int, old: dict[str, Any], log_ratio: Tensor, share: float = 1.0) -> dict[str, Tensor]:
        """The leaf after step k of the sampler.

        Args:
            rng: the address of the step; the noise is the one that `guided_step` draws there.
            old: the particles before the step.
            log_ratio: (N,) what `guided_step` said of the step.
            share: what multiplied the shift.
        """
        leaf, row = old["coarse"], old["coarse"]["on"].nonzero().flatten()
        if not len(row):
            return leaf
        ids = row if rng.ids is None else rng.ids.cpu()[row]
        part = rng.shard(ids)
        j, last = k // STRIDE, k + 1 == self.fine.steps
        lands = (k + 1) % STRIDE == 0 or last
        read = leaf if lands else ("noise", "gap")  # a step on the way only adds to these
        here = {name: leaf[name].index_select(0, row.to(leaf[name].device)) for name in read}
        drawn = here["noise"]
        xi = part.at("noise").normal(tuple(drawn.shape), dtype=drawn.dtype).to(drawn.device)
        xi = drawn + float(self.mix[k]) * xi
        here["gap"] = here["gap"] - log_ratio[row]
        if not lands:
            return _written(leaf, row, {"noise": xi, "gap": here["gap"]})
        state = here["state"]
        landed, ratio = self._moved(j, here, xi, share)
        bad = not_finite(landed)
        seen = self.evaluator(part.at("coarse"), torch.where(_like(bad, landed), state, landed), j + 1)
        after = {"state": seen["state"], "denoised": seen["denoised"], "noise": torch.zeros_like(xi)}
        after |= {"previous": here["denoised"]} if "previous" in here else {}
        after |= {"shift": seen["shift"]} if "shift" in seen else {}
        for name, value in after.items():  # a path that has left the finite numbers stays where it was, without weight
            lost = not_finite(value)
            bad, after[name] = (
                bad | lost,
                torch.where(_like(lost, value), here.get(name, torch.zeros_like(value)), value),
            )
        dead = torch.full_like(ratio, -math.inf)
        after["gap"] = torch.where(bad | ratio.isnan(), dead, here["gap"] + ratio)
        return _written(leaf, row, after) | ({"reward": _spread(seen["reward"], row, leaf["gap"])} if last else {})

    def finished(self, k: int, old: dict[str, Any], new: dict[str, Any], base: Tensor) -> dict[str, Tensor]:
        """The leaf at the end, with the log-weights that tell the error.

        Args:
            k: the number of steps done before the last one.
            old, new: the particles before and after the last step.
            base: (N,) their log-weights without the reward of the final images.
        """
        leaf = dict(new["coarse"])
        reward = leaf.pop("reward", torch.zeros_like(base))
        leaf["log_weight"] = base + torch.where(reward.isnan(), -math.inf, leaf["gap"] + reward)
        row = leaf["on"].nonzero().flatten()
        leaf |= {"base": base, "plus": torch.zeros_like(base), "minus": torch.zeros_like(base)}
        if self.evaluator.reward is not None and len(row):
            at = row.to(new["denoised"].device)
            image = new["denoised"][at]
            move = self._left(k, old["denoised"][at], image).roll(1, 0)  # another's: its own is part of its image
            for name, moved in (("plus", image + move), ("minus", image - move)):
                with torch.no_grad():
                    value = self.evaluator.reward(moved).to(torch.float64).cpu()
                leaf[name] = _spread(torch.where(value.isnan(), -math.inf, value), row, base)
        return leaf

    def _moved(self, j: int, x: dict[str, Tensor], xi: Tensor, share: float) -> tuple[Tensor, Tensor]:
        """The states after the coarse step j, and the log weight of its guidance against the plain step."""
        std = float(self.table.std[j])
        ratio = torch.zeros(len(xi), dtype=torch.float64)
        if "shift" in x:
            shift = x["shift"] * (share / std)
            ratio, xi = log_reference_over_guided(xi, shift), xi + shift
        previous = x.get("previous") if j else None
        return self.table.mean(j, x["state"], x["denoised"], previous).add_(xi * std), ratio

    def _left(self, k: int, before: Tensor, image: Tensor) -> Tensor:
        """What separates images from data once noise is left at the last time: a draw of about the right covariance.

        The prediction changed in the last step by its derivative times the noise of that step, and the derivative
        times sigma^2 / alpha is the covariance of the data that is left.
        """
        process, s = self.evaluator.models.process, self.fine.times[k + 1]
        return float(process.sigma(s) / self.fine.std[k]) * (image - before)


def _like(mark: Tensor, x: Tensor) -> Tensor:
    return mark.to(x.device).reshape(-1, *[1] * (x.ndim - 1))


def _spread(value: Tensor, row: Tensor, like: Tensor) -> Tensor:
    return torch.zeros_like(like).index_copy(0, row, value)


def _written(leaf: dict[str, Tensor], row: Tensor, part: dict[str, Tensor]) -> dict[str, Tensor]:
    """The leaf with the rows of a part put in."""
    out = dict(leaf)
    for name, value in part.items():
        whole = leaf[name] if name in leaf else torch.zeros_like(leaf["state"])  # guidance that has just begun
        out[name] = whole.index_copy(0, row.to(value.device), value)
    return out
