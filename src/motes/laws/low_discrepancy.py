"""A law whose first population fills the reference evenly: quasi-Monte Carlo for the start of a sampler."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal, TransformedDistribution

from motes.core.estimate.estimate import Estimate
from motes.errors import MotesError, ShapeError, check_at_least, check_name
from motes.kernels import State, Undefined
from motes.laws.density import Density
from motes.laws.law import Law
from motes.laws.parameters import Values, as_tensor, unchecked
from motes.rng import Rng
from motes.rng.quasi import lattice, sobol


class LowDiscrepancy(Law):
    """A density whose draws from the prior are scrambled Sobol points or a shifted lattice, through quantile functions.

    Used instead of the density, `Tempering(LowDiscrepancy(density))`. Each particle by itself has the law of the
    prior, so evidence estimates keep their mean; together they are more even than independent draws, so what depends on
    the start varies less. What later random moves and resampling add stays.

    A run's standard error counts particles as independent, which overstates the part of the error that stems from the
    start. An honest error bar needs independent replicates of the points: `mean` has one for means under the prior;
    for whole runs take the spread over seeds.

    With `replicates` R, particle i is point i // R of the replicate i % R, so R is best a divisor of the number of
    particles, and for Sobol points their quotient a power of two.

    References:
        Gerber & Chopin (2015), Sequential quasi Monte Carlo, JRSS B 77(3).
        Owen (1997), Scrambled net variance for integrals of smooth functions, Annals of Statistics 25(4).

    Args:
        density: with priors that have quantile functions in torch (Normal, Uniform, Laplace, Exponential, HalfNormal,
            Cauchy, HalfCauchy, ...), or are made of such ones by transforms, or are MultivariateNormal.
        points: "sobol" or "lattice".
        replicates: independent point sets among which the particles are dealt out.

    Raises:
        MotesError: a prior has no quantile function (Gamma, Beta, StudentT, Dirichlet, ...).

    >>> import torch, motes
    >>> from motes.laws.low_discrepancy import LowDiscrepancy
    >>> normal = torch.distributions.Normal(torch.zeros(2, dtype=torch.float64), 1.0)
    >>> even = LowDiscrepancy(motes.Density(lambda x: -0.5 * ((x - 2) / 0.3).square().sum(-1), normal))
    >>> float(even.sample(motes.Rng(0), 1024).mean(0).abs().max()) < 1e-3
    True
    """

    density: Density
    replicates: int

    def __init__(self, density: Density, *, points: Literal["sobol", "lattice"] = "sobol", replicates: int = 1):
        check_name("kind of points", points, ("sobol", "lattice"))
        check_at_least(1, replicates=replicates)
        self.density, self.points, self.replicates = density, points, replicates
        self.dim, self.dtype, self.compile = density.dim, density.dtype, density.compile
        self.differentiable, self.levels = density.differentiable, density.levels
        self._blocks = [(b, unchecked(b.prior, torch.float64)) for b in density.parameters.blocks]
        for b, prior in self._blocks:
            try:
                quantile(prior, torch.full((1, _count(prior)), 0.5, dtype=torch.float64))
            except NotImplementedError as error:
                raise MotesError(
                    f"the prior of {b.name!r}, {type(b.prior).__name__}, has no quantile function in torch, so it "
                    "cannot be filled evenly: choose another prior, or draw at random without LowDiscrepancy"
                ) from error

    def sample(self, rng: Rng, n: int) -> Tensor:
        """(n, dim) points of the prior, as real vectors."""
        index = torch.arange(n) if rng.ids is None else rng.ids
        d = sum(_count(prior) for _, prior in self._blocks)
        u = torch.empty(n, d, dtype=torch.float64)
        if self.points == "lattice" and (rng.ids is not None or n % self.replicates):
            raise ShapeError(
                f"a lattice is made for its number of points: draw the whole population, of a multiple of "
                f"{self.replicates} particles, or use Sobol points"
            )
        for r in range(self.replicates):
            mine = index % self.replicates == r
            if mine.any():
                at = rng.at(f"{self.points}-{r}").shard(index[mine] // self.replicates)
                count = int(mine.sum())
                u[mine] = sobol(at, count, d) if self.points == "sobol" else lattice(at, count, d)
        z, start = [], 0
        for b, prior in self._blocks:
            stop = start + _count(prior)
            z.append(as_tensor(b.bijection.inv(quantile(prior, u[:, start:stop]))).reshape(n, -1))
            start = stop
        return torch.cat(z, 1).to(self.dtype)

    def mean(self, f: Callable[[Any], Tensor], n: int, seed: int) -> Estimate[Tensor]:
        """The mean of f under the prior from `n` points, with the standard error that the replicates' means show.

        Args:
            f: maps the parameters at n points to (n, ...).
            n: points in all; a multiple of `replicates`.
            seed: of the scrambling.

        Raises:
            MotesError: with fewer than two replicates there is no error bar, and this is what they are for.
        """
        if self.replicates < 2 or n % self.replicates:
            raise MotesError(f"an error bar needs 2 or more replicates that divide n={n}, not {self.replicates}")
        value = f(self.constrain(self.sample(Rng(seed).at("prior"), n))).to(torch.float64)
        means = value.reshape(-1, self.replicates, *value.shape[1:]).mean(0)
        return Estimate(means.mean(0), means.std(0) / math.sqrt(self.replicates), method="spread of replicates")

    def evaluate(self, z: Tensor, gradient: bool = False, compiled: bool | None = None) -> State:
        """What the density itself says at z (N, dim)."""
        return self.density.evaluate(z, gradient, compiled)

    def trial(self, z: Tensor, gradient: bool = False, compiled: bool | None = None) -> tuple[State, Undefined | None]:
        """What the density itself says at trial points z (N, dim)."""
        return self.density.trial(z, gradient, compiled)

    def constrain(self, z: Tensor) -> Values:
        """The parameters at real vectors z (N, dim)."""
        return self.density.constrain(z)

    def unconstrain(self, values: Values) -> Tensor:
        """The real vectors (N, dim) of parameters."""
        return self.density.unconstrain(values)

    def settings(self) -> dict[str, Any]:
        """What identifies this law, as JSON."""
        return {**self.density.settings(), "points": self.points, "replicates": self.replicates}


def quantile(prior: Distribution, u: Tensor) -> Tensor:
    """(n, *shape) points with the law of `prior` from uniforms u (n, k).

    Raises:
        NotImplementedError: the family has no quantile function.
    """
    if isinstance(prior, Independent):
        return quantile(prior.base_dist, u)
    if isinstance(prior, MultivariateNormal):
        shape = (*prior.batch_shape, *prior.event_shape)
        normal = torch.special.ndtri(u).reshape(-1, *shape)
        return prior.loc + (prior.scale_tril @ normal[..., None])[..., 0]
    if not prior.event_shape:
        try:
            return prior.icdf(u.reshape(-1, *prior.batch_shape))
        except NotImplementedError:
            if not isinstance(prior, TransformedDistribution):
                raise
    if isinstance(prior, TransformedDistribution):
        value = quantile(prior.base_dist, u)
        for transform in prior.transforms:
            value = as_tensor(transform(value))
        return value
    raise NotImplementedError


def _count(prior: Distribution) -> int:
    """How many uniforms a draw needs."""
    if isinstance(prior, (Independent, TransformedDistribution)) and prior.event_shape:
        return _count(prior.base_dist)
    return math.prod((*prior.batch_shape, *prior.event_shape))
