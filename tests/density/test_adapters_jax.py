"""Log-densities and log-likelihoods in JAX: equal to torch's, float64, shared memory, few compilations, refusals."""

import builtins
import math

import pytest
import torch
from torch.distributions import Normal

from density.known import NOISE, ONE, WIDE, T, V, X, Y, curved, evidence, holds, off, same, sampled
from motes.errors import MotesError, NanLogPotential, ShapeError
from motes.laws.adapters import from_jax
from motes.rng import Rng

jax = pytest.importorskip("jax", reason="comes with the extra motes[jax]")
jnp = jax.numpy
XN, YN, TN, VN = X.numpy(), Y.numpy(), T.numpy(), V.numpy()


def log_likelihood(b):
    return (-0.5 * ((YN - XN @ b) / NOISE) ** 2 - math.log(NOISE) - 0.5 * math.log(2 * math.pi)).sum()


def joint(b):
    return log_likelihood(b) + (-0.5 * (b / WIDE) ** 2 - math.log(WIDE) - 0.5 * math.log(2 * math.pi)).sum()


def curved_likelihood(v):
    mean = v["a"] + v["p"] * TN
    return (-0.5 * ((VN - mean) / v["s"]) ** 2 - jnp.log(v["s"]) - 0.5 * math.log(2 * math.pi)).sum()


PRIOR = Normal(torch.zeros(2, dtype=torch.float64), WIDE)


@pytest.mark.parametrize("how", ["mode", "start", "prior"])
def test_the_evidence_is_right_however_it_starts(how):
    if how == "mode":
        holds(from_jax(joint, initial=2), None)
    elif how == "start":
        holds(from_jax(joint, start=Normal(torch.zeros(2, dtype=torch.float64), 3.0)), None)
    else:
        holds(from_jax(log_likelihood, prior=PRIOR), None)


def test_a_likelihood_taken_for_a_density_is_found_out():
    assert abs(off(sampled(from_jax(log_likelihood, start=PRIOR)), evidence())) > 10


def test_values_gradients_and_curvatures_are_torch_s():
    blocks = {b.name: b.prior for b in curved().parameters.blocks}
    law, other = from_jax(curved_likelihood, prior=blocks), curved()
    z = other.sample(Rng(0), 37)
    assert same(law, other, z) < 1e-12
    vector = Rng(1).normal((37, 3))
    for a, b in zip(law.hessian_vector(z, vector), other.hessian_vector(z, vector), strict=True):
        assert torch.allclose(a, b, rtol=1e-10, atol=1e-10)
    twin = from_jax(lambda v: curved_likelihood(v) * (1 + 1e-7), prior=blocks)
    assert same(twin, other, z) > 1e-8


def test_the_program_around_keeps_its_precision():
    law = from_jax(joint, initial=2)
    state = law.evaluate(law.sample(Rng(0), 3), True)
    assert {v.dtype for v in state.values()} == {torch.float64}
    assert jnp.ones(()).dtype == jnp.float32
    single = from_jax(joint, start=Normal(torch.zeros(2), 3.0), dtype=torch.float32)
    assert single.evaluate(single.sample(Rng(0), 3), True)["likelihood_gradient"].dtype == torch.float32


def test_a_row_is_what_it_is_alone_and_is_compiled_for_powers_of_two():
    traced = []

    def counted(b):
        traced.append(1)
        return joint(b)

    law = from_jax(counted, start=Normal(torch.zeros(2, dtype=torch.float64), 3.0))
    z = law.sample(Rng(0), 64)
    whole = law.evaluate(z, True)
    for n in (64, 63, 50, 33):
        part = law.evaluate(z[:n], True)
        assert all((part[k] == v[:n]).all() for k, v in whole.items())
    before = len(traced)
    for n in (34, 40, 59):
        law.evaluate(z[:n], True)
    assert len(traced) == before
    for n in (1, 2, 5):
        part = law.evaluate(z[:n], True)
        assert all(torch.allclose(part[k], v[:n], rtol=1e-13) for k, v in whole.items())


def test_what_comes_back_may_be_changed_in_place():
    """The gradient of half a square is its argument, which JAX hands back as it came."""
    law = from_jax(lambda x: 0.5 * (x**2).sum(), prior=Normal(torch.zeros(4, dtype=torch.float64), 1.0))
    z = torch.ones(8, 4, dtype=torch.float64)
    law.evaluate(z, True)["likelihood_gradient"].neg_()
    assert (z == 1).all()
    turned = torch.arange(8.0, dtype=torch.float64).reshape(2, 4).T.contiguous().T
    assert torch.allclose(law.evaluate(turned)["log_likelihood"], 0.5 * turned.square().sum(1)[:2])


def test_what_jax_cannot_do_is_said():
    start = Normal(torch.zeros(2, dtype=torch.float64), 1.0)
    with pytest.raises(ShapeError, match="one floating-point number"):
        from_jax(lambda x: x, start=start)
    with pytest.raises(ShapeError, match="one floating-point number"):
        from_jax(lambda x: (x > 0).sum(), start=start)
    with pytest.raises(NanLogPotential, match="particle"):
        from_jax(lambda x: jnp.log(-1 - x[0] ** 2), start=start)
    with pytest.raises(MotesError, match="not both"):
        from_jax(joint, start=start, prior=start)
    with pytest.raises(MotesError, match="`initial`"):
        from_jax(joint)

    def loop(x):
        return jax.lax.while_loop(lambda v: v < 0, lambda v: v + 1, joint(x) * 0) + joint(x)

    law = from_jax(loop, start=start)
    assert not law.differentiable
    assert abs(off(sampled(law), evidence())) < 4.9
    with pytest.raises(MotesError, match="no gradient"):
        from_jax(loop, initial=2)


def test_a_zero_of_the_density_is_no_error():
    start = Normal(0 * ONE, 2 * ONE)
    law = from_jax(lambda x: jnp.where(x[0] > 0, -x[0], -jnp.inf), start=start)
    state = law.evaluate(torch.tensor([[-1.0], [1.0]], dtype=torch.float64), True)
    assert state["log_likelihood"][0] == -math.inf
    assert state["likelihood_gradient"][0] == 0
    assert abs(off(sampled(law), 0.0)) < 4.9


def test_without_jax_the_extra_is_named(monkeypatch):
    real = builtins.__import__

    def refuse(name, *rest, **more):
        if name.split(".")[0] in ("jax", "numpyro"):
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError, match=r"motes\[jax\]"):
        from_jax(joint, initial=2)
