"""The exact denoiser of a data set, against sums written out, a mixture of normals, and derivatives."""

import math

import pytest
import torch

import motes
from diffusion.linear import F64
from motes.diffusion import VarianceExploding, VariancePreserving, mixture
from motes.diffusion.denoisers.exact import empirical
from motes.errors import ShapeError
from motes.rng import Rng

PROCESS = VariancePreserving()
IMAGES = Rng(3).at("images").normal((11, 2, 3), dtype=F64)
X = 1.3 * Rng(4).at("x").normal((6, 2, 3), dtype=F64)
EACH = torch.linspace(0.05, 0.95, 6, dtype=F64)


def plainly(x, t, weights, bandwidth=0.0):
    """The posterior mean and the log-density of one image, term by term."""
    alpha, sigma = float(PROCESS.alpha(t)), float(PROCESS.sigma(t))
    spread = sigma**2 + (alpha * bandwidth) ** 2
    terms = [
        math.log(float(w) / float(weights.sum()))
        - 0.5 * float((x - alpha * image).square().sum()) / spread
        - 0.5 * x.numel() * math.log(2 * math.pi * spread)
        for w, image in zip(weights, IMAGES, strict=True)
    ]
    log_p = torch.tensor(terms, dtype=F64)
    p = torch.softmax(log_p, 0)
    means = torch.stack([image + alpha * bandwidth**2 / spread * (x - alpha * image) for image in IMAGES])
    return torch.einsum("m,m...->...", p, means), float(torch.logsumexp(log_p, 0))


@pytest.mark.parametrize("chunk", [1, 4, 100])
@pytest.mark.parametrize("bandwidth", [0.0, 0.4])
@pytest.mark.parametrize("weighted", [False, True])
def test_it_is_the_sum_over_the_examples(chunk, bandwidth, weighted):
    weights = torch.linspace(1, 3, 11, dtype=F64) if weighted else torch.ones(11, dtype=F64)
    denoiser = empirical(PROCESS, IMAGES, weights=weights if weighted else None, bandwidth=bandwidth, chunk=chunk)
    data, log_p = denoiser.data(X, EACH), denoiser.log_density(X, EACH)
    for i, t in enumerate(EACH.tolist()):
        mean, value = plainly(X[i], t, weights, bandwidth)
        assert torch.allclose(data[i], mean, rtol=1e-10, atol=1e-12)
        assert float(log_p[i]) == pytest.approx(value, abs=1e-9)
        assert torch.allclose(denoiser.data(X[i : i + 1], t)[0], mean, rtol=1e-10, atol=1e-12)


def test_a_blurred_data_set_is_a_mixture_of_normals():
    flat = IMAGES.reshape(11, 6)
    exact = mixture(PROCESS, torch.ones(11), flat, 0.25 * torch.eye(6, dtype=F64).expand(11, 6, 6))
    blurred = empirical(PROCESS, flat, bandwidth=0.5)
    x = X.reshape(6, 6)
    assert torch.allclose(blurred.data(x, EACH), exact.data(x, EACH), rtol=1e-9)
    assert torch.allclose(blurred.log_density(x, EACH), exact.log_density(x, EACH), rtol=1e-9)


@pytest.mark.parametrize("chunk", [3, 100])
def test_the_score_is_the_gradient_of_the_log_density(chunk):
    denoiser = empirical(PROCESS, IMAGES, chunk=chunk)
    x = X.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(denoiser.log_density(x, EACH).sum(), x)
    assert torch.allclose(gradient, denoiser.score(X, EACH), rtol=1e-8, atol=1e-9)


def test_little_noise_gives_back_the_nearest_example_and_much_noise_the_mean():
    """With sigma = 1e-4 the exponents are 1e8 and more: only differences may count."""
    process = VarianceExploding(sigma_min=1e-4, sigma_max=1e4)
    denoiser = empirical(process, 100 + IMAGES, chunk=2)
    near = (100 + IMAGES[[7, 2]]).float()
    assert torch.equal(denoiser.data(near, 0.0), near)
    assert torch.allclose(denoiser.data(near, 1.0), (100 + IMAGES).mean(0).float().expand(2, 2, 3), atol=1e-3)
    assert bool(torch.isfinite(denoiser.log_density(near, 0.0)).all())


def test_reverse_diffusion_ends_in_the_examples_at_their_rates():
    """2000 particles among 3 examples of weights 1, 2, 3: shares at alpha 1e-6 (|z| < 4.9), catches errors of 0.06."""
    examples, weights = torch.tensor([[-1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]), torch.tensor([1.0, 2.0, 3.0])
    denoiser = empirical(PROCESS, examples, weights=weights)
    model = motes.ReverseDiffusion(denoiser, PROCESS.times(60, "snr"), shape=(2,))
    view = motes.sample(model, 2000, seed=1, progress=False).view
    gap, nearest = torch.cdist(view, examples).min(1)
    assert float(gap.max()) < 0.05
    for m, p in enumerate([1 / 6, 1 / 3, 1 / 2]):
        share = float((nearest == m).to(F64).mean())
        assert abs(share - p) < 4.9 * math.sqrt(p * (1 - p) / 2000), (m, share)


def test_what_does_not_fit_is_said():
    with pytest.raises(ShapeError, match="examples must"):
        empirical(PROCESS, torch.zeros(3))
    with pytest.raises(ShapeError, match="weights must"):
        empirical(PROCESS, IMAGES, weights=torch.ones(3))
    with pytest.raises(ShapeError, match="images"):
        empirical(PROCESS, IMAGES).data(torch.zeros(2, 5), 0.5)
    with pytest.raises(ValueError, match="finite"):
        empirical(PROCESS, IMAGES / 0)
    with pytest.raises(ValueError, match="bandwidth"):
        empirical(PROCESS, IMAGES, bandwidth=-1.0)
    with pytest.raises(ValueError, match="sigma = 0"):
        empirical(PROCESS, IMAGES).data(X, 0.0)
    names = {empirical(PROCESS, IMAGES, bandwidth=b).name for b in (0.0, 0.1)}
    assert len(names | {empirical(PROCESS, IMAGES + 1).name}) == 3
