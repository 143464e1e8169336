"""Log-likelihoods by the probability flow against those of normal data and of mixtures, which are known."""

import math

import pytest
import torch

from diffusion.linear import F64
from motes.diffusion import Denoiser, VariancePreserving, gaussian, load, mixture
from motes.diffusion.flows import likelihood
from motes.diffusion.flows.likelihood import log_likelihood
from motes.diffusion.processes.edm import EDM
from motes.diffusion.processes.interpolant import Interpolant, RectifiedFlow
from motes.errors import MotesError, NanLogPotential
from motes.rng import Rng

PROCESSES = {
    "vp": VariancePreserving(beta_max=30.0, t_max=1.0),
    "edm": EDM(t_max=300.0),
    "straight": RectifiedFlow(t_max=0.9999),
    "arc": Interpolant("trigonometric", t_max=0.9999),
}
COVARIANCE = torch.tensor([[0.5, 0.2], [0.2, 0.8]], dtype=F64)
X = Rng(1).at("x").normal((6, 2), dtype=F64)


def normal(process):
    return gaussian(process, torch.tensor([0.3, -0.2], dtype=F64), COVARIANCE)


def two(process):
    means = torch.tensor([[-1.0, 0.5], [1.0, -0.5]], dtype=F64)
    return mixture(process, torch.tensor([0.4, 0.6]), means, torch.stack([COVARIANCE, 0.3 * torch.eye(2, dtype=F64)]))


@pytest.mark.parametrize("law", [normal, two])
@pytest.mark.parametrize("process", PROCESSES)
def test_exactly_known_densities(process, law):
    """The error is of second order, and the step-halving estimate is right about it."""
    process = PROCESSES[process]
    denoiser = law(process)
    truth = denoiser.log_density(X, process.t_min)
    one, half = (log_likelihood(denoiser, X, steps) for steps in (400, 100))
    assert float((one.value - truth).abs().max()) < 0.01
    assert bool((one.se == 0).all())
    extrapolated = one.value - one.discretisation
    gap = half.value - extrapolated  # what 100 steps get wrong
    worst = gap.abs().max()
    assert float((extrapolated - truth).abs().max()) < 3e-3
    assert float((half.discretisation - gap).abs().max()) < 0.5 * float(worst)
    assert float((one.value - extrapolated).abs().max()) < 0.1 * float(worst)  # a sixteenth if second order


def test_a_forgotten_divergence_is_caught(monkeypatch):
    right = likelihood._predicted
    monkeypatch.setattr(likelihood, "_predicted", lambda *a: (right(*a)[0], 0 * right(*a)[1]))
    denoiser = normal(PROCESSES["vp"])
    gap = log_likelihood(denoiser, X, 400).value - denoiser.log_density(X, PROCESSES["vp"].t_min)
    assert float(gap.abs().max()) > 0.1


def test_random_probes_are_unbiased_and_say_how_far_they_are_off():
    """100 probes a particle: z-scores against the exact divergence at alpha 1e-6."""
    denoiser = two(PROCESSES["vp"])
    exact = log_likelihood(denoiser, X, 20)
    random = log_likelihood(denoiser, X, 20, seed=Rng(5), probes=100)
    z = (random.value - exact.value) / random.se
    assert float(z.abs().max()) < 4.9 and float(random.se.max()) < 0.2
    assert torch.allclose(random.discretisation, exact.discretisation, atol=0.1 * float(random.se.max()) + 1e-3)
    isotropic = gaussian(PROCESSES["vp"], torch.zeros(3), torch.eye(3))
    x = X.reshape(4, 3)  # there the signs do not matter
    same = log_likelihood(isotropic, x, 20, seed=Rng(5), probes=2)
    assert torch.allclose(same.value, log_likelihood(isotropic, x, 20).value, rtol=1e-9) and float(same.se.max()) < 1e-9
    assert bool(log_likelihood(isotropic, x, 20, seed=Rng(5), probes=1).se.isnan().all())


def test_images_in_parts_and_in_single_precision():
    denoiser = gaussian(PROCESSES["vp"], torch.full((4,), 0.2), 0.5 * torch.eye(4))
    images = Denoiser(
        lambda x, t: denoiser.data(x.flatten(1), t.to(F64)).reshape(x.shape), PROCESSES["vp"], predicts="data"
    )
    x = Rng(2).at("x").normal((5, 1, 2, 2))
    flat = log_likelihood(denoiser, x.flatten(1).to(F64), 20).value
    for size in (None, 2):
        found = log_likelihood(images, x, 20, micro_batch=size).value
        assert found.dtype == F64 and torch.allclose(found, flat, atol=2e-4)
        found = log_likelihood(images, x, 20, micro_batch=size, seed=Rng(1), probes=3).value
        assert torch.allclose(found, flat, atol=2e-4)


def test_the_model_is_asked_once_a_point():
    exact, seen = normal(PROCESSES["vp"]), []

    def model(x, t):
        seen.append((float(t[0]), x.detach().clone()))
        return exact.data(x, t)

    log_likelihood(Denoiser(model, PROCESSES["vp"], predicts="data"), X, 4)
    assert len(seen) == 1 + 2 * 4 + 2 * 2
    assert not any(a[0] == b[0] and torch.equal(a[1], b[1]) for i, a in enumerate(seen) for b in seen[:i])


def test_what_does_not_fit_is_said():
    denoiser = normal(PROCESSES["vp"])
    with pytest.raises(ValueError, match="even"):
        log_likelihood(denoiser, X, 5)
    with pytest.raises(ValueError, match="probes"):
        log_likelihood(denoiser, X, 4, probes=0)
    with pytest.raises(ValueError, match="backward passes"):
        log_likelihood(denoiser, torch.zeros(1, 2000), 4)
    with pytest.raises(ValueError, match="sigma = 0"):
        log_likelihood(normal(EDM(t_min=0.0)), X, 4)
    quiet = Denoiser(lambda x, t: x.detach(), PROCESSES["vp"], predicts="data")
    with pytest.raises(MotesError, match="no gradients"):
        log_likelihood(quiet, X, 4)
    wild = Denoiser(lambda x, t: x * math.inf, PROCESSES["vp"], predicts="data")
    with pytest.raises(NanLogPotential, match="left the finite numbers for particles"):
        log_likelihood(wild, X, 4)


def test_real_digits_are_likelier_than_the_same_pixels_out_of_place():
    """By more than 50 nats for each of 4 images (it is some 250)."""
    images = pytest.importorskip("sklearn.datasets").load_digits().images[:4]
    x = torch.tensor(images / 8 - 1, dtype=torch.float32)[:, None]
    order = torch.argsort(Rng(5).uniform((64,)))
    mixed = x.flatten(1)[:, order].reshape(x.shape)
    real, wrong = (log_likelihood(load("digits"), v, 10, seed=Rng(0), probes=1).value for v in (x, mixed))
    assert float((real - wrong).min()) > 50
