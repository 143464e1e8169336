"""The law of every kind of number, by the distance of distribution functions.

The Dvoretzky-Kiefer-Wolfowitz bound gives the threshold: P(distance > d) <= 2 exp(-2 n d^2) = alpha = 1e-6. With
n = 40000 that is d = 0.0135, and an error that moves the distribution function by twice that, 0.027, is found with
the same certainty. Each law has a wrong one beside it, off by a tenth in a parameter or so, that must be refused.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.distributions as td
from scipy import stats
from torch import Tensor

from motes.rng import Rng
from motes.rng.distributions import SAMPLERS

N = 40_000
THRESHOLD = math.sqrt(math.log(2e6) / (2 * N))
R = Rng(2024).at("law")


def distance(x: Tensor, law) -> float:
    """The largest difference between the empirical and the true distribution function (also for counts)."""
    values, counts = np.unique(x.double().numpy(), return_counts=True)
    above = np.cumsum(counts) / x.numel()
    below = above - counts / x.numel()
    left = law.cdf(values - 1) if isinstance(law.dist, stats.rv_discrete) else law.cdf(values)
    return max(np.abs(above - law.cdf(values)).max(), np.abs(below - left).max())


def t(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def full(value: float) -> Tensor:
    return torch.full((N,), value, dtype=torch.float64)


DRAWS = {
    "uniform": (lambda: R.uniform((N,)), stats.uniform(), stats.beta(1.1, 1)),
    "uniform32": (lambda: R.uniform((N,), torch.float32), stats.uniform(), stats.beta(1, 1.1)),
    "normal": (lambda: R.normal((N,)), stats.norm(), stats.norm(scale=1.12)),
    "normal32": (lambda: R.normal((N,), torch.float32), stats.norm(), stats.t(5)),
    "exponential": (lambda: R.exponential((N,)), stats.expon(), stats.expon(scale=1.1)),
    "gumbel": (lambda: R.gumbel((N,)), stats.gumbel_r(), stats.gumbel_l()),
    "gamma 0.05": (lambda: R.gamma((N,), 0.05), stats.gamma(0.05), stats.gamma(0.056)),
    "gamma 0.9": (lambda: R.gamma((N,), 0.9), stats.gamma(0.9), stats.gamma(1.0)),
    "gamma 1": (lambda: R.gamma((N,), 1.0), stats.gamma(1), stats.gamma(1.1)),
    "gamma 30": (lambda: R.gamma((N,), 30.0), stats.gamma(30), stats.gamma(30.5)),
    "gamma 1e6": (lambda: R.gamma((N,), 1e6), stats.gamma(1e6), stats.gamma(1e6 + 100)),
    "beta": (lambda: R.beta((N,), 0.5, 2.0), stats.beta(0.5, 2), stats.beta(0.5, 2.3)),
    "beta small": (lambda: R.beta((N,), 0.2, 0.3), stats.beta(0.2, 0.3), stats.beta(0.2, 0.36)),
    "dirichlet": (
        lambda: R.dirichlet((N,), t(0.3, 1.0, 2.0))[:, 1].contiguous(), stats.beta(1, 2.3), stats.beta(1, 2.0)
    ),
    "bernoulli": (lambda: R.bernoulli(full(0.3)), stats.bernoulli(0.3), stats.bernoulli(0.33)),
    "poisson 0.1": (lambda: R.poisson(full(0.1)), stats.poisson(0.1), stats.poisson(0.14)),
    "poisson 9.9": (lambda: R.poisson(full(9.9)), stats.poisson(9.9), stats.poisson(10.2)),
    "poisson 10": (lambda: R.poisson(full(10.0)), stats.poisson(10), stats.poisson(10.3)),
    "poisson 1000": (lambda: R.poisson(full(1000.0)), stats.poisson(1000), stats.poisson(1003)),
    "poisson 1e8": (lambda: R.poisson(full(1e8)), stats.poisson(1e8), stats.poisson(1e8 + 1000)),
    "binomial 12": (lambda: R.binomial(12, full(0.4)), stats.binom(12, 0.4), stats.binom(12, 0.43)),
    "binomial 500": (lambda: R.binomial(500, full(0.7)), stats.binom(500, 0.7), stats.binom(500, 0.71)),
    "binomial 1e8": (lambda: R.binomial(1e8, full(0.25)), stats.binom(10**8, 0.25), stats.binom(10**8, 0.2501)),
    "integers 6": (lambda: R.integers((N,), 6), stats.randint(0, 6), stats.randint(0, 7)),
    "integers 2^32": (lambda: R.integers((N,), 2**32) / 2**32, stats.uniform(), stats.beta(1.1, 1)),
    "categorical": (
        lambda: R.categorical(t(0.1, 0.2, 0.7).log(), N),
        stats.rv_discrete(values=([0, 1, 2], [0.1, 0.2, 0.7]))(),
        stats.rv_discrete(values=([0, 1, 2], [0.1, 0.23, 0.67]))(),
    ),
    "categorical by row": (
        lambda: R.categorical((t(0.1, 0.2, 0.7) * 1e-200).log().expand(N, 3)),
        stats.rv_discrete(values=([0, 1, 2], [0.1, 0.2, 0.7]))(),
        stats.rv_discrete(values=([0, 1, 2], [0.13, 0.2, 0.67]))(),
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", DRAWS)
def test_laws(kind: str) -> None:
    draw, law, wrong = DRAWS[kind]
    x = draw()
    assert x.shape == (N,)
    assert distance(x, law) < THRESHOLD
    assert distance(x, wrong) > THRESHOLD


def test_permutations_are_uniform() -> None:
    """All 24 orders of 4; chi-square with 23 degrees of freedom, alpha 1e-6 at 73.6; a 13 % excess of one is found."""
    n = 6000
    seen: dict[tuple[int, ...], int] = {}
    for i in range(n):
        order = tuple(R.at("p", step=i).permutation(4).tolist())
        seen[order] = seen.get(order, 0) + 1
    assert len(seen) == 24
    chi = sum((c - n / 24) ** 2 / (n / 24) for c in seen.values())
    assert chi < stats.chi2(23).isf(1e-6)


FAMILIES = {
    td.Normal: (td.Normal(t(1.0), t(2.0)), stats.norm(1, 2), stats.norm(1, 2.3)),
    td.HalfNormal: (td.HalfNormal(t(2.0)), stats.halfnorm(0, 2), stats.halfnorm(0, 2.2)),
    td.LogNormal: (td.LogNormal(t(0.2), t(0.5)), stats.lognorm(0.5, scale=math.exp(0.2)), stats.lognorm(0.5)),
    td.Laplace: (td.Laplace(t(1.0), t(2.0)), stats.laplace(1, 2), stats.laplace(1, 2.4)),
    td.Cauchy: (td.Cauchy(t(1.0), t(2.0)), stats.cauchy(1, 2), stats.cauchy(1, 2.3)),
    td.HalfCauchy: (td.HalfCauchy(t(2.0)), stats.halfcauchy(0, 2), stats.halfcauchy(0, 2.2)),
    td.Uniform: (td.Uniform(t(1.0), t(4.0)), stats.uniform(1, 3), stats.uniform(1, 3.2)),
    td.Gumbel: (td.Gumbel(t(1.0), t(2.0)), stats.gumbel_r(1, 2), stats.gumbel_r(1, 2.3)),
    td.StudentT: (td.StudentT(t(3.0), t(1.0), t(2.0)), stats.t(3, 1, 2), stats.norm(1, 2)),
    td.Exponential: (td.Exponential(t(2.0)), stats.expon(scale=0.5), stats.expon(scale=0.55)),
    td.Gamma: (td.Gamma(t(1.5), t(2.0)), stats.gamma(1.5, scale=0.5), stats.gamma(1.5, scale=0.55)),
    td.Chi2: (td.Chi2(t(3.0)), stats.chi2(3), stats.chi2(3.3)),
    td.InverseGamma: (td.InverseGamma(t(2.0), t(3.0)), stats.invgamma(2, scale=3), stats.invgamma(2, scale=3.3)),
    td.Weibull: (td.Weibull(t(2.0), t(1.5)), stats.weibull_min(1.5, scale=2), stats.weibull_min(1.5, scale=2.2)),
    td.Pareto: (td.Pareto(t(2.0), t(1.5)), stats.pareto(1.5, scale=2), stats.pareto(1.7, scale=2)),
    td.FisherSnedecor: (td.FisherSnedecor(t(4.0), t(7.0)), stats.f(4, 7), stats.f(7, 4)),
    td.Beta: (td.Beta(t(0.5), t(2.0)), stats.beta(0.5, 2), stats.beta(2, 0.5)),
    td.Bernoulli: (td.Bernoulli(t(0.3)), stats.bernoulli(0.3), stats.bernoulli(0.34)),
    td.Binomial: (td.Binomial(torch.tensor([20]), t(0.3)), stats.binom(20, 0.3), stats.binom(20, 0.32)),
    td.Poisson: (td.Poisson(t(20.0)), stats.poisson(20), stats.poisson(20.5)),
    td.NegativeBinomial: (td.NegativeBinomial(t(5.0), t(0.3)), stats.nbinom(5, 0.7), stats.nbinom(5, 0.66)),
    td.Geometric: (td.Geometric(t(0.3)), stats.geom(0.3, -1), stats.geom(0.34, -1)),
    td.VonMises: (td.VonMises(t(0.0), t(2.0)), stats.vonmises(2), stats.vonmises(1.6)),
}


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.__name__)
def test_families(family: type) -> None:
    d, law, wrong = FAMILIES[family]
    x = R.sample(d, N)
    assert x.shape == (N, 1) and x.dtype == d.mean.dtype
    assert bool(d.support.check(x).all()) and bool(d.log_prob(x).isfinite().all())
    assert distance(x.flatten(), law) < THRESHOLD
    assert distance(x.flatten(), wrong) > THRESHOLD


def test_kumaraswamy() -> None:
    x = R.sample(td.Kumaraswamy(t(2.0), t(3.0)), N).flatten()
    assert distance(1 - (1 - x**2) ** 3, stats.uniform()) < THRESHOLD
    assert distance(1 - (1 - x**3) ** 2, stats.uniform()) > THRESHOLD
    assert bool(((x > 0) & (x < 1)).all())


@pytest.mark.parametrize("kappa", [1e-7, 0.3, 60.0, 1e5])
def test_von_mises_at_every_concentration(kappa: float) -> None:
    x = R.sample(td.VonMises(t(1.0), t(kappa)), N).flatten()
    # relative to its location, wrapped back
    x = torch.remainder(x - 1.0 + math.pi, 2 * math.pi) - math.pi
    assert distance(x, stats.vonmises(kappa)) < THRESHOLD
    assert distance(x, stats.vonmises(kappa * 1.3 + 0.1)) > THRESHOLD


def test_joint_laws_of_vectors() -> None:
    """Projections of correlated normals are normal; the marginals of the other vector laws are those they must be."""
    tril = torch.tensor([[1.0, 0.0], [0.8, 0.6]], dtype=torch.float64)
    factor, diagonal = torch.tensor([[1.0], [0.8]], dtype=torch.float64), t(0.01, 0.36)
    for d in (
        td.MultivariateNormal(t(1.0, 2.0), scale_tril=tril),
        td.LowRankMultivariateNormal(t(1.0, 2.0), factor, diagonal),
    ):
        x = R.sample(d, N)
        a = t(2.0, -1.0)
        sd = float((a @ d.covariance_matrix @ a).sqrt())
        assert distance((x - d.mean) @ a, stats.norm(0, sd)) < THRESHOLD
        assert distance((x - d.mean) @ a, stats.norm(0, math.sqrt(5))) > THRESHOLD  # the twin: no correlation
    counts = R.sample(td.Multinomial(9, t(0.2, 0.3, 0.5)), N)
    assert bool((counts.sum(-1) == 9).all())
    assert distance(counts[:, 1].contiguous(), stats.binom(9, 0.3)) < THRESHOLD
    one_hot = R.sample(td.OneHotCategorical(t(0.2, 0.3, 0.5)), N)
    assert bool((one_hot.sum(-1) == 1).all())
    assert distance(one_hot[:, 1].contiguous(), stats.bernoulli(0.3)) < THRESHOLD
    points = R.sample(td.Dirichlet(t(0.3, 1.0, 2.0)), N)
    assert distance(points[:, 2].contiguous(), stats.beta(2, 1.3)) < THRESHOLD
    assert float((points.sum(-1) - 1).abs().max()) < 1e-12
    mixture = td.MixtureSameFamily(td.Categorical(t(0.3, 0.7)), td.Normal(t(-1.0, 2.0), t(1.0, 0.5)))
    x = R.sample(mixture, N)
    assert distance(mixture.cdf(x), stats.uniform()) < THRESHOLD
    swapped = td.MixtureSameFamily(td.Categorical(t(0.7, 0.3)), td.Normal(t(-1.0, 2.0), t(1.0, 0.5)))
    assert distance(swapped.cdf(x), stats.uniform()) > THRESHOLD


def test_every_registered_family_has_a_law_test() -> None:
    elsewhere = {
        td.Kumaraswamy, td.MultivariateNormal, td.LowRankMultivariateNormal, td.Multinomial, td.OneHotCategorical,
        td.Dirichlet, td.MixtureSameFamily, td.Independent, td.Categorical,
    }  # fmt: skip
    assert {f for f in SAMPLERS if f.__module__.startswith("torch.")} == set(FAMILIES) | elsewhere


def test_tails_of_the_normal() -> None:
    """4 million numbers: the count beyond 4 standard deviations is Poisson, mean 265.7; alpha 1e-6 either side."""
    x = R.at("tail").normal((1 << 21, 2))
    beyond = int((x.abs() > 4).sum())
    low, high = stats.poisson(2 * stats.norm.sf(4) * x.numel()).ppf([5e-7, 1 - 5e-7])
    assert low <= beyond <= high
    assert 4.5 < float(x.abs().max()) < 6.5  # the broken twin: 32-bit Box-Muller by cells stops at 6.6, CLT of 12 at 6
