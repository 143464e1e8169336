"""Even starting points: the right law, honest bars from replicates, less spread, and evidence that keeps its mean."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch.distributions import (
    Beta,
    Dirichlet,
    Exponential,
    Gamma,
    HalfNormal,
    Independent,
    Laplace,
    LogNormal,
    MultivariateNormal,
    Normal,
    Uniform,
)

import motes
from motes.errors import MotesError, ShapeError
from motes.laws.low_discrepancy import LowDiscrepancy

ONE = torch.ones((), dtype=torch.float64)
PRIORS = {
    "normal": Normal(ONE, 2.0),
    "uniform": Uniform(-ONE, 3.0),
    "laplace": Laplace(ONE, 0.5),
    "exponential": Exponential(2 * ONE),
    "half": HalfNormal(1.5 * ONE),
    "log": LogNormal(0.2 * ONE, 0.4),
    "vector": Independent(Normal(torch.tensor([1.0, -2.0]).double(), torch.tensor([1.0, 3.0]).double()), 1),
    "correlated": MultivariateNormal(torch.zeros(2).double(), torch.tensor([[2.0, 0.8], [0.8, 1.0]]).double()),
}


def flat(prior):
    return motes.Density(
        lambda p: torch.zeros(len(next(iter(p.values()))), dtype=torch.float64), prior, vectorised=True
    )


@pytest.mark.parametrize("points", ["sobol", "lattice"])
def test_each_family_gets_its_law(points):
    """1024 even points are within 0.01 of every distribution function; independent ones would be 0.03 to 0.04 off."""
    even = LowDiscrepancy(flat(PRIORS), points=points)
    p = even.constrain(even.sample(motes.Rng(0), 1024))
    assert isinstance(p, dict)
    cdf = {
        "normal": stats.norm(1, 2),
        "uniform": stats.uniform(-1, 4),
        "laplace": stats.laplace(1, 0.5),
        "exponential": stats.expon(scale=0.5),
        "half": stats.halfnorm(scale=1.5),
        "log": stats.lognorm(0.4, scale=math.exp(0.2)),
    }
    for name, law in cdf.items():
        assert stats.kstest(p[name].numpy(), law.cdf).statistic < 0.01, name
    assert stats.kstest(p["vector"][:, 1].numpy(), stats.norm(-2, 3).cdf).statistic < 0.01
    assert np.allclose(np.cov(p["correlated"].T.numpy()), [[2.0, 0.8], [0.8, 1.0]], atol=0.1)
    assert even.sample(motes.Rng(0), 64).shape == (64, even.dim)


def test_replicates_give_an_honest_bar():
    """E[x^2 e^-y] = (1 + 4) 2/3 under N(1, 2^2) and Exponential(2): 50 seeds of 16 replicates of 32."""
    even = LowDiscrepancy(flat({"x": PRIORS["normal"], "y": PRIORS["exponential"]}), replicates=16)
    found = [even.mean(lambda p: p["x"].square() * torch.exp(-p["y"]), 512, s) for s in range(50)]
    value, se = np.array([float(e) for e in found]) - 10 / 3, np.array([float(e.se) for e in found])
    assert abs(value.mean()) < 4.9 * value.std(ddof=1) / math.sqrt(50)
    covered = (np.abs(value) < stats.t.ppf(0.975, 15) * se).mean()
    assert 0.78 <= covered <= 1, covered
    assert 0.7 < se.mean() / value.std(ddof=1) < 1.4
    alone = math.sqrt((1 + 24 + 48) * 0.5 - (10 / 3) ** 2) / math.sqrt(512)
    assert se.mean() < alone / 3  # the broken twin: the bar of independent points is far too wide


def test_particles_keep_their_points():
    even = LowDiscrepancy(flat(PRIORS), replicates=4)
    whole = even.sample(motes.Rng(3), 128)
    ids = torch.tensor([5, 64, 101])
    assert torch.equal(even.sample(motes.Rng(3), 64), whole[:64])
    assert torch.equal(even.sample(motes.Rng(3).shard(ids), 3), whole[ids])


def test_tempering_from_even_points_keeps_the_mean_of_the_evidence():
    """The same ladder with another seed: mean of Z_hat / Z is 1; 30 seeds would show a bias of 0.9 of its spread."""
    constant = -0.5 * math.log(2 * math.pi * 0.81)
    prior = Normal(torch.zeros(2, dtype=torch.float64), 1.0)
    density = motes.Density(lambda x: (-0.5 * ((x - 1) / 0.9).square() + constant).sum(-1), prior, vectorised=True)
    truth = 2 * (-math.log(2 * math.pi * 1.81) / 2 - 0.5 / 1.81)
    spread = {}
    for name, law in (("even", LowDiscrepancy(density)), ("plain", density)):
        model = motes.Tempering(law, conditional_ess=0.3)
        frozen = model.freeze(motes.sample(model, 128, seed=99, progress=False))
        runs = [motes.sample(frozen, 128, seed=s, progress=False) for s in range(30)]
        ratio = np.exp(np.array([r.log_evidence for r in runs]) - truth)
        assert abs(ratio.mean() - 1) < 4.9 * ratio.std(ddof=1) / math.sqrt(30)
        spread[name] = ratio.std()
    assert spread["even"] < 0.6 * spread["plain"]


def test_priors_without_quantiles_are_refused_by_name():
    for prior in (Gamma(2 * ONE, 1.0), Beta(ONE, 2.0), Dirichlet(torch.ones(3).double())):
        with pytest.raises(MotesError, match=rf"'a', {type(prior).__name__}, has no quantile function"):
            LowDiscrepancy(flat({"a": prior}))
    even = LowDiscrepancy(flat({"x": PRIORS["normal"]}), points="lattice")
    with pytest.raises(ShapeError, match="whole population"):
        even.sample(motes.Rng(0).shard(torch.tensor([1])), 1)
    with pytest.raises(MotesError, match="2 or more replicates"):
        even.mean(lambda p: p["x"], 16, 0)
    with pytest.raises(ValueError, match="lattice"):
        LowDiscrepancy(flat({"x": PRIORS["normal"]}), points="halton")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least 1"):
        LowDiscrepancy(flat({"x": PRIORS["normal"]}), replicates=0)
