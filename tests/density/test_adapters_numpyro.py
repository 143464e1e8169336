"""NumPyro models: evidence and means, equal to torch's, normalised priors, draws by address, scans, refusals."""

import pytest
import torch

from density.known import NOISE, WIDE, T, V, X, Y, at_their_addresses, curved, holds, same, whole
from motes.errors import MotesError, NanLogPotential, ShapeError
from motes.laws.adapters import from_numpyro
from motes.rng import Rng

numpyro = pytest.importorskip("numpyro", reason="comes with the extra motes[jax]")
import jax.numpy as jnp  # noqa: E402
import numpyro.distributions as dist  # noqa: E402
from numpyro.contrib.control_flow import scan  # noqa: E402


def regression(x, y):
    b = numpyro.sample("b", dist.Normal(jnp.zeros(2), WIDE).to_event(1))
    numpyro.deterministic("twice", 2 * b)
    numpyro.sample("y", dist.Normal(x @ b, NOISE), obs=y)


def same_as_curved(t, v):
    a = numpyro.sample("a", dist.Normal(0.0, 2.0))
    s = numpyro.sample("s", dist.Gamma(3.0, 2.0))
    p = numpyro.sample("p", dist.Beta(2.0, 3.0))
    with numpyro.plate("data", len(v)):
        numpyro.sample("v", dist.Normal(a + p * t, s), obs=v)


def test_the_evidence_and_means_of_a_regression():
    holds(from_numpyro(regression, X.numpy(), y=Y.numpy()))


def test_values_gradients_and_curvatures_are_torch_s():
    law, other = from_numpyro(same_as_curved, T.numpy(), V.numpy()), curved()
    assert law.shapes == {"a": (), "s": (), "p": ()}
    assert law.differentiable
    z = other.sample(Rng(0), 37)
    assert same(law, other, z) < 1e-8
    vector = Rng(1).normal((37, 3))
    for a, b in zip(law.hessian_vector(z, vector), other.hessian_vector(z, vector), strict=True):
        assert torch.allclose(a, b, rtol=1e-8, atol=1e-8)
    far = torch.tensor([[0.0, 800.0, 0.0]], dtype=torch.float64)
    assert law.evaluate(far, True)["log_prior"] == -torch.inf
    shifted = from_numpyro(same_as_curved, T.numpy(), V.numpy() + 1e-6)
    assert same(shifted, other, z) > 1e-8


def test_a_particle_s_draw_depends_on_its_address_alone():
    assert at_their_addresses(from_numpyro(dependent))


def test_draws_follow_the_prior():
    law = from_numpyro(same_as_curved, T.numpy(), V.numpy())
    values = law.constrain(law.sample(Rng(2), 20_000))
    for name, mean, sd in (("a", 0.0, 2.0), ("s", 1.5, 0.75**0.5), ("p", 0.4, 0.2)):
        assert abs(float(values[name].mean()) - mean) < 4.9 * sd / 20_000**0.5
        assert float(values[name].std()) == pytest.approx(sd, rel=0.05)


def simplex():
    numpyro.sample("w", dist.Dirichlet(jnp.array([2.0, 3.0, 1.5])))


def dependent():
    high = numpyro.sample("high", dist.LogNormal(0.0, 1.0))
    numpyro.sample("low", dist.Uniform(0.0, high))


def altered():
    with numpyro.handlers.scale(scale=3.0):
        numpyro.sample("a", dist.Normal(0.0, 1.0))
    with numpyro.handlers.mask(mask=False):
        numpyro.sample("b", dist.Normal(0.0, 1.0))


@pytest.mark.parametrize("model", [simplex, dependent, altered])
def test_the_reference_is_normalised(model):
    law = from_numpyro(model)
    assert whole(law) == pytest.approx(1, abs=1e-4)
    z = law.sample(Rng(0), 20)
    assert torch.allclose(law.unconstrain(law.constrain(z)), z, atol=1e-6)


def test_what_handlers_do_to_a_latent_site_is_likelihood():
    law = from_numpyro(altered)
    z = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    normal = torch.distributions.Normal(0.0, 1.0).log_prob(z)[0]
    state = law.evaluate(z)
    assert state["log_likelihood"].item() == pytest.approx(float(2 * normal[0] - normal[1]), rel=1e-6)


def test_a_scan_is_a_chain_of_normals():
    def walk(y):
        def step(before, seen):
            x = numpyro.sample("x", dist.Normal(before, 1.0))
            numpyro.sample("y", dist.Normal(x, 0.5), obs=seen)
            return x, None

        scan(step, 0.0, y)

    y = torch.tensor([0.3, 1.0, -0.2], dtype=torch.float64)
    law = from_numpyro(walk, y.numpy())
    assert law.shapes == {"x": (3,)}
    z = law.sample(Rng(0), 9)
    before = torch.cat([torch.zeros(9, 1, dtype=torch.float64), z[:, :-1]], 1)
    one, half = torch.ones((), dtype=torch.float64), torch.full((), 0.5, dtype=torch.float64)
    state = law.evaluate(z, True)
    assert torch.allclose(state["log_prior"], torch.distributions.Normal(before, one).log_prob(z).sum(1))
    assert torch.allclose(state["log_likelihood"], torch.distributions.Normal(z, half).log_prob(y).sum(1))
    assert torch.allclose(law.unconstrain(law.constrain(z)), z)


def test_names_shapes_and_round_trip():
    law = from_numpyro(regression, X.numpy(), Y.numpy())
    z = law.sample(Rng(0), 5)
    values = law.constrain(z)
    assert list(values) == ["b", "twice"]
    assert (values["twice"] == 2 * values["b"]).all()
    assert torch.allclose(law.unconstrain(values), z)
    assert law.settings() == {"source": "numpyro", "model": "regression", "parameters": {"b": [2]}}
    with pytest.raises(ShapeError, match=r"b must have shape \(N, 2\)"):
        law.unconstrain({"b": torch.zeros(5, 3)})
    with pytest.raises(MotesError, match="parameters are"):
        law.unconstrain({"c": torch.zeros(5, 2)})


def test_what_is_no_law_on_real_vectors_is_refused():
    def discrete():
        k = numpyro.sample("k", dist.Poisson(3.0))
        numpyro.sample("y", dist.Normal(k, 1.0), obs=0.0)

    def learnt():
        numpyro.sample("x", dist.Normal(numpyro.param("theta", 0.0), 1.0))

    def part():
        m = numpyro.sample("m", dist.Normal(0.0, 1.0))
        with numpyro.plate("data", 10, subsample_size=3):
            numpyro.sample("y", dist.Normal(m, 1.0), obs=jnp.zeros(3))

    def improper():
        numpyro.sample("x", dist.ImproperUniform(dist.constraints.real, (), ()))

    def nothing():
        numpyro.sample("y", dist.Normal(0.0, 1.0), obs=0.0)

    for model, said in (
        (discrete, "'k'.*sum them out"),
        (learnt, "'theta'.*optimised"),
        (part, "'data'.*subsample"),
        (improper, "proper prior"),
        (nothing, "no latent"),
    ):
        with pytest.raises(MotesError, match=said):
            from_numpyro(model)

    def wrong(y):
        m = numpyro.sample("m", dist.Normal(0.0, 1.0))
        numpyro.factor("f", jnp.sqrt(m - 100.0))

    law = from_numpyro(wrong, 0)
    with pytest.raises(NanLogPotential, match="m="):
        law.evaluate(law.sample(Rng(0), 3))
