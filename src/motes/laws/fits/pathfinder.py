"""Pathfinder: Gaussians along the way to a mode, of which the best by its evidence bound is taken."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

import torch
from torch import Tensor

from motes.core.cite import Reference, cited
from motes.core.estimate.psis import Smoothed, smooth
from motes.errors import MotesError
from motes.laws.fits.lbfgs import Iterate, climb, starts
from motes.laws.fits.proposal import Mixture
from motes.laws.law import Law
from motes.rng import Rng

ROUNDS = 20
"""Rounds of expectation maximisation for the components' weights."""


@dataclass(frozen=True)
class PathGaussian:
    """What a Pathfinder has found.

    Attributes:
        mixture: one Gaussian (or Student) a path, for `motes.laws.approximation.From`.
        bound: (P,) float64 nats, the estimated evidence lower bound of each path's Gaussian; -inf where a path failed.
        log_weight: (M,) float64 nats, log p / q at draws z from an even mixture of the Gaussians.
        z: (M, d) these draws.
    """

    mixture: Mixture
    bound: Tensor
    log_weight: Tensor
    z: Tensor

    def psis(self) -> Smoothed:
        """The weights Pareto-smoothed, with k-hat and advice (needs `motes[arviz]`)."""
        return smooth(self.log_weight)


@dataclass(frozen=True)
class Pathfinder:
    """Pathfinder: on each of several paths uphill, the Gaussian approximation with the largest evidence lower bound.

    Paths start at draws of the prior and climb by BFGS. At each place z with gradient g and inverse Hessian estimate H,
    N(z + H g, H) is an approximation, and the mean of log p - log q over `draws` of its draws estimates its bound. The
    best of each path become the components of a mixture, whose weights are fitted to draws of all of them, weighed by
    p / q with weights cut off at sqrt(M) times their mean. Best places come before the mode where the mode is no
    typical point, as in funnels.

    It is an approximation of unknown error: start from it (`motes.laws.approximation.From`), or look at `Found.psis`.

    References:
        Zhang, Carpenter, Gelman & Vehtari (2022), Pathfinder: parallel quasi-Newton variational inference, JMLR
        23(306), algorithms 1, 2 and 3.
        Ionides (2008), Truncated importance sampling, Journal of Computational and Graphical Statistics 17(2).

    Args:
        paths: number of paths.
        draws: draws for a bound.
        history: pairs of differences in H.
        steps: the most steps of a path.
        pool: draws of each component for the weights.
        freedom: degrees of freedom of the components that are handed back; infinity is Gaussian.
        inflate: factor of their standard deviations.

    Raises:
        ValueError: a knob is out of its range.

    >>> import torch, motes
    >>> from motes.laws.fits.pathfinder import Pathfinder
    >>> normal = torch.distributions.Normal(torch.zeros(2, dtype=torch.float64), 1.0)
    >>> density = motes.Density(lambda x: -0.5 * ((x - 2) / 0.3).square().sum(-1), normal)
    >>> found = Pathfinder(paths=4).fit(density, motes.Rng(0))
    >>> bool((found.bound - (-6.1638)).abs().max() < 0.01)  # the log evidence, for a Gaussian
    True
    """

    paths: int = 8
    _: KW_ONLY
    draws: int = 16
    history: int = 6
    steps: int = 200
    pool: int = 128
    freedom: float = math.inf
    inflate: float = 1.0

    references: ClassVar[tuple[Reference, ...]] = (
        cited("zhang2022pathfinder", "approximations along the way to a mode"),
    )

    def __post_init__(self) -> None:
        if min(self.paths, self.draws, self.history, self.steps, self.pool) < 1:
            raise MotesError(f"paths, draws, history, steps and pool must be at least 1, not {self}")
        if not (self.freedom > 0 and self.inflate > 0):
            raise MotesError(f"freedom and inflate must be positive, not {self.freedom} and {self.inflate}")

    def fit(self, density: Law, rng: Rng) -> PathGaussian:
        """Climb, and choose.

        Raises:
            MotesError: the law has no gradients, or no path has a place with a finite bound.
        """
        rng, d = rng.at("pathfinder"), density.dim
        z = starts(density, rng, self.paths)
        bound = torch.full((self.paths,), -math.inf, dtype=torch.float64)
        location, factor = z.double(), torch.eye(d, dtype=torch.float64).repeat(self.paths, 1, 1)
        for k, place in enumerate(climb(density, z, self.steps, self.history)):
            centre, root, good = _gaussian(place)
            noise = rng.at("bound", inner=k).normal((self.paths, self.draws, d))
            value = self._bound(density, centre, root, noise)
            better = good & (value > bound) & place.moving
            bound = torch.where(better, value, bound)
            location = torch.where(better[:, None], centre, location)
            factor = torch.where(better[:, None, None], root, factor)
        good = bound > -math.inf
        if not good.any():
            raise MotesError(
                f"none of {self.paths} paths has a place with a finite bound: the likelihood is zero nearly "
                "everywhere around them; use more paths, or temper from the prior"
            )
        location, factor = location[good], factor[good]
        count = len(location)
        even = Mixture(torch.full((count,), 1 / count, dtype=torch.float64), location, factor)
        z = even.sample(rng.at("pool"), self.pool * count)
        state, _ = density.trial(z.to(density.dtype))
        log_weight = state["log_prior"] + state["log_likelihood"] - even.log_density(z)
        share = _shares(even, z, log_weight)
        mixture = Mixture(share, location, self.inflate * factor, freedom=self.freedom)
        return PathGaussian(mixture, bound, log_weight, z)

    def _bound(self, density: Law, centre: Tensor, root: Tensor, noise: Tensor) -> Tensor:
        """(P,) the mean of log p - log q over draws of N(centre, root root^T), from `noise` (P, K, d)."""
        p, k, d = noise.shape
        z = centre[:, None] + noise @ root.mT
        state, _ = density.trial(z.reshape(p * k, d).to(density.dtype))
        log_p = (state["log_prior"] + state["log_likelihood"]).view(p, k)
        log_q = -0.5 * noise.square().sum(2) - root.diagonal(dim1=1, dim2=2).log().sum(1)[:, None]
        return (log_p - log_q + 0.5 * d * math.log(2 * math.pi)).mean(1)


def _gaussian(place: Iterate) -> tuple[Tensor, Tensor, Tensor]:
    """The Gaussians at a place: centres (P, d), factors (P, d, d), and which of them are any good (P,)."""
    inverse = place.inverse.double()
    root, failed = torch.linalg.cholesky_ex(0.5 * (inverse + inverse.mT))
    centre = place.z.double() + torch.einsum("pij,pj->pi", inverse, place.gradient.double())
    good = (failed == 0) & torch.isfinite(centre).all(1) & torch.isfinite(root).flatten(1).all(1)
    good &= (root.diagonal(dim1=1, dim2=2) > 0).all(1)
    centre = torch.where(good[:, None], centre, place.z.double())
    return centre, torch.where(good[:, None, None], root, torch.eye(centre.shape[1]).double()), good


def _shares(mixture: Mixture, z: Tensor, log_weight: Tensor) -> Tensor:
    """(P,) the components' weights that make the mixture likeliest for weighted points z (M, d)."""
    alive = log_weight > -math.inf
    if not alive.any():
        return mixture.weight
    cut = log_weight.logsumexp(0) - 0.5 * math.log(len(log_weight))
    w = torch.softmax(torch.minimum(log_weight, cut), 0)
    one, share = torch.ones(1, dtype=torch.float64), mixture.weight
    each = zip(mixture.location, mixture.factor, strict=True)
    part = torch.stack([Mixture(one, m[None], f[None]).log_density(z) for m, f in each])
    for _ in range(ROUNDS):
        share = torch.softmax(part + share.log()[:, None], 0) @ w
    return share / share.sum()
