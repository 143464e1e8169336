"""Two models with known answers, in torch, for comparison with the same models in other packages."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import Beta, Gamma, MultivariateNormal, Normal

import motes
from motes.core.run import Run
from motes.laws import Density, Law
from motes.rng import Rng

ONE = torch.ones((), dtype=torch.float64)

# a linear regression with known noise: everything about it is known
X = torch.stack([torch.ones(12, dtype=torch.float64), torch.linspace(-1, 1, 12, dtype=torch.float64)], 1)
Y = 0.7 * X[:, 0] - 1.3 * X[:, 1] + 0.4 * Rng(7).at("noise").normal((12,))
WIDE, NOISE = 2.0, 0.5


def evidence(wide: float = WIDE) -> float:
    """log p(y) of y = X b + noise, b normal with standard deviation `wide`."""
    covariance = wide**2 * X @ X.T + NOISE**2 * torch.eye(12, dtype=torch.float64)
    return float(MultivariateNormal(torch.zeros(12, dtype=torch.float64), covariance).log_prob(Y))


def slopes() -> Tensor:
    """(2,) the posterior mean of b."""
    precision = X.T @ X / NOISE**2 + torch.eye(2, dtype=torch.float64) / WIDE**2
    return torch.linalg.solve(precision, X.T @ Y / NOISE**2)


# a model without a closed form, for values and gradients: y normal around a + p x with standard deviation s
T, V = X[:, 1], Y


def curved() -> Density:
    """a ~ Normal(0, 2), s ~ Gamma(3, 2), p ~ Beta(2, 3), in this order."""
    prior = {"a": Normal(0 * ONE, 2 * ONE), "s": Gamma(3 * ONE, 2 * ONE), "p": Beta(2 * ONE, 3 * ONE)}

    def log_likelihood(v: dict[str, Tensor]) -> Tensor:
        mean, s = v["a"][:, None] + v["p"][:, None] * T, v["s"][:, None]
        return (-0.5 * ((V - mean) / s).square() - s.log() - 0.5 * math.log(2 * math.pi)).sum(1)

    return Density(log_likelihood, prior, vectorised=True)


def same(law: Law, other: Law, z: Tensor, parts: bool = True) -> float:
    """The largest difference of values and gradients at z, of each part or of their sum, relative to 1 + size."""
    a, b = law.evaluate(z, True), other.evaluate(z, True)
    c, d = law.evaluate(z), other.evaluate(z)
    pairs = [(a[k], b[k]) for k in a] + [(c[k], d[k]) for k in c]
    if not parts:
        pairs = [
            (u["log_prior"] + u["log_likelihood"], v["log_prior"] + v["log_likelihood"]) for u, v in ((a, b), (c, d))
        ]
        pairs += [tuple(u["prior_gradient"] + u["likelihood_gradient"] for u in (a, b))]
    return max(float(((u - v).abs() / (1 + v.abs())).max()) for u, v in pairs)


def off(run: Run, log_evidence: float) -> float:
    """How many standard errors the log evidence is away from `log_evidence`."""
    return (run.log_evidence - log_evidence) / run.log_evidence_se


def sampled(law: Law, n: int = 1024, seed: int = 3) -> Run:
    return motes.sample(motes.Tempering(law), n, seed=seed, progress=False)


def holds(law: Law, name: str | None = "b") -> None:
    """A run on the regression finds its evidence and means: errors of 0.4 nats, and of 0.1 in a mean, show."""
    run = sampled(law)
    assert run.log_evidence_se < 0.08
    assert abs(off(run, evidence())) < 4.9
    assert abs(off(run, evidence(4 * WIDE))) > 4.9  # another prior is found out
    mean = run.mean(name)
    assert ((mean.value - slopes()).abs() < 4.9 * mean.se).all()
    assert (mean.se < 0.02).all()


def whole(law: Law, wide: float = 14, points: int = 401) -> float:
    """The integral of the reference's density over R^2, by the trapezoidal rule."""
    axis = torch.linspace(-wide, wide, points, dtype=torch.float64)
    density = law.evaluate(torch.cartesian_prod(axis, axis))["log_prior"].exp()
    return float(density.sum()) * (axis[1] - axis[0]).item() ** 2


def at_their_addresses(law: Law, wide: int = 40) -> bool:
    """Whether a particle's draw from the reference depends on its address alone: not on n, not on the shard."""
    rng = Rng(5).at("prior")
    z = law.sample(rng, wide)
    few, some = law.sample(rng, 7), torch.tensor([3, 30, 11])
    part, other = law.sample(rng.shard(some), 3), law.sample(Rng(6).at("prior"), wide)
    return bool((z[:7] == few).all() and (z[some] == part).all() and (z != other).all())
