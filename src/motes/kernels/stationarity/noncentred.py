"""Non-centred coordinates, learnt from a population: scales that depend on other coordinates are taken out.

In a hierarchical model the width of some coordinates (effects) depends on others (the logarithm of their scale), so no
single step size fits: the narrow part, the neck of a funnel, is neither left nor entered. With

    x_B = m(x_A) + exp(s(x_A)) u_B,    x_i = u_i for all i outside of B,

in which m and s are smooth functions with few numbers that are fitted to the population (`noncentred_fit.py`), the law
of u has one scale everywhere. Moves are made in u, for the density of u; the law of x is the target's for any m and s.
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
depend on, coefficients "log_scale" (2, b, 1 + 2 a) and "mean" (2, b, 3 + 2 c), the "unit" (2, b) of log scales in the
features of means, and the "limit" (2, 2, b) of log scales; and "dependence", the indices of `Dependence.to_json`."""
BEYOND = 4.0
"""Nats by which log scales may go on beyond those of the population."""


def narrow(t: Tensor) -> Tensor:
    """(N, 1 + 2 a) what log scales are linear in: 1, t and sqrt(1 + t^2) of the parents (N, a), two slopes each."""
    return torch.cat([torch.ones_like(t[:, :1]), t, torch.sqrt(1 + t.square())], 1)


def wide(s: Tensor, t: Tensor) -> Tensor:
    """(N, b, 3 + 2 c) what the means of children with log scales s (N, b) are linear in, t (N, c) those beside.

    1, e^s, e^2s, t and t e^2s. Where a scale vanishes, the mean is then linear in what stands beside alone, as that of
    an effect around its location, and what is fitted in the wide part does not reach into the neck.
    """
    e = torch.exp(s)[..., None]
    square, beside = e.square(), t[:, None].expand(-1, s.shape[1], -1)
    return torch.cat([torch.ones_like(e), e, square, beside, beside * square], 2)


@dataclass(frozen=True)
class NonCentred(Target):
    """A target in the coordinates u of a map; its states hold the target's own beside it, with x as "centred".

    Args:
        base: the law of x.
        map: what `noncentred_fit.fit_map` found.
        second: (N,) whether a particle is in the second half of the population.
    """

    base: Target
    map: Map
    second: Tensor

    def _of(self, x: Tensor) -> tuple[dict[str, Tensor], Dependence]:
        """The numbers of the map, those of each particle's half, and which coordinates they are of."""
        numbers = {k: v.to(x)[self.second.long()] for k, v in self.map.items() if k != "dependence"}
        return numbers, Dependence.from_json(self.map["dependence"])

    def _parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log scale (N, b) of the children."""
        m, of = self._of(x)
        t = (x[:, [*of.parents, *of.beside]] - m["centre"]) / m["spread"]
        low, high = m["limit"].unbind(1)
        s = torch.einsum("np,nbp->nb", narrow(t[:, : len(of.parents)]), m["log_scale"]).clamp(low, high)
        features = wide(torch.minimum(s, high - BEYOND) - m["unit"], t[:, len(of.parents) :])
        return torch.einsum("nbp,nbp->nb", features, m["mean"]), s

    @property
    def _children(self) -> list[int]:
        return list(Dependence.from_json(self.map["dependence"]).children)

    def enter(self, state: State) -> State:
        """The state in u of a state of the base."""
        x, b = state["position"], self._children
        mean, s = self._parts(x)
        u = x.clone()
        u[:, b] = (x[:, b] - mean) * torch.exp(-s)
        return {**state, "position": u, "centred": x, "log_jacobian": s.sum(1).to(torch.float64)}

    def leave(self, state: State) -> State:
        """The state of the base of a state in u."""
        kept = {k: v for k, v in state.items() if k not in ("centred", "log_jacobian")}
        return {**kept, "position": state["centred"]}

    def evaluate(self, position: Tensor, gradient: bool) -> State:
        b = self._children
        mean, s = self._parts(position)
        x = position.clone()
        x[:, b] = mean + torch.exp(s) * position[:, b]
        state = self.base.evaluate(x, gradient)
        return {**state, "position": position, "centred": x, "log_jacobian": s.sum(1).to(torch.float64)}

    def log_density(self, state: State) -> Tensor:
        return self.base.log_density({**state, "position": state["centred"]}) + state["log_jacobian"]

    def gradient(self, state: State) -> Tensor:
        u = state["position"]
        m, of = self._of(u)
        k, b = len(of.parents), list(of.children)
        t = (u[:, [*of.parents, *of.beside]] - m["centre"]) / m["spread"]
        a, c = t[:, :k], t[:, k:]
        low, high = m["limit"].unbind(1)
        s = torch.einsum("np,nbp->nb", narrow(a), m["log_scale"])
        free, s = (s > low) & (s < high), s.clamp(low, high)
        inside, e = s <= high - BEYOND, torch.exp(torch.minimum(s, high - BEYOND) - m["unit"])
        g = self.base.gradient({**state, "position": state["centred"]})
        out, g_b, scale = g.clone(), g[:, b], torch.exp(s)
        out[:, b] = scale * g_b
        # dx_B = dm + exp(s) u_B ds, and the logarithm of the Jacobian's determinant is the sum of s
        linear, bent = m["mean"][:, :, 3:].chunk(2, 2)
        by_s = m["mean"][:, :, 1] * e + 2 * e.square() * (m["mean"][:, :, 2] + torch.einsum("nc,nbc->nb", c, bent))
        to_s = torch.where(free, g_b * (torch.where(inside, by_s, 0.0) + scale * u[:, b]) + 1.0, 0.0)
        slope = (
            m["log_scale"][:, :, 1 : 1 + k] + m["log_scale"][:, :, 1 + k :] * (a / torch.sqrt(1 + a.square()))[:, None]
        )
        of_parents = torch.einsum("nb,nbk->nk", to_s, slope)
        of_beside = torch.einsum("nb,nbc->nc", g_b, linear + bent * e.square()[..., None])
        out[:, [*of.parents, *of.beside]] += torch.cat([of_parents, of_beside], 1) / m["spread"]
        return torch.where(torch.isfinite(out), out, 0.0)

    def part(self, index: Tensor) -> NonCentred:
        return NonCentred(self.base.part(index), self.map, self.second[index])

    def tally(self) -> Tally | None:
        return self.base.tally()
