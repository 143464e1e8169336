"""`Rng.sample`: shapes, dtypes, what is refused, and how it is extended. The laws are in test_laws.py."""

from __future__ import annotations

import math

import pytest
import torch
import torch.distributions as td
from torch import Tensor

import motes.rng
from motes.rng import Rng
from motes.rng.distributions import SAMPLERS

R = Rng(31).at("prior")


def batched(dtype: torch.dtype) -> list[td.Distribution]:
    """Every known family with a batch of shape (5, 2) or (5,), positive parameters that differ by element."""
    a = torch.linspace(0.5, 3.0, 10, dtype=dtype).reshape(5, 2)
    p = torch.linspace(0.1, 0.9, 10, dtype=dtype).reshape(5, 2)
    eye = torch.eye(2, dtype=dtype)
    return [
        td.Normal(a, a), td.HalfNormal(a), td.LogNormal(a, a), td.Laplace(a, a), td.Cauchy(a, a), td.HalfCauchy(a),
        td.Uniform(-a, a), td.Gumbel(a, a), td.StudentT(a, a, a), td.Exponential(a), td.Gamma(a, a), td.Chi2(a),
        td.InverseGamma(a, a), td.Weibull(a, a), td.Pareto(a, a), td.FisherSnedecor(a, a), td.Kumaraswamy(a, a),
        td.Beta(a, a), td.Dirichlet(a), td.VonMises(a, a), td.Bernoulli(p), td.Binomial(7, p), td.Poisson(a * 9),
        td.NegativeBinomial(a, p), td.Geometric(p), td.Categorical(p), td.OneHotCategorical(p), td.Multinomial(4, p),
        td.MultivariateNormal(a, eye), td.LowRankMultivariateNormal(a, a.unsqueeze(-1), a),
        td.MixtureSameFamily(td.Categorical(p), td.Normal(a, a)), td.Independent(td.Normal(a, a), 1),
        td.MixtureSameFamily(td.Categorical(p[:, :1]), td.MultivariateNormal(a.unsqueeze(1), eye)),
        td.TransformedDistribution(td.Normal(a, a), [td.TanhTransform(), td.AffineTransform(1.0, 2.0)]),
        td.Independent(td.Laplace(a, a), 2), td.Gamma(a[0], a[0]).expand((5, 2)), td.LogisticNormal(a, a),
    ]  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shapes_and_dtypes_are_those_of_torch(dtype: torch.dtype) -> None:
    used = set()
    for d in batched(dtype):
        used.add(type(d))
        with torch.random.fork_rng():
            like = d.sample((4,))
        x = R.sample(d, 4)
        assert x.shape == like.shape and x.dtype == like.dtype, d
        assert bool(d.log_prob(x).isfinite().all()), d
        alone = R.sample(d, None)
        assert alone.shape == like.shape[1:] and alone.dtype == like.dtype, d
        assert R.sample(d, 0).shape == (0, *like.shape[1:])
        # the first axis is the particles, whichever axis that is
        ids = torch.tensor([3, 1])
        assert torch.equal(R.shard(ids).sample(d, 2), x[ids]), d
    assert {f for f in SAMPLERS if f.__module__.startswith("torch.")} <= used


def test_each_element_of_a_batch_has_its_own_numbers() -> None:
    for d in (td.Normal(torch.zeros(50), 1.0), td.Gamma(torch.ones(50), 1.0), td.Categorical(torch.ones(50, 999))):
        assert len(R.sample(d, 3).flatten().unique()) > 130


def test_without_n_and_batch_all_particles_share_one_draw() -> None:
    sharded = R.shard(torch.tensor([5, 2, 9, 4]))
    for d in (
        td.Normal(0.0, 1.0), td.MultivariateNormal(torch.zeros(3), torch.eye(3)), td.Categorical(torch.ones(5)),
        td.Multinomial(4, torch.ones(3)), td.Dirichlet(torch.ones(3)),
        td.Independent(td.Normal(torch.zeros(2), 1.0), 1),
    ):  # fmt: skip
        assert torch.equal(R.sample(d, None), sharded.sample(d, None))
        assert R.sample(d, None).shape == d.event_shape


def test_no_gradient_flows() -> None:
    loc = torch.zeros(2, requires_grad=True)
    assert not R.sample(td.Normal(loc, loc.exp()), 3).requires_grad
    assert not R.sample(td.TransformedDistribution(td.Normal(loc, 1.0), [td.ExpTransform()]), 3).requires_grad


def test_a_large_matrix_is_applied_too() -> None:
    d = 160
    tril = torch.eye(d).double() + torch.ones(d, d).double().tril(-1) * 0.1
    normal = td.MultivariateNormal(torch.zeros(d).double(), scale_tril=tril)
    z = torch.linalg.solve_triangular(tril, R.sample(normal, 500).T, upper=False)
    assert abs(float(z.var()) - 1.0) < 5 * math.sqrt(2 / z.numel()) and abs(float(z.mean())) < 5 / math.sqrt(z.numel())


class Rademacher(td.Bernoulli):
    """A subclass has another law, so it must not be taken for its parent."""


def test_unknown_families_are_refused_and_can_be_registered() -> None:
    d = Rademacher(torch.tensor([0.5, 0.9]))
    with pytest.raises(NotImplementedError, match=r"Rademacher by address\. Known are Bernoulli, Beta,.*register"):
        R.sample(d, 3)

    @motes.rng.register(Rademacher)
    def rademacher(rng: Rng, d: Rademacher, n: int | None) -> Tensor:
        shape = d.batch_shape if n is None else (n, *d.batch_shape)
        return rng.bernoulli(d.probs.expand(shape)).to(d.probs.dtype) * 2 - 1

    try:
        x = R.sample(d, 1000)
        assert x.shape == (1000, 2) and set(x.unique().tolist()) == {-1.0, 1.0}
        assert 0.7 < float(x[:, 1].mean()) < 0.9
        motes.rng.register(Rademacher)(lambda rng, d, n: rng.bits((n,)))
        with pytest.raises(ValueError, match=r"Rademacher returned \(3,\), not \(3, 2\)"):
            R.sample(d, 3)
    finally:
        del SAMPLERS[Rademacher]


def test_a_transformed_family_with_its_own_sampler_is_refused() -> None:
    class Own(td.TransformedDistribution):
        def rsample(self, sample_shape: object = ()) -> Tensor:
            raise AssertionError("must not be called")

    with pytest.raises(NotImplementedError, match="Own by address"):
        R.sample(Own(td.Normal(0.0, 1.0), [td.ExpTransform()]), 3)


@pytest.mark.parametrize("n", [-1, 2.0, True])
def test_n_must_be_a_number_of_particles(n: object) -> None:
    with pytest.raises(ValueError, match="n must be None or a whole number"):
        R.sample(td.Normal(0.0, 1.0), n)  # type: ignore[arg-type]
