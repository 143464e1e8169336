"""Particles at different temperatures as one population: each in coordinates in which its own law is about white."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from statistics import NormalDist

import torch
from torch import Tensor

from motes.kernels import State, Sweep, Tally, Target
from motes.kernels.adaptation.scale import fit_scale
from motes.laws.law import Law

DENSE = 256
"""The most dimensions in which a scale is a matrix."""


@dataclass(frozen=True)
class Rungs(Target):
    """prior(z) likelihood(z)^b with a temperature for each point, in coordinates u with z = centre + factor u.

    A kernel that learns from all points at once then suits them all. States carry z under "place".

    Args:
        density: the law at temperature 1.
        temperature: (M,) above 0.
        centre: (M, d), or None where points are whole numbers and stay as they are.
        factor: (M, d, d) lower triangular, or (M, d).
        compiled: whether evaluations go through `torch.compile`.
    """

    density: Law
    temperature: Tensor
    centre: Tensor | None
    factor: Tensor | None
    compiled: bool = False
    counted: Tally = field(default_factory=Tally, compare=False, repr=False)

    @property
    def levels(self) -> int | None:
        return self.density.levels

    def enter(self, state: State) -> State:
        """The state with "position" in these coordinates, and where it is under "place"."""
        z = state["position"]
        if self.centre is None or self.factor is None:
            return {**state, "place": z}
        off = z - self.centre
        if self.factor.ndim == 2:
            return {**state, "position": off / self.factor, "place": z}
        u = torch.linalg.solve_triangular(self.factor, off[..., None], upper=False)[..., 0]
        return {**state, "position": u, "place": z}

    def tally(self) -> Tally:
        return self.counted

    def evaluate(self, position: Tensor, gradient: bool) -> State:
        z = position
        if self.centre is not None:
            z = self.centre + self._stretched(position)
        state, undefined = self.density.trial(z, gradient, self.compiled)
        self.counted.add(undefined)
        return {**state, "position": position, "place": z}

    def log_density(self, state: State) -> Tensor:
        return torch.addcmul(state["log_prior"], self.temperature, state["log_likelihood"])

    def gradient(self, state: State) -> Tensor:
        prior, likelihood = state["prior_gradient"], state["likelihood_gradient"]
        temperature = self.temperature.to(prior).view(-1, *[1] * (prior.ndim - 1))
        return self._pulled(torch.addcmul(prior, temperature, likelihood))

    def part(self, index: Tensor) -> Rungs:
        centre = None if self.centre is None else self.centre[index]
        factor = None if self.factor is None else self.factor[index]
        return replace(self, temperature=self.temperature[index], centre=centre, factor=factor, compiled=False)

    def hessian_vector(self, position: Tensor, vector: Tensor) -> Tensor:
        z = position if self.centre is None else self.centre + self._stretched(position)
        prior, likelihood = self.density.hessian_vector(z, self._stretched(vector))
        return self._pulled(torch.addcmul(prior, self.temperature.to(prior)[:, None], likelihood))

    def _stretched(self, u: Tensor) -> Tensor:
        if self.factor is None:
            return u
        return self.factor * u if self.factor.ndim == 2 else torch.bmm(self.factor, u[..., None])[..., 0]

    def _pulled(self, gradient: Tensor) -> Tensor:
        if self.factor is None:
            return gradient
        if self.factor.ndim == 2:
            return self.factor * gradient
        return torch.bmm(gradient[:, None], self.factor)[:, 0]


def white(position: Tensor, old: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
    """Centres (K, d) and factors, (K, d, d) or (K, d), of K populations.

    Args:
        position: (M, K, d).
        old: what a population that has collapsed keeps; None is the unit scale.
    """
    m, k, d = position.shape
    weight = torch.full((m,), 1 / m, dtype=torch.float64)
    centres, factors = [], []
    for r in range(k):
        x = position[:, r]
        unit = torch.ones(2, d, dtype=x.dtype)
        kept = unit if old is None else torch.stack([old[1][r]] * 2)
        factor = fit_scale(x, weight, "auto" if d <= DENSE else "diagonal", kept)[0]
        centres.append(x.mean(0))
        factors.append(factor.diag_embed() if d <= DENSE and factor.ndim == 1 else factor)
    return torch.stack(centres), torch.stack(factors)


def levelled(stretch: Tensor, acceptance: Tensor, power: float) -> Tensor:
    """Scales (K,) under which K populations that share a step size accept alike.

    With a = 2 Phi(-c s^(1 / power)) at scale s, one acceptance rate gives c, and c the scale that accepts as often as
    all do in the mean; a factor of 2 is the most that it changes.
    """
    quantile = NormalDist().inv_cdf
    rates = [min(max(a, 0.01), 0.99) for a in acceptance.tolist()]
    wanted = quantile(sum(rates) / len(rates) / 2)
    ratio = [min(max((wanted / quantile(a / 2)) ** power, 0.5), 2.0) for a in rates]
    new = stretch * torch.tensor(ratio, dtype=stretch.dtype)
    return new / math.exp(float(new.log().mean()))


def joined(sweeps: list[Sweep], names: tuple[str, ...] = ()) -> Sweep:
    """Several sweeps under the same parameters as one of a larger population, with these or all parts of the states."""
    diverged = [s.diverged for s in sweeps if s.diverged is not None]
    return Sweep(
        {k: torch.cat([s.state[k] for s in sweeps]) for k in names or sweeps[0].state},
        torch.cat([s.acceptance for s in sweeps]),
        sum(s.evaluations for s in sweeps) / len(sweeps),
        torch.cat(diverged) if diverged else None,
        {k: torch.cat([s.seen[k] for s in sweeps]) for k in sweeps[0].seen},
    )
