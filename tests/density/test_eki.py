"""Ensemble Kalman inversion: exact where it is exact, corrected by weights where it is not."""

import math

import numpy as np
import pytest
import torch
from torch.distributions import MultivariateNormal, Normal

import motes
from motes.density.eki import EnsembleKalman, GaussianData, _update
from motes.errors import FileError, MotesError, ShapeError
from motes.laws import Density
from motes.laws.fits.proposal import Mixture, Started, fit_mixture

Z = 4.9  # two-sided level 1e-6
F64 = torch.float64
H = torch.tensor([[1.0, 0.5, 0.0], [0.0, 1.0, -1.0], [0.3, 0.3, 0.3], [2.0, 0.0, 1.0]], dtype=F64)
DATA = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=F64)
NOISE = torch.diag(torch.tensor([0.1, 0.2, 0.3, 0.1], dtype=F64)) + 0.02
PRIOR = Normal(torch.tensor([0.0, 1.0, -1.0], dtype=F64), torch.tensor([1.0, 2.0, 0.5], dtype=F64))


def linear() -> tuple[Density, GaussianData]:
    data = GaussianData(lambda x: x @ H.T, DATA, NOISE)
    return Density(data, PRIOR, vectorised=True), data


def kalman(mean: torch.Tensor, covariance: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Posterior mean and covariance, and the log evidence, of the linear model."""
    total = H @ covariance @ H.T + NOISE
    gain = covariance @ H.T @ torch.linalg.inv(total)
    evidence = float(MultivariateNormal(H @ mean, total).log_prob(DATA))
    return mean + gain @ (DATA - H @ mean), covariance - gain @ H @ covariance, evidence


def curved() -> tuple[Density, GaussianData, float]:
    """A forward model whose posterior has several modes, and the log evidence by quadrature."""
    times = torch.linspace(0.2, 2, 6, dtype=F64)

    def forward(x):
        return 2 * torch.sin(1.5 * x[:, :1] * times) + 0.3 * x[:, 1:] ** 3

    at = torch.tensor([[0.8, -0.6]], dtype=F64)
    data = GaussianData(forward, forward(at)[0] + 0.1 * torch.cos(9 * times), 0.09)
    line = torch.linspace(-7, 7, 1401, dtype=F64)
    grid = torch.cartesian_prod(line, line)
    log_density = data(grid) - 0.5 * grid.square().sum(1) - math.log(2 * math.pi)
    truth = float(log_density.logsumexp(0)) + 2 * math.log(0.01)
    return Density(data, Normal(torch.zeros(2, dtype=F64), 1.0), vectorised=True), data, truth


def at_one(model: EnsembleKalman, n: int, seed: int) -> torch.Tensor:
    """The ensemble when it has come to temperature 1."""
    run = motes.sample(model, n, seed=seed, progress=False, callback=lambda s: s.particles.shared["temperature"] == 1.0)
    assert run.particles.shared["stage"] == "invert"
    return run.view


def moments(z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return z.mean(0), torch.cov(z.T)


@pytest.mark.parametrize("steps", ["auto", 1, 7])
def test_the_transform_ends_at_the_posterior_of_the_ensembles_own_moments(steps):
    """For a linear model exactly so, with 12 members as with many."""
    density, data = linear()
    model = EnsembleKalman(density, data, steps=steps)
    start = density.sample(motes.Rng(5).at("init", step=0).at("prior"), 12)
    mean, covariance, _ = kalman(*moments(start))
    found = moments(at_one(model, 12, 5))
    assert torch.allclose(found[0], mean, atol=1e-10) and torch.allclose(found[1], covariance, atol=1e-10)
    if steps is None:
        assert motes.sample(model, 12, seed=5, progress=False).trace["temperature"][1] < 0.1


class Silent:
    """Stands for an Rng and has no noise."""

    def at(self, purpose: str) -> "Silent":
        return self

    def normal(self, shape: tuple[int, ...]) -> torch.Tensor:
        return torch.zeros(shape, dtype=F64)


def test_perturbed_data_end_at_the_posterior_of_many_members():
    """40000 members: errors of 0.005 standard deviations; the twin with too little noise has too small a covariance."""
    density, data = linear()
    mean, covariance, _ = kalman(PRIOR.mean, torch.diag(PRIOR.variance))
    found = moments(at_one(EnsembleKalman(density, data, form="perturbed"), 40000, 0))
    scale = covariance.diagonal().sqrt()
    assert ((found[0] - mean).abs() / scale < 0.05).all()
    assert ((found[1] - covariance).abs() / torch.outer(scale, scale) < 0.06).all()
    z = density.sample(motes.Rng(1), 40000)
    one = moments(_update(motes.Rng(1), z, data.misfit(z), 1.0, "perturbed"))[1]
    assert ((one - covariance).abs() / torch.outer(scale, scale) < 0.06).all()
    twin = moments(_update(Silent(), z, data.misfit(z), 1.0, "perturbed"))[1]
    assert ((twin - covariance).abs() / torch.outer(scale, scale)).max() > 0.2


def runs(model: EnsembleKalman, truth: float, n: int, seeds: int) -> tuple[np.ndarray, np.ndarray]:
    """Errors of the log evidence and reported standard errors."""
    done = [motes.sample(model, n, seed=s, progress=False) for s in range(seeds)]
    return np.array([r.log_evidence - truth for r in done]), np.array([r.log_evidence_se for r in done])


KNOBS = {
    "weighed": {"correct": "weigh"},
    "perturbed and weighed": {"correct": "weigh", "form": "perturbed"},
    "a Gaussian": {"correct": "weigh", "freedom": math.inf, "inflate": 1.5},
    "tempered": {},
}


@pytest.mark.parametrize("knobs", KNOBS)
def test_the_corrected_evidence_of_a_curved_model(knobs):
    """Would catch a bias of 20 % (a ratio's standard deviation is about 0.2), and errors half their size."""
    density, data, truth = curved()
    error, se = runs(EnsembleKalman(density, data, **KNOBS[knobs]), truth, 256, 24)
    ratio = np.exp(error)
    assert abs(ratio.mean() - 1) < Z * ratio.std(ddof=1) / math.sqrt(24)
    shown = int(np.isfinite(se).sum())  # few particles may hold the largest weights: then there is no bar
    assert shown >= 12
    assert (np.abs(error) < 1.96 * se).sum() >= 0.625 * shown  # 14 or fewer of 24 have probability 1e-7 at 95 %
    assert (np.abs(error) < 1.96 * se / 4).sum() < 0.625 * shown  # a twin whose errors are too small


def test_the_correction_is_needed(monkeypatch):
    """The broken twins: the ensemble itself is no sample of the curved posterior; a proposal not normalised."""
    density, data, truth = curved()
    run = motes.sample(EnsembleKalman(density, data), 1000, seed=0, progress=False)
    mean = run.mean(lambda x: x[:, 0].square())
    plain = float(at_one(EnsembleKalman(density, data), 1000, 0)[:, 0].square().mean())
    assert abs(plain - float(mean)) > Z * float(mean.se)
    right = Started.log_reference
    monkeypatch.setattr(Started, "log_reference", lambda s, z, p: right(s, z, p) + 0.3)
    error, _ = runs(EnsembleKalman(density, data, correct="weigh"), truth, 256, 24)
    assert abs(np.exp(error).mean() - 1) > Z * np.exp(error).std(ddof=1) / math.sqrt(24)


def test_evidence_of_the_linear_model_and_posterior_mean():
    density, data = linear()
    mean, _, truth = kalman(PRIOR.mean, torch.diag(PRIOR.variance))
    run = motes.sample(EnsembleKalman(density, data), 1000, seed=1, progress=False)
    assert abs(run.log_evidence - truth) < Z * run.log_evidence_se and run.log_evidence_se < 0.05
    estimate = run.mean()
    assert ((estimate.value - mean).abs() < Z * estimate.se).all()
    trace = run.trace
    assert trace["spread"][0] == 1 and 0.05 < np.nanmin(trace["spread"]) < 0.9
    assert trace["misfit"][0] > 10 and np.nanmin(trace["misfit"]) < 2


def test_the_likelihood_is_that_of_the_noise():
    _, data = linear()
    x = PRIOR.mean + torch.arange(6, dtype=F64).reshape(2, 3)
    assert torch.allclose(data(x), MultivariateNormal(x @ H.T, NOISE).log_prob(DATA))


def test_a_forward_model_that_could_take_one_point_is_given_batches():
    seen = GaussianData(lambda x: x, DATA, 1.0)
    density = Density(seen, Normal(torch.zeros(4, dtype=F64), 1.0))
    x = torch.ones(3, 4, dtype=F64)
    assert torch.allclose(density.evaluate(x)["log_likelihood"], Normal(x, 1.0).log_prob(DATA).sum(1))


@pytest.mark.parametrize("freedom", [math.inf, 5.0])
def test_mixtures_are_normalised_have_their_gradient_and_are_what_is_drawn(freedom):
    weight = torch.tensor([0.3, 0.7], dtype=F64)
    location = torch.tensor([[-1.0, 0.5], [1.0, 0.0]], dtype=F64)
    factor = torch.tensor([[[0.5, 0.0], [0.2, 0.4]], [[0.3, 0.0], [-0.3, 0.6]]], dtype=F64)
    mixture = Mixture(weight, location, factor, freedom=freedom)
    line = torch.linspace(-30, 30, 1501, dtype=F64)
    grid = torch.cartesian_prod(line, line)
    mass = mixture.log_density(grid).exp() * 0.04**2
    assert float(mass.sum()) == pytest.approx(1, abs=1e-3)
    z = location.clone().add_(0.3).requires_grad_()
    (gradient,) = torch.autograd.grad(mixture.log_density(z).sum(), z)
    assert torch.allclose(gradient, mixture.gradient(z.detach()))
    draws = mixture.sample(motes.Rng(0), 40000)
    for f in (lambda x: x, lambda x: x.cos(), lambda x: (x[:, :1] * x[:, 1:]).tanh()):
        exact, sample = mass @ f(grid), f(draws)
        assert ((sample.mean(0) - exact).abs() < Z * sample.std(0) / 200 + 1e-3).all()
    weights = torch.full((40000,), 1 / 40000, dtype=F64)
    if freedom == math.inf:
        fit = fit_mixture(motes.Rng(1), draws, weights, components=2)
        order = fit.location[:, 0].argsort()
        assert torch.allclose(fit.location[order], location, atol=0.03)
        assert torch.allclose(fit.factor[order] @ fit.factor[order].mT, factor @ factor.mT, atol=0.03)
        assert torch.allclose(fit.weight[order], weight, atol=0.02)


def test_a_started_law_is_the_same_law_with_the_same_gradient():
    density, _ = linear()
    mixture = Mixture(torch.ones(1, dtype=F64), PRIOR.mean[None], torch.eye(3, dtype=F64)[None], freedom=4.0)
    z = PRIOR.mean + 0.3 * torch.arange(6, dtype=F64).reshape(2, 3)
    for share in (0.0, 0.3):
        new, old = Started(density, mixture, share=share).evaluate(z, True), density.evaluate(z, True)
        for parts in (("log_prior", "log_likelihood"), ("prior_gradient", "likelihood_gradient")):
            assert torch.allclose(sum(new[k] for k in parts), sum(old[k] for k in parts))
        w = z.clone().requires_grad_()
        prior = PRIOR.log_prob(w).sum(1)
        (gradient,) = torch.autograd.grad(Started(density, mixture, share=share).log_reference(w, prior).sum(), w)
        assert torch.allclose(gradient, new["prior_gradient"])


@pytest.mark.parametrize("knobs", [{}, {"correct": "weigh", "form": "perturbed"}])
def test_an_interrupted_run_is_resumed_bit_for_bit_and_other_data_are_refused(tmp_path, knobs):
    density, data = linear()
    model = EnsembleKalman(density, data, **knobs)
    whole = motes.sample(model, 60, seed=2, progress=False)
    for stop in (2, len(whole.trace["t"]) - 2):
        path = tmp_path / f"{stop}"
        motes.sample(model, 60, seed=2, progress=False, checkpoint=path, max_steps=stop)
        other = GaussianData(lambda x: x @ H.T, DATA + 0.1, NOISE)
        with pytest.raises(FileError, match=r"differ in: data|log-likelihood"):
            motes.resume(path, EnsembleKalman(Density(other, PRIOR, vectorised=True), other, **knobs), progress=False)
        rest = motes.resume(path, EnsembleKalman(*linear(), **knobs), progress=False)
        assert rest.log_evidence == whole.log_evidence and torch.equal(rest.view, whole.view)


def test_faults_are_errors():
    density, data = linear()
    for knobs in ({"steps": 0}, {"inflate": 0.5}, {"defence": 1.0}):
        with pytest.raises(ValueError, match=r"must|need"):
            EnsembleKalman(density, data, **knobs)
    with pytest.raises(ShapeError, match="covariance"):
        GaussianData(lambda x: x, DATA, -1.0)
    with pytest.raises(ShapeError, match="covariance one number"):
        GaussianData(lambda x: x, DATA, torch.ones(3))
    with pytest.raises(ShapeError, match="forward must map"):
        GaussianData(lambda x: x, DATA, 1.0).misfit(torch.zeros(2, 3))
    broken = GaussianData(lambda x: (x @ H.T).log(), DATA, NOISE)
    with pytest.raises(MotesError, match="forward is not finite for particle"):
        motes.sample(EnsembleKalman(density, broken), 50, seed=0, progress=False)
    with pytest.raises(ValueError, match="at least 3"):
        motes.sample(EnsembleKalman(density, data), 2, seed=0, progress=False)
