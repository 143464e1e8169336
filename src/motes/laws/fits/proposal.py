"""Proposals fitted to particles: mixtures of Gaussian or Student components, and a law that starts from one."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from typing import Any

import torch
from torch import Tensor

from motes.kernels import State, Undefined
from motes.laws.law import Law
from motes.laws.parameters import Values
from motes.rng import Rng

ROUNDS = 10
"""Rounds of expectation maximisation a fit."""


@dataclass(frozen=True)
class Mixture:
    """A mixture of K components on R^d, Gaussian or multivariate Student, all of the same `freedom`.

    Attributes:
        weight: (K,) float64, sum 1.
        location: (K, d) float64.
        factor: (K, d, d) float64 lower triangular; a component's points are location + factor u.
        freedom: degrees of freedom of u; infinity is a standard normal u.
    """

    weight: Tensor
    location: Tensor
    factor: Tensor
    _: KW_ONLY
    freedom: float = math.inf

    def state(self) -> dict[str, Tensor]:
        """The tensors, for `Particles.shared`."""
        return {"weight": self.weight, "location": self.location, "factor": self.factor}

    def sample(self, rng: Rng, n: int) -> Tensor:
        """(n, d) draws."""
        which = rng.at("component").categorical(self.weight.log(), n)
        u = rng.at("white").normal((n, self.location.shape[1]))
        if self.freedom < math.inf:
            half = self.freedom / 2
            u = u * (half / rng.at("tail").gamma((n, 1), half)).sqrt()
        return self.location[which] + torch.einsum("nij,nj->ni", self.factor[which], u)

    def _parts(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """(K, N) log-density of each component times its weight, and (K, d, N) whitened points."""
        d, nu = z.shape[1], self.freedom
        white = torch.linalg.solve_triangular(self.factor, (z.double() - self.location[:, None]).mT, upper=False)
        square = white.square().sum(1)
        if nu < math.inf:
            constant = math.lgamma((nu + d) / 2) - math.lgamma(nu / 2) - d / 2 * math.log(nu * math.pi)
            shape = constant - (nu + d) / 2 * torch.log1p(square / nu)
        else:
            shape = -0.5 * square - d / 2 * math.log(2 * math.pi)
        scale = self.factor.diagonal(dim1=1, dim2=2).log().sum(1)
        return shape + (self.weight.log() - scale)[:, None], white

    def log_density(self, z: Tensor) -> Tensor:
        """(N,) float64 nats, finite, at z (N, d)."""
        return self._parts(z)[0].logsumexp(0)

    def gradient(self, z: Tensor) -> Tensor:
        """(N, d) float64, of the log-density."""
        log_part, white = self._parts(z)
        pull = torch.linalg.solve_triangular(self.factor.mT, white, upper=True)
        if self.freedom < math.inf:
            shrink = (self.freedom + z.shape[1]) / (self.freedom + white.square().sum(1))
            pull = pull * shrink[:, None]
        return -torch.einsum("kn,kdn->nd", log_part.softmax(0), pull)

    def smoothed(self, old: Mixture, share: float, spread: float) -> Mixture:
        """Mix this mixture with `old`, component by component: `share` of this one's weights and means, `spread` of
        its covariances.
        """

        def mix(a: Tensor, b: Tensor, part: float) -> Tensor:
            return part * a + (1 - part) * b

        covariance = mix(self.factor @ self.factor.mT, old.factor @ old.factor.mT, spread)
        location, factor = mix(self.location, old.location, share), torch.linalg.cholesky(covariance)
        return Mixture(mix(self.weight, old.weight, share), location, factor, freedom=self.freedom)


def fit_mixture(
    rng: Rng,
    z: Tensor,
    weight: Tensor,
    *,
    components: int = 1,
    diagonal: bool = False,
    freedom: float = math.inf,
    old: Mixture | None = None,
) -> Mixture | None:
    """The mixture with the largest weighted likelihood of the points z (N, d), weights (N,) with sum 1.

    One component takes the weighted mean and covariance; several are found by expectation maximisation, from `old` or
    from points of z. Components are fitted as Gaussians whatever `freedom`, which then widens their tails. Correlations
    are shrunk by (d + 1) / (m + d + 1), m the effective number of a component's points.

    Returns:
        None if the points are too few (an effective number below 2) to have a scale.
    """
    z, weight, d = z.double(), weight.double(), z.shape[1]
    if float(weight.square().sum()) > 0.5:
        return None
    centre = weight @ z
    overall = _component(z, weight, diagonal)
    if overall is None:
        return None
    if components == 1:
        return Mixture(torch.ones(1, dtype=torch.float64), centre[None], overall[None], freedom=freedom)
    if old is None:
        at = rng.at("centres").categorical(weight.log(), components)
        even = torch.full((components,), 1 / components, dtype=torch.float64)
        now = Mixture(even, z[at], overall.expand(components, d, d).clone())
    else:
        now = Mixture(old.weight, old.location, old.factor)
    for _ in range(ROUNDS):
        share = now._parts(z)[0].softmax(0) * weight
        size = share.sum(1)
        location, factor = now.location.clone(), now.factor.clone()
        for k in range(components):
            if float(size[k]) > 0:
                part = share[k] / size[k]
                found = _component(z, part, diagonal) if float(part.square().sum()) < 0.5 else None
                if found is not None:  # else the component has too few points, and keeps its place
                    location[k], factor[k] = part @ z, found
        now = Mixture(size / size.sum(), location, factor)
    return Mixture(now.weight, now.location, now.factor, freedom=freedom)


def _component(z: Tensor, weight: Tensor, diagonal: bool) -> Tensor | None:
    """(d, d) a factor of the weighted covariance; None if a coordinate does not vary."""
    d, m = z.shape[1], 1 / float(weight.square().sum())
    centred = z - weight @ z
    variance = m / (m - 1) * (weight @ centred.square())
    if not bool((variance > 1e-24 * z.square().amax(0)).all()):
        return None
    if diagonal:
        return variance.sqrt().diag()
    covariance = (m / (m - 1) * m / (m + d + 1)) * (centred.T @ (weight[:, None] * centred))
    covariance.diagonal().copy_(variance)
    factor, failed = torch.linalg.cholesky_ex(covariance)
    return variance.sqrt().diag() if failed else factor


class Started(Law):
    """The same law with another reference: a fitted mixture and, as a defence, a share of the old reference.

    The reference q = (1 - share) mixture + share reference can be drawn from, and the likelihood becomes
    reference x likelihood / q, so that the normaliser and the law stay what they were. With a share above 0 it is never
    more than likelihood / share.

    References:
        Hesterberg (1995), Weighted average importance sampling and defensive mixture distributions, Technometrics
        37(2).
    """

    density: Law
    mixture: Mixture
    share: float

    def __init__(self, density: Law, mixture: Mixture, *, share: float = 0.0):
        self.density, self.mixture, self.share = density, mixture, share
        self.dim, self.dtype, self.differentiable = density.dim, density.dtype, density.differentiable
        self.compile = density.compile

    def sample(self, rng: Rng, n: int) -> Tensor:
        z = self.mixture.sample(rng.at("mixture"), n).to(self.dtype)
        if self.share == 0:
            return z
        old = rng.at("defence").uniform((n, 1)) < self.share
        return torch.where(old, self.density.sample(rng.at("reference"), n), z)

    def log_reference(self, z: Tensor, log_prior: Tensor) -> Tensor:
        """(N,) float64 nats, log q at z (N, d), where the old reference has `log_prior`."""
        fitted = self.mixture.log_density(z)
        if self.share == 0:
            return fitted
        return torch.logaddexp(fitted + math.log1p(-self.share), log_prior + math.log(self.share))

    def evaluate(self, z: Tensor, gradient: bool = False, compiled: bool | None = None) -> State:
        return self._over(z, self.density.evaluate(z, gradient, compiled), gradient)

    def trial(self, z: Tensor, gradient: bool = False, compiled: bool | None = None) -> tuple[State, Undefined | None]:
        state, undefined = self.density.trial(z, gradient, compiled)
        return self._over(z, state, gradient), undefined

    def _over(self, z: Tensor, state: State, gradient: bool) -> State:
        """The density's state at z as one over this reference."""
        prior, likelihood = state["log_prior"], state["log_likelihood"]
        reference = self.log_reference(z, prior)
        inside = (prior > -math.inf) & (likelihood > -math.inf)
        ratio = torch.where(inside, prior + likelihood - reference, -math.inf)
        out = {**state, "log_prior": reference, "log_likelihood": ratio}
        if gradient:
            pull = self.mixture.gradient(z).to(self.dtype)
            if self.share > 0:
                old = (math.log(self.share) + prior - reference).exp()[:, None].to(self.dtype)
                pull = (1 - old) * pull + old * state["prior_gradient"]
            slope = state["prior_gradient"] + state["likelihood_gradient"] - pull
            out["prior_gradient"] = torch.where(inside[:, None], pull, 0.0)
            out["likelihood_gradient"] = torch.where((ratio > -math.inf)[:, None], slope, 0.0)
        return out

    def constrain(self, z: Tensor) -> Values:
        return self.density.constrain(z)

    def unconstrain(self, values: Values) -> Tensor:
        return self.density.unconstrain(values)

    def settings(self) -> dict[str, Any]:
        return {"density": self.density.settings(), "share": self.share}
