"""Non-centred coordinates, learnt from a population: scales that depend on other coordinates are taken out.

In a hierarchical model the width of some coordinates (effects) depends on others (the logarithm of their scale), so no
single step size fits: the narrow part, the neck of a funnel, is neither left nor entered. With

    x_B = m(x_A) + exp(s(x_A)) u_B,    x_i = u_i for all i outside of B,

in which m and s are smooth functions with few numbers that are fitted to the population, the law of u has one scale
everywhere. Moves are made in u, for the density of u; the law of x is the target's for any m and s.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from motes.kernels.kernel import State, Target
from motes.kernels.stationarity.dependence import Dependence
from motes.kernels.tally import Tally

Map = dict[str, Any]
"""What was fitted, for each half of the population: "centre" and "spread" (2, a + c) of the coordinates that others
depend on, coefficients "log_scale" (2, b, 1 + 2 a) and "mean" (2, b, 1 + 2 a + c), and the "limit" (2, 2, b) of log
scales; and "dependence", the indices of `Dependence.to_json`."""
ENOUGH = 10
"""Effective particles of a half for each number that is fitted to a coordinate."""
BEYOND = 4.0
"""Nats by which log scales may go on beyond those of the population."""


def fit_map(position: Tensor, weight: Tensor, dependence: Dependence) -> Map | None:
    """The map for a population at `position` (N, d) with normalised weights (N,); None where they are too few
    (or too many are copies of one another).

    Each half of the population gets the map that was fitted to the other half, as in `kernels.scale`, so that no
    particle's move depends on itself.
    """
    x = position.detach().to(torch.float64)
    half = (len(x) + 1) // 2
    fits = []
    for part in (slice(half, None), slice(0, half)):
        w = weight[part]
        total, numbers = float(w.sum()), 1 + 2 * len(dependence.parents) + len(dependence.beside)
        if total <= 0 or total**2 / float(w.square().sum()) < ENOUGH * numbers:
            return None
        fits.append(_fit(x[part], w / total, dependence))
        if not all(bool(torch.isfinite(v).all()) for v in fits[-1].values()):
            return None
    names = ("centre", "spread", "mean", "log_scale", "limit")
    return {**{k: torch.stack([f[k] for f in fits]) for k in names}, "dependence": dependence.to_json()}


def _fit(x: Tensor, w: Tensor, dependence: Dependence) -> dict[str, Tensor]:
    """Maximum likelihood of x_B given the others as normal: Fisher scoring for scales, least squares for means."""
    a, y = x[:, [*dependence.parents, *dependence.beside]], x[:, list(dependence.children)]
    size, k = 1 / float(w.square().sum()), len(dependence.parents)
    centre = w @ a
    spread = (w @ (a - centre).square()).sqrt().clamp(min=1e-12)
    wide, narrow = _features((a - centre) / spread, k)
    ridge, small = (torch.eye(f.shape[1], dtype=x.dtype) / size for f in (wide, narrow))
    ridge[0, 0] = small[0, 0] = 1e-12
    level = w @ y
    width = (w @ (y - level).square()).sqrt().clamp(min=1e-12)
    y = (y - level) / width  # so that the ridge knows the unit
    log_scale = torch.zeros(y.shape[1], narrow.shape[1], dtype=x.dtype)
    mean = torch.zeros(y.shape[1], wide.shape[1], dtype=x.dtype)
    information = 2 * torch.einsum("n,np,nq->pq", w, narrow, narrow) + small
    for _ in range(15):
        precision = torch.exp(-2 * narrow @ log_scale.mT)
        weighted = torch.einsum("n,nb,np,nq->bpq", w, precision, wide, wide)
        mean = _solved(weighted + ridge, torch.einsum("n,nb,np->bp", w, precision * y, wide)[..., None])[..., 0]
        score = ((y - wide @ mean.mT).square() * precision - 1).clamp(max=8.0)
        slope = torch.einsum("n,nb,np->bp", w, score, narrow) - log_scale * small.diagonal()
        log_scale = log_scale + _solved(information, slope.mT).mT.clamp(-1.0, 1.0)
    s = (narrow @ log_scale.mT)[w > 0]
    limit = torch.stack([s.amin(0) - BEYOND, s.amax(0) + BEYOND]) + width.log()
    mean = mean * width[:, None]
    mean[:, 0] += level
    log_scale[:, 0] += width.log()
    return {"centre": centre, "spread": spread, "mean": mean, "log_scale": log_scale, "limit": limit}


def _solved(a: Tensor, b: Tensor) -> Tensor:
    """a^-1 b; not finite where a has no inverse."""
    found, failed = torch.linalg.solve_ex(a, b)
    return torch.where((failed != 0)[..., None, None], torch.nan, found)


def _features(t: Tensor, parents: int) -> tuple[Tensor, Tensor]:
    """What means (N, 1 + 2 a + c) and log scales (N, 1 + 2 a) are linear in: 1, t and sqrt(1 + t^2) of the parents.

    Together they make lines with another slope on either side.
    """
    a = t[:, :parents]
    narrow = torch.cat([torch.ones_like(t[:, :1]), a, torch.sqrt(1 + a.square())], 1)
    return torch.cat([narrow, t[:, parents:]], 1), narrow


@dataclass(frozen=True)
class NonCentred(Target):
    """A target in the coordinates u of a map; its states hold the target's own beside it, with x as "centred".

    Args:
        base: the law of x.
        map: what `fit_map` found.
        second: (N,) whether a particle is in the second half of the population.
    """

    base: Target
    map: Map
    second: Tensor

    def _parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Mean and log scale (N, b) of the children, whether the latter may vary, and the others' t (N, a + c)."""
        h, m = self.second.long(), self.map
        t = (x[:, self._others] - m["centre"].to(x)[h]) / m["spread"].to(x)[h]
        wide, narrow = _features(t, len(self._of.parents))
        mean = torch.einsum("np,nbp->nb", wide, m["mean"].to(x)[h])
        s = torch.einsum("np,nbp->nb", narrow, m["log_scale"].to(x)[h])
        low, high = m["limit"].to(x)[h].unbind(1)
        return mean, s.clamp(low, high), (s > low) & (s < high), t

    @property
    def _of(self) -> Dependence:
        return Dependence.from_json(self.map["dependence"])

    @property
    def _others(self) -> list[int]:
        return [*self._of.parents, *self._of.beside]

    @property
    def _children(self) -> list[int]:
        return list(self._of.children)

    def enter(self, state: State) -> State:
        """The state in u of a state of the base."""
        x, b = state["position"], self._children
        mean, s, _, _ = self._parts(x)
        u = x.clone()
        u[:, b] = (x[:, b] - mean) * torch.exp(-s)
        return {**state, "position": u, "centred": x, "log_jacobian": s.sum(1).to(torch.float64)}

    def leave(self, state: State) -> State:
        """The state of the base of a state in u."""
        kept = {k: v for k, v in state.items() if k not in ("centred", "log_jacobian")}
        return {**kept, "position": state["centred"]}

    def evaluate(self, position: Tensor, gradient: bool) -> State:
        b = self._children
        mean, s, _, _ = self._parts(position)
        x = position.clone()
        x[:, b] = mean + torch.exp(s) * position[:, b]
        state = self.base.evaluate(x, gradient)
        return {**state, "position": position, "centred": x, "log_jacobian": s.sum(1).to(torch.float64)}

    def log_density(self, state: State) -> Tensor:
        return self.base.log_density({**state, "position": state["centred"]}) + state["log_jacobian"]

    def gradient(self, state: State) -> Tensor:
        u, m, h = state["position"], self.map, self.second.long()
        b, k = self._children, len(self._of.parents)
        _, s, free, t = self._parts(u)
        g = self.base.gradient({**state, "position": state["centred"]})
        out, scale, g_b = g.clone(), torch.exp(s), g[:, b]
        out[:, b] = scale * g_b
        # dx_B = dm + exp(s) u_B ds, and the logarithm of the Jacobian's determinant is the sum of s
        by_scale = torch.where(free, g_b * scale * u[:, b] + 1.0, 0.0)
        mean = torch.einsum("nb,nbp->np", g_b, m["mean"].to(u)[h])
        log_scale = torch.einsum("nb,nbp->np", by_scale, m["log_scale"].to(u)[h])
        both = mean[:, : 1 + 2 * k] + log_scale
        of_parents = both[:, 1 : 1 + k] + both[:, 1 + k :] * t[:, :k] / torch.sqrt(1 + t[:, :k].square())
        push = torch.cat([of_parents, mean[:, 1 + 2 * k :]], 1) / m["spread"].to(u)[h]
        out[:, self._others] += push
        return torch.where(torch.isfinite(out), out, 0.0)

    def part(self, index: Tensor) -> NonCentred:
        return NonCentred(self.base.part(index), self.map, self.second[index])

    def tally(self) -> Tally | None:
        return self.base.tally()
