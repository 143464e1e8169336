"""Log-densities in torch, and distributions as targets: evidence whatever the start, supports, what is refused."""

import math

import pytest
import torch
from torch.distributions import Beta, Categorical, Exponential, Gamma, MultivariateNormal, Normal, StudentT

from density.known import NOISE, ONE, WIDE, X, Y, evidence, holds, off, sampled, slopes
from motes.errors import MotesError, NanLogPotential, ShapeError
from motes.laws.adapters import from_distribution, from_torch
from motes.laws.adapters.adapter_start import around_mode
from motes.rng import Rng


def joint(b: torch.Tensor) -> torch.Tensor:
    """The regression's whole density at b (N, 2)."""
    prior = Normal(0 * ONE, WIDE * ONE).log_prob(b).sum(-1)
    return prior + Normal(b @ X.T, NOISE * ONE).log_prob(Y).sum(-1)


@pytest.mark.parametrize("shape", ["mode", "normal", "student", "one point"])
def test_the_evidence_is_that_of_the_density_whatever_the_start(shape):
    wide = Normal(torch.full((2,), 1.0, dtype=torch.float64), 3.0)
    student = StudentT(3 * ONE, torch.zeros(2, dtype=torch.float64), 2.0)
    if shape == "mode":
        holds(from_torch(joint, initial=2), None)
    elif shape == "one point":
        holds(from_torch(lambda b: joint(b[None])[0], start=wide), None)
    else:
        holds(from_torch(joint, start={"normal": wide, "student": student}[shape]), None)


def test_a_start_that_is_forgotten_is_found_out():
    """The broken twin: a density over nothing is off by the start's own normaliser."""
    start = Normal(torch.zeros(2, dtype=torch.float64), 3.0)
    from motes.laws import Density

    assert abs(off(sampled(Density(joint, start)), evidence())) > 20


def test_constrained_parameters_have_the_start_s_supports():
    law = from_torch(
        lambda v: 2 * v["s"].log() - 2 * v["s"], start={"s": Exponential(ONE)}
    )  # a Gamma(3, 2) unnormalised
    run = sampled(law)
    assert abs(off(run, math.lgamma(3) - 3 * math.log(2))) < 4.9
    mean = run.mean("s")
    assert abs(float(mean) - 1.5) < 4.9 * float(mean.se) < 0.3


def test_a_gaussian_s_mode_gives_the_gaussian():
    scale = torch.tensor([[2.0, 0.0, 0.0], [0.3, 1e-3, 0.0], [-40.0, 0.02, 500.0]], dtype=torch.float64)
    law = MultivariateNormal(torch.tensor([5.0, -0.2, 1e3], dtype=torch.float64), scale_tril=scale)

    def look(x):
        x = x.detach().requires_grad_()
        value = law.log_prob(x)
        return value.detach(), torch.autograd.grad(value.sum(), x)[0]

    found = around_mode(look, torch.zeros(3, dtype=torch.float64), 2.0)
    sd = law.stddev
    assert ((found.mean - law.mean).abs() / sd).max() < 1e-4
    error = (found.covariance_matrix - 4 * law.covariance_matrix) / (sd * sd[:, None])
    assert error.abs().max() < 1e-4


def test_a_density_without_a_gradient_says_so():
    law = from_torch(lambda b: joint(b.detach()), start=Normal(torch.zeros(2, dtype=torch.float64), 3.0))
    assert not law.differentiable
    assert abs(off(sampled(law), evidence())) < 4.9


def test_what_has_no_start_is_refused():
    with pytest.raises(MotesError, match=r"`start`.*`initial`"):
        from_torch(joint)
    with pytest.raises(MotesError, match="rises without end"):
        from_torch(lambda x: x.sum(-1), initial=2)
    with pytest.raises(MotesError, match="another `initial`"):
        from_torch(lambda x: -(x.log().square()).sum(-1), initial=torch.tensor([-1.0, -1.0]))
    with pytest.raises(ShapeError, match="a point"):
        from_torch(joint, initial=torch.zeros(2, 2))
    with pytest.raises(ValueError, match="widen"):
        from_torch(joint, initial=2, widen=0.5)
    with pytest.raises(NanLogPotential):
        from_torch(lambda x: x.sum(-1) * math.nan, start=Normal(torch.zeros(2, dtype=torch.float64), 1.0))


TARGETS = {
    "normal": (Normal(torch.ones(2, dtype=torch.float64), 0.5), Normal(torch.zeros(2, dtype=torch.float64), 2.0)),
    "gamma": (Gamma(3 * ONE, 2 * ONE), Exponential(ONE)),
    "half of the start's support": (Exponential(ONE), Normal(0 * ONE, 3 * ONE)),
    "names": (
        {"p": Beta(2 * ONE, 5 * ONE), "m": Normal(torch.zeros(3, dtype=torch.float64), 1.0)},
        {"p": Beta(ONE, ONE), "m": Normal(torch.zeros(3, dtype=torch.float64), 2.0)},
    ),
}


@pytest.mark.parametrize("name", TARGETS)
def test_a_distribution_has_evidence_one(name):
    target, start = TARGETS[name]
    run = sampled(from_distribution(target, start=start))
    assert abs(off(run, 0.0)) < 4.9
    assert 0 < run.log_evidence_se < 0.1
    first = next(iter(target.values())) if isinstance(target, dict) else target
    mean = run.mean("p" if isinstance(target, dict) else None)
    assert ((mean.value - first.mean).abs() < 4.9 * mean.se).all()


def test_a_distribution_without_a_start_is_drawn_exactly():
    law = from_distribution(Gamma(3 * ONE, 2 * ONE))
    assert law.differentiable
    assert (law.sample(Rng(0), 5).exp() > 0).all()
    run = sampled(law)
    assert run.log_evidence == 0.0
    state = law.evaluate(law.sample(Rng(0), 5), True)
    assert (state["likelihood_gradient"] == 0).all()


def test_a_distribution_and_its_start_must_fit():
    with pytest.raises(ShapeError, match="names and shapes"):
        from_distribution(Normal(torch.zeros(2, dtype=torch.float64), 1.0), start=Normal(0 * ONE, ONE))
    with pytest.raises(MotesError, match="discrete"):
        from_distribution(Categorical(torch.ones(3)))


def test_the_posterior_mean_is_the_mode():
    law = from_torch(joint, initial=torch.tensor([3.0, 3.0]))
    assert torch.allclose(law.parameters.blocks[0].prior.mean, slopes(), atol=1e-5)
