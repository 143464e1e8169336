"""PyMC models: evidence and means on both backends, equal to torch's, normalised priors, draws by address, refusals."""

import math
import warnings

import pytest
import torch
from torch.distributions import Normal

from density.known import NOISE, WIDE, T, V, X, Y, at_their_addresses, curved, holds, off, same, sampled, whole
from motes.errors import MotesError, NanLogPotential
from motes.laws.adapters import from_pymc
from motes.rng import Rng

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pm = pytest.importorskip("pymc", reason="comes with the extra motes[pymc]")
    pt = pytest.importorskip("pytensor.tensor", reason="comes with PyMC")

BACKENDS = ["pytensor", "jax"]


@pytest.fixture(params=BACKENDS)
def backend(request) -> str:
    if request.param == "jax":
        pytest.importorskip("jax", reason="comes with the extra motes[jax]")
    return request.param


def regression() -> pm.Model:
    with pm.Model() as model:
        b = pm.Normal("b", 0.0, WIDE, shape=2)
        pm.Deterministic("twice", 2 * b)
        pm.Normal("y", X.numpy() @ b, NOISE, observed=Y.numpy())
    return model


def same_as_curved(shift: float = 0.0) -> pm.Model:
    with pm.Model() as model:
        a = pm.Normal("a", 0.0, 2.0)
        s = pm.Gamma("s", 3.0, 2.0)
        p = pm.Beta("p", 2.0, 3.0)
        pm.Normal("v", a + p * T.numpy(), s, observed=V.numpy() + shift)
    return model


def test_the_evidence_and_means_of_a_regression(backend):
    holds(from_pymc(regression(), backend=backend))


def test_values_and_gradients_are_torch_s(backend):
    law, other = from_pymc(same_as_curved(), backend=backend), curved()
    assert law.backend == backend
    assert law.shapes == {"a": (), "s": (), "p": ()}
    assert law.differentiable
    z = other.sample(Rng(0), 37)
    assert same(law, other, z) < 1e-8
    far = torch.tensor([[0.0, 800.0, 0.0]], dtype=torch.float64)
    assert law.evaluate(far, True)["log_prior"] == -torch.inf
    if backend == "jax":
        vector = Rng(1).normal((37, 3))
        for a, b in zip(law.hessian_vector(z, vector), other.hessian_vector(z, vector), strict=True):
            assert torch.allclose(a, b, rtol=1e-8, atol=1e-8)
    else:
        with pytest.raises(MotesError, match="second derivatives"):
            law.hessian_vector(z, z)
        assert same(from_pymc(same_as_curved(1e-6), backend=backend), other, z) > 1e-8


def test_draws_follow_the_prior_and_their_addresses():
    law = from_pymc(same_as_curved(), backend="pytensor")
    assert at_their_addresses(law)
    values = law.constrain(law.sample(Rng(2), 4000))
    for name, mean, sd in (("a", 0.0, 2.0), ("s", 1.5, 0.75**0.5), ("p", 0.4, 0.2)):
        assert abs(float(values[name].mean()) - mean) < 4.9 * sd / 4000**0.5
        assert float(values[name].std()) == pytest.approx(sd, rel=0.08)


@pytest.mark.parametrize("what", ["simplex", "dependent"])
def test_the_reference_is_normalised(what):
    pytest.importorskip("jax", reason="comes with the extra motes[jax]")
    with pm.Model() as model:
        if what == "simplex":
            pm.Dirichlet("w", [2.0, 3.0, 1.5])
        else:
            high = pm.LogNormal("high", 0.0, 1.0)
            pm.Uniform("low", 0.0, high)
    law = from_pymc(model)
    assert law.backend == "jax"
    assert whole(law) == pytest.approx(1, abs=1e-4)
    assert at_their_addresses(law)
    z = law.sample(Rng(0), 20)
    assert torch.allclose(law.unconstrain(law.constrain(z)), z, atol=1e-6)
    assert (law.evaluate(z, True)["likelihood_gradient"] == 0).all()


def test_parameters_that_are_not_allowed_have_no_density(backend):
    """The scale is negative for half of the prior; PyMC's check of it is lost in JAX unless it is put back."""
    with pm.Model() as model:
        s = pm.Normal("s", 0.0, 1.0)
        pm.Normal("y", 0.0, s, observed=[0.4, -0.3])
    state = from_pymc(model, backend=backend).evaluate(torch.tensor([[-1.0], [1.0]], dtype=torch.float64), True)
    assert state["log_likelihood"][0] == -math.inf
    assert float(state["log_likelihood"][1]) == pytest.approx(-math.log(2 * math.pi) - 0.125)


def test_potentials_are_likelihood_and_data_are_as_they_were(backend):
    with pm.Model() as model:
        data = pm.Data("data", [1.0, 2.0])
        m = pm.Normal("m", 0.0, 1.0)
        pm.Potential("pull", -0.5 * (m - data.sum()) ** 2)
    law = from_pymc(model, backend=backend)
    run = sampled(law)
    assert abs(off(run, -0.5 * math.log(2) - 9 / 4)) < 4.9
    z = torch.zeros(1, 1, dtype=torch.float64)
    with model:
        pm.set_data({"data": [5.0, 6.0]})
    assert law.evaluate(z)["log_likelihood"] == -0.5 * 9
    assert from_pymc(model, backend=backend).evaluate(z)["log_likelihood"] == -0.5 * 121


def test_a_start_takes_the_place_of_a_prior_that_cannot_be_drawn_from(backend):
    with pm.Model() as model:
        m = pm.Flat("m")
        pm.Normal("y", m, 1.0, observed=[0.5, 1.5])
    with pytest.raises(MotesError, match="`start`"):
        from_pymc(model, backend=backend).sample(Rng(0), 3)
    law = from_pymc(model, start=Normal(torch.zeros(1, dtype=torch.float64), 3.0), backend=backend)
    assert abs(off(sampled(law), -math.log(2 * math.pi) - 0.25 + 0.5 * math.log(math.pi))) < 4.9
    with pm.Model() as cut:
        pm.Normal("x", 0.0, 1.0, shape=3, transform=pm.distributions.transforms.ordered, initval=[0.0, 1.0, 2.0])
    with pytest.raises(MotesError, match="cut by its transform"):
        from_pymc(cut, backend=backend).sample(Rng(0), 30)
    law = from_pymc(cut, start=Normal(torch.zeros(3, dtype=torch.float64), 2.0), backend=backend)
    assert abs(off(sampled(law), -math.log(6))) < 4.9  # one order of six
    assert (law.constrain(law.sample(Rng(0), 5))["x"].diff(dim=1) > 0).all()


def test_names_shapes_and_round_trip(backend):
    law = from_pymc(regression(), backend=backend)
    z = law.sample(Rng(0), 5)
    values = law.constrain(z)
    assert list(values) == ["b", "twice"]
    assert torch.allclose(values["twice"], 2 * values["b"])
    assert torch.allclose(law.unconstrain(values), z)
    assert law.settings() == {"source": "pymc", "start": None, "parameters": {"b": [2]}}


def test_what_is_no_law_on_real_vectors_is_refused(backend):
    with pm.Model() as discrete:
        k = pm.Poisson("k", 3.0)
        pm.Normal("y", k, 1.0, observed=0.0)
    with pytest.raises(MotesError, match=r"'k'.*sum them out"):
        from_pymc(discrete)
    with pm.Model() as nothing:
        pm.Normal("y", 0.0, 1.0, observed=0.0)
    with pytest.raises(MotesError, match="no free variable"):
        from_pymc(nothing)
    with pytest.raises(MotesError, match=r"takes a pm\.Model"):
        from_pymc(torch.nn.Identity())
    with pytest.raises(ValueError, match="backend"):
        from_pymc(regression(), backend="c")
    with pm.Model() as wrong:
        m = pm.Normal("m", 0.0, 1.0)
        pm.Potential("f", pt.sqrt(m - 100.0))
    law = from_pymc(wrong, backend=backend)
    with pytest.raises(NanLogPotential, match="m="):
        law.evaluate(law.sample(Rng(0), 3))


def test_an_operation_without_a_derivative_is_said():
    import numpy as np
    from pytensor.compile.ops import as_op

    @as_op(itypes=[pt.dscalar], otypes=[pt.dscalar])
    def square(m):
        return np.asarray(m**2)

    with pm.Model() as model:
        m = pm.Normal("m", 0.0, 1.0)
        pm.Potential("f", -square(m))
    law = from_pymc(model)
    assert law.backend == "pytensor"
    assert not law.differentiable
    with pytest.raises(MotesError, match="random-walk"):
        law.evaluate(torch.zeros(1, 1, dtype=torch.float64), True)
    assert abs(off(sampled(law), -0.5 * math.log(3))) < 4.9
