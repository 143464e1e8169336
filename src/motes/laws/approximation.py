"""Starting from a fitted approximation instead of the prior: the same law and evidence, with another reference."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from motes.errors import MotesError, NanLogPotential, ShapeError, check_share, name_particles
from motes.kernels import State, Undefined
from motes.laws.fits.proposal import Mixture
from motes.laws.law import Law
from motes.laws.parameters import Values
from motes.rng import Rng


class Approximation(ABC):
    """A normalised law on R^dim that can be drawn from, and whose log-density is known: a fit, a flow.

    `log_prob` must be made of torch operations on z, so that its gradient can be had.
    """

    @abstractmethod
    def sample(self, rng: Rng, n: int) -> Tensor:
        """(n, dim) draws; particle i's depends on row i of what `rng` gives alone."""

    @abstractmethod
    def log_prob(self, z: Tensor) -> Tensor:
        """(N,) nats at z (N, dim)."""


class Flow(Approximation):
    """A normalising flow, or anything else that pushes standard normal noise forward.

    Args:
        dim: the length of z.
        push: maps noise (n, dim) to z (n, dim).
        log_prob: maps z (N, dim) to (N,) nats: the law of `push` of standard normal noise.

    For a zuko flow, `flow()` is the law and its `transform` goes from z to noise: `Flow(d, flow().transform.inv,
    flow().log_prob)`. For normflows: `Flow(d, lambda u: model.forward(u), model.log_prob)` with a standard normal base.
    """

    dim: int
    push: Any
    log: Any
    dtype: torch.dtype

    def __init__(self, dim: int, push: Any, log_prob: Any, *, dtype: torch.dtype = torch.float64):
        self.dim, self.push, self.log, self.dtype = dim, push, log_prob, dtype

    def sample(self, rng: Rng, n: int) -> Tensor:
        with torch.no_grad():
            return self.push(rng.at("noise").normal((n, self.dim), dtype=self.dtype))

    def log_prob(self, z: Tensor) -> Tensor:
        return self.log(z.to(self.dtype))


class _Distribution(Approximation):
    def __init__(self, law: Distribution):
        self.law = law

    def sample(self, rng: Rng, n: int) -> Tensor:
        return rng.sample(self.law, n)

    def log_prob(self, z: Tensor) -> Tensor:
        return self.law.log_prob(z)


class _Mixture(Approximation):
    def __init__(self, mixture: Mixture):
        self.mixture = mixture

    def sample(self, rng: Rng, n: int) -> Tensor:
        return self.mixture.sample(rng, n)

    def log_prob(self, z: Tensor) -> Tensor:
        return self.mixture.log_density(z)


class From(Law):
    """The law of `density`, reached from an approximation q: the reference is q, the likelihood prior x likelihood / q.

    Reference times likelihood is what it was, and so are evidence, samples and parameters: whatever samples a law
    (`motes.Tempering(From(density, q))`) goes from q to the posterior instead of from the prior to the posterior, in
    few steps if q is close. The evidence is as exact as from the prior as long as q is positive wherever the posterior
    is; where q has lighter tails the weights have no variance. `share` of the prior, mixed into q, bounds the
    likelihood by likelihood / share (Hesterberg 1995).

    References:
        Hesterberg (1995), Weighted average importance sampling and defensive mixture distributions, Technometrics
        37(2).
        Del Moral, Doucet & Jasra (2006), Sequential Monte Carlo samplers, JRSS B 68(3), section 2.3 (any start).

    Args:
        density: what to sample, over R^d.
        q: an `Approximation` (`Flow`, what `laplace` and `pathfinder` return), a `Mixture`, or a `torch.distributions`
            object over vectors z (dim,): unconstrained parameters, as `density.unconstrain` makes them.
        share: of the density's own reference in q, in [0, 1).

    Raises:
        MotesError: the density is discrete, or q is something else.
        ShapeError: the draws or log-densities of q have another shape.
        NanLogPotential: q's log-density is NaN or +inf.

    >>> import torch, motes
    >>> from motes.laws.approximation import From
    >>> normal = torch.distributions.Normal(torch.zeros(2, dtype=torch.float64), 1.0)
    >>> density = motes.Density(lambda x: -0.5 * ((x - 2) / 0.3).square().sum(-1), normal)
    >>> q = torch.distributions.MultivariateNormal(torch.full((2,), 1.8).double(), 0.1 * torch.eye(2).double())
    >>> run = motes.sample(motes.Tempering(From(density, q)), 200, seed=0, progress=False)
    >>> len(run.trace["ess"]), abs(run.log_evidence - (2 * -1.24706 - 4 / 1.09)) < 0.1
    (2, True)
    """

    density: Law
    q: _Distribution | _Mixture | Approximation
    share: float

    def __init__(self, density: Law, q: Approximation | Mixture | Distribution, *, share: float = 0.0):
        if density.levels is not None:
            raise MotesError("From starts from a law on R^d, and this density is over whole numbers")
        check_share("[0, 1)", share=share)
        if isinstance(q, Distribution):
            q = _Distribution(q)
        elif isinstance(q, Mixture):
            q = _Mixture(q)
        elif not isinstance(q, Approximation):
            raise MotesError(
                f"q must be a motes.laws.approximation.Approximation, a Mixture or a torch.distributions object, not a "
                f"{type(q).__name__}; wrap a flow with Flow(dim, push, log_prob)"
            )
        self.density, self.q, self.share = density, q, share
        self.dim, self.dtype, self.differentiable = density.dim, density.dtype, density.differentiable
        self.compile = density.compile
        z = self.sample(Rng(0).at("probe"), 3)
        _refuse(self._reference(z, self.density.evaluate(z)["log_prior"])[1])

    def sample(self, rng: Rng, n: int) -> Tensor:
        z = self.q.sample(rng.at("start"), n).detach().to(self.dtype)
        if tuple(z.shape) != (n, self.dim):
            raise ShapeError(f"q must draw points ({n}, {self.dim}) of unconstrained parameters, not {tuple(z.shape)}")
        if self.share == 0:
            return z
        own = rng.at("defence").uniform((n, 1)) < self.share
        return torch.where(own, self.density.sample(rng.at("reference"), n), z)

    def _reference(self, z: Tensor, prior: Tensor) -> tuple[Tensor, Tensor]:
        """(N,) log q with and without the defence."""
        fitted = self.q.log_prob(z)
        if tuple(fitted.shape) != (len(z),):
            raise ShapeError(
                f"q's log_prob must return shape ({len(z)},) for {len(z)} points, not {tuple(fitted.shape)}"
            )
        fitted = fitted.to(torch.float64)
        if self.share == 0:
            return fitted, fitted
        return torch.logaddexp(fitted + math.log1p(-self.share), prior + math.log(self.share)), fitted

    def evaluate(self, z: Tensor, gradient: bool = False, compiled: bool | None = None) -> State:
        state, bad = self._over(z, self.density.evaluate(z, gradient, compiled), gradient)
        _refuse(torch.where(bad, math.nan, 0.0))
        return state

    def trial(self, z: Tensor, gradient: bool = False, compiled: bool | None = None) -> tuple[State, Undefined | None]:
        state, undefined = self.density.trial(z, gradient, compiled)
        state, bad = self._over(z, state, gradient)
        if bad.any():
            where = bad if undefined is None else bad | undefined.where
            undefined = Undefined(where, lambda: "the log-density of the start is NaN or +inf")
        return state, undefined

    def _over(self, z: Tensor, state: State, gradient: bool) -> tuple[State, Tensor]:
        """The density's state at z as one over this reference, and where (N,) that is no number."""
        prior, likelihood = state["log_prior"], state["log_likelihood"]
        if not torch.isfinite(z).all():  # of a trajectory that ran off; many distributions raise an error there
            z = torch.where(torch.isfinite(z).all(1, keepdim=True), z, 0.0)
        with torch.set_grad_enabled(gradient):
            at = z.detach().requires_grad_(gradient)
            reference, fitted = self._reference(at, prior)
            pull = torch.autograd.grad(fitted.sum(), at)[0] if gradient else None
        reference, fitted = reference.detach(), fitted.detach()
        inside = (prior > -math.inf) & (likelihood > -math.inf)
        bad = inside & ~(fitted < math.inf)
        inside, reference = inside & ~bad, torch.where(fitted < math.inf, reference, -math.inf)
        ratio = torch.where(inside & (reference > -math.inf), prior + likelihood - reference, -math.inf)
        out = {**state, "log_prior": reference, "log_likelihood": ratio}
        if pull is not None:
            if self.share > 0:
                own = (math.log(self.share) + prior - reference).exp()[:, None].to(self.dtype)
                pull = (1 - own) * pull + own * state["prior_gradient"]
            slope = state["prior_gradient"] + state["likelihood_gradient"] - pull
            out["prior_gradient"] = torch.where(torch.isfinite(pull), pull, 0.0)
            out["likelihood_gradient"] = torch.where((ratio > -math.inf)[:, None], slope, 0.0)
        return out, bad

    def hessian_vector(self, z: Tensor, vector: Tensor) -> tuple[Tensor, Tensor]:
        if self.share > 0:
            raise MotesError("From has no second derivatives with a defensive share: use share=0, or another kernel")
        prior, likelihood = self.density.hessian_vector(z, vector)
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self.q.log_prob(z).sum(), z, create_graph=True)
            if not slope.requires_grad:
                return torch.zeros_like(prior), prior + likelihood
            (own,) = torch.autograd.grad(slope, z, vector, materialize_grads=True)
        return own.detach(), prior + likelihood - own.detach()

    def constrain(self, z: Tensor) -> Values:
        return self.density.constrain(z)

    def unconstrain(self, values: Values) -> Tensor:
        return self.density.unconstrain(values)

    def settings(self) -> dict[str, Any]:
        """What identifies this law: the density's settings, and q by its log-density at a few points of its own."""
        with torch.no_grad():
            marks = [round(float(v), 6) for v in self.q.log_prob(self.q.sample(Rng(0).at("start"), 3).to(self.dtype))]
        return {"density": self.density.settings(), "start": marks, "share": self.share}


def _refuse(fitted: Tensor) -> None:
    """Log-densities (N,) of q must be numbers.

    Raises:
        NanLogPotential: one is NaN or +inf.
    """
    bad = (~(fitted < math.inf)).nonzero().flatten().tolist()
    if bad:
        raise NanLogPotential(
            f"q's log-density is NaN or +inf for {name_particles(bad)}; look for an overflow in the fit, or restrict it"
        )
