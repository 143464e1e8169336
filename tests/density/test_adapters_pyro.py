"""Pyro models: evidence and means, equal to torch's, normalised priors, draws by address, one by one, refusals."""

import pytest
import torch

from density.known import NOISE, WIDE, T, V, X, Y, at_their_addresses, curved, holds, same, whole
from motes.errors import MotesError, NanLogPotential
from motes.laws.adapters import from_pyro
from motes.rng import Rng

pyro = pytest.importorskip("pyro", reason="comes with the extra motes[pyro]")
import pyro.distributions as dist  # noqa: E402


def regression(x, y):
    b = pyro.sample("b", dist.Normal(torch.zeros(2), WIDE).to_event(1))
    pyro.deterministic("twice", 2 * b)
    pyro.sample("y", dist.Normal(x @ b, NOISE).to_event(1), obs=y)


def same_as_curved(t, v):
    a = pyro.sample("a", dist.Normal(0.0, 2.0))
    s = pyro.sample("s", dist.Gamma(3.0, 2.0))
    p = pyro.sample("p", dist.Beta(2.0, 3.0))
    with pyro.plate("data", len(v)):
        pyro.sample("v", dist.Normal(a + p * t, s), obs=v)


def stubborn(t, v):
    """The same, in a way that cannot be mapped."""
    float(pyro.sample("a", dist.Normal(0.0, 2.0)).detach())
    a = pyro.sample("b", dist.Normal(0.0, 2.0))
    with pyro.plate("data", len(v)):
        pyro.sample("v", dist.Normal(a * t, 1.0), obs=v)


def test_the_evidence_and_means_of_a_regression():
    holds(from_pyro(regression, X, y=Y))


def test_values_gradients_and_curvatures_are_torch_s():
    law, other = from_pyro(same_as_curved, T, V), curved()
    assert law.shapes == {"a": (), "s": (), "p": ()}
    assert law.vectorised
    assert law.differentiable
    z = law.sample(Rng(0), 37)
    assert same(law, other, z) < 1e-8
    vector = Rng(1).normal((37, 3))
    for a, b in zip(law.hessian_vector(z, vector), other.hessian_vector(z, vector), strict=True):
        assert torch.allclose(a, b, rtol=1e-8, atol=1e-8)
    far = torch.tensor([[0.0, 800.0, 0.0]], dtype=torch.float64)
    assert law.evaluate(far, True)["log_prior"] == -torch.inf
    assert same(from_pyro(same_as_curved, T, V + 1e-6), other, z) > 1e-8
    assert torch.get_default_dtype() == torch.float32


def test_single_precision_data_are_converted_and_the_model_s_own_are_the_owner_s():
    law = from_pyro(regression, X.float(), Y.float())
    assert law.evaluate(law.sample(Rng(0), 2))["log_likelihood"].dtype == torch.float64
    x = X.float()
    with pytest.raises(RuntimeError) as caught:
        from_pyro(lambda: regression(x, Y))
    assert "double()" in "".join(caught.value.__notes__)


def test_what_cannot_be_mapped_is_called_one_by_one(caplog):
    law = from_pyro(stubborn, T, V)
    assert not law.vectorised
    assert "one particle after the other" in caplog.text
    z = law.sample(Rng(0), 5)
    state = law.evaluate(z, True)
    one = torch.ones((), dtype=torch.float64)
    expected = torch.distributions.Normal(z[:, 1:] * T, one).log_prob(V).sum(1)
    assert torch.allclose(state["log_likelihood"], expected)
    assert torch.allclose(state["likelihood_gradient"][:, 1], ((V - z[:, 1:] * T) * T).sum(1))
    assert torch.allclose(law.unconstrain(law.constrain(z)), z)


def test_draws_follow_the_prior_and_their_addresses():
    law = from_pyro(same_as_curved, T, V)
    assert at_their_addresses(law)
    values = law.constrain(law.sample(Rng(2), 4000))
    for name, mean, sd in (("a", 0.0, 2.0), ("s", 1.5, 0.75**0.5), ("p", 0.4, 0.2)):
        assert abs(float(values[name].mean()) - mean) < 4.9 * sd / 4000**0.5
        assert float(values[name].std()) == pytest.approx(sd, rel=0.08)


def simplex():
    pyro.sample("w", dist.Dirichlet(torch.tensor([2.0, 3.0, 1.5])))


def dependent():
    high = pyro.sample("high", dist.Gamma(3.0, 1.0))
    pyro.sample("low", dist.Uniform(0.0, high))


def altered():
    with pyro.poutine.scale(scale=3.0):
        pyro.sample("a", dist.Normal(0.0, 1.0))
    pyro.sample("b", dist.Normal(0.0, 1.0).mask(False))


@pytest.mark.parametrize("model", [simplex, dependent, altered])
def test_the_reference_is_normalised(model):
    law = from_pyro(model)
    assert whole(law) == pytest.approx(1, abs=1e-4)
    assert at_their_addresses(law)
    z = law.sample(Rng(0), 20)
    assert torch.allclose(law.unconstrain(law.constrain(z)), z, atol=1e-6)


def test_draws_of_a_site_that_depends_on_another_follow_it():
    values = from_pyro(dependent).constrain(from_pyro(dependent).sample(Rng(0), 4000))
    share = values["low"] / values["high"]
    assert abs(float(share.mean()) - 0.5) < 4.9 * 12**-0.5 / 4000**0.5
    assert abs(float(values["low"].mean()) - 1.5) < 4.9 * 1.33 / 4000**0.5


def test_what_handlers_do_to_a_latent_site_is_likelihood():
    z = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    normal = torch.distributions.Normal(0.0, 1.0).log_prob(z)[0]
    state = from_pyro(altered).evaluate(z)
    assert state["log_likelihood"].item() == pytest.approx(float(2 * normal[0] - normal[1]), rel=1e-6)


def test_what_is_no_law_on_real_vectors_is_refused():
    def discrete():
        k = pyro.sample("k", dist.Poisson(3.0))
        pyro.sample("y", dist.Normal(k, 1.0), obs=torch.tensor(0.0))

    def learnt():
        pyro.sample("x", dist.Normal(pyro.param("theta", torch.tensor(0.0)), 1.0))

    def part():
        m = pyro.sample("m", dist.Normal(0.0, 1.0))
        with pyro.plate("data", 10, subsample_size=3):
            pyro.sample("y", dist.Normal(m, 1.0), obs=torch.zeros(3))

    def nothing():
        pyro.sample("y", dist.Normal(0.0, 1.0), obs=torch.tensor(0.0))

    for model, said in (
        (discrete, "'k'.*sum them out"),
        (learnt, "'theta'.*optimised"),
        (part, "'data'.*subsample"),
        (nothing, "no latent"),
    ):
        with pytest.raises(MotesError, match=said):
            from_pyro(model)

    def wrong():
        m = pyro.sample("m", dist.Normal(0.0, 1.0))
        pyro.factor("f", torch.sqrt(m - 100.0))

    law = from_pyro(wrong)
    with pytest.raises(NanLogPotential, match="m="):
        law.evaluate(law.sample(Rng(0), 3))


def test_a_family_that_cannot_be_drawn_by_address_is_named():
    with pytest.raises(NotImplementedError, match=r"LKJCholesky.*register"):
        from_pyro(lambda: pyro.sample("c", dist.LKJCholesky(2, 1.0)))
