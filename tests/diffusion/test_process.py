"""Processes, their grids, the table of transitions, and the four predictions of a denoiser."""

import math

import pytest
import torch

from diffusion.linear import F64
from motes.core.errors import MotesError, ShapeError, UnknownName
from motes.diffusion import Denoiser, VarianceExploding, VariancePreserving, gaussian, mixture, transitions

PROCESSES = [
    VariancePreserving(),
    VariancePreserving(beta_min=2.0, beta_max=2.0),
    VariancePreserving(schedule="cosine"),
    VarianceExploding(),
]


@pytest.mark.parametrize("process", PROCESSES)
def test_drift_and_diffusion_are_those_of_the_marginals(process):
    """f = d log(alpha) / dt and g^2 = d sigma^2 / dt - 2 f sigma^2, by automatic differentiation."""
    t = torch.linspace(0.05, 0.95, 19, dtype=F64, requires_grad=True)
    (f,) = torch.autograd.grad(torch.log(process.alpha(t)).sum() + 0 * t.sum(), t)
    (rate,) = torch.autograd.grad(process.sigma(t).square().sum(), t)
    assert torch.allclose(process.drift(t), f, rtol=1e-12, atol=1e-14)
    assert torch.allclose(process.diffusion(t) ** 2, rate - 2 * f * process.sigma(t) ** 2, rtol=1e-10)


@pytest.mark.parametrize("spacing", ["time", "snr", "karras", "geometric"])
@pytest.mark.parametrize("process", PROCESSES)
def test_grids_fall_from_noise_to_data(process, spacing):
    if spacing == "geometric" and process.t_min == 0:
        with pytest.raises(ValueError, match="t_min"):
            process.times(7, spacing)
        return
    times = process.times(7, spacing)
    assert len(times) == 8 and bool((times.diff() < 0).all())
    assert float(times[0]) == process.t_max and float(times[-1]) == process.t_min
    if spacing == "snr":
        gaps = process.log_snr(times).diff()
        assert torch.allclose(gaps, gaps.mean(), rtol=1e-8)
    if spacing == "karras":
        gaps = torch.exp(-process.log_snr(times) / process.rho).diff()
        assert torch.allclose(gaps, gaps.mean(), rtol=1e-8)
    if spacing == "geometric":
        assert torch.allclose(times[1:] / times[:-1], times[1] / times[0], rtol=1e-12)
    t = torch.linspace(0.05, 0.95, 19, dtype=F64)
    assert torch.allclose(process.time(process.log_snr(t)), t, rtol=1e-9)


def test_start_law():
    assert VariancePreserving().start_std == 1.0
    assert VarianceExploding(sigma_max=30.0).start_std == pytest.approx(30.0)


@pytest.mark.parametrize("process", PROCESSES)
def test_ancestral_steps_keep_the_marginals_when_the_data_is_known(process):
    """With x_0 given, alpha_s x_0 and sigma_s come out of every step, for every amount of noise."""
    for noise in (0.2, 1.0):
        table = transitions(process, 6, "ancestral", noise)
        t, s = table.times[:-1], table.times[1:]
        assert torch.allclose(table.keep * process.alpha(t) + table.pull, process.alpha(s), rtol=1e-12)
        variance = (table.keep * process.sigma(t)) ** 2 + table.std**2
        assert torch.allclose(variance, process.sigma(s) ** 2, rtol=1e-10)


@pytest.mark.parametrize("integrator", ["ancestral", "euler-maruyama"])
def test_steps_without_noise_are_refused_with_the_reason(integrator):
    with pytest.raises(ValueError, match="no density") as error:
        transitions(VariancePreserving(), 5, integrator, 0.0)
    assert "without noise" in str(error.value)
    times = torch.tensor([0.9, 0.5, 0.0])
    if integrator == "ancestral":
        with pytest.raises(ValueError, match=r"step 2 .*has no noise.*no density"):
            transitions(VariancePreserving(), times, integrator)
    with pytest.raises(ValueError, match="no density"):
        transitions(VariancePreserving(), 5, integrator, float("nan"))


def test_grids_and_names_that_do_not_fit():
    process = VariancePreserving()
    with pytest.raises(UnknownName, match="no integrator is called 'heun'; there are: ancestral, euler-maruyama"):
        transitions(process, 5, "heun")
    with pytest.raises(UnknownName, match="spacing"):
        process.times(5, "cosine")
    with pytest.raises(UnknownName, match="schedule"):
        VariancePreserving(schedule="quadratic")  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="falling"):
        transitions(process, torch.tensor([0.1, 0.5]))
    with pytest.raises(ValueError, match="at least 1 step"):
        process.times(0)
    with pytest.raises(ValueError, match="more variance"):
        transitions(process, 4, "ancestral", 1.5)
    with pytest.raises(ValueError, match="t_max"):
        VariancePreserving(schedule="cosine", t_max=1.0)
    with pytest.raises(ValueError, match="sigma_min"):
        VarianceExploding(sigma_min=2.0, sigma_max=1.0)


@pytest.mark.parametrize("process", PROCESSES)
def test_all_predictions_are_one(process):
    """A model of each kind, made from an exact one, gives back the exact data, noise, score, velocity and flow."""
    exact = gaussian(process, torch.tensor([0.3, -1.0]), torch.tensor([[0.5, 0.2], [0.2, 0.8]]))
    x = torch.linspace(-2, 2, 10, dtype=F64).reshape(5, 2)
    for t in (0.2, 0.7):
        for kind in ("data", "noise", "score", "velocity", "flow", "backward flow"):

            def model(x, t, kind=kind):
                return -exact.flow(x, t) if kind == "backward flow" else getattr(exact, kind)(x, t)

            copy = Denoiser(model, process, predicts=kind)
            for question in ("data", "noise", "score", "velocity", "flow"):
                want, got = getattr(exact, question)(x, t), getattr(copy, question)(x, t)
                assert torch.allclose(got, want, rtol=1e-7, atol=1e-8), (kind, question)


@pytest.mark.parametrize("process", PROCESSES)
def test_the_flow_carries_the_marginals(process):
    """Normal data: the flow is the linear map whose divergence is that of the law's growth, by automatic derivatives.

    d/dt log N(x; m_t, S_t) along the flow is minus its divergence (the continuity equation), at any point.
    """
    denoiser = gaussian(process, torch.tensor([0.3, -1.0]), torch.tensor([[0.5, 0.2], [0.2, 0.8]]))
    x = torch.linspace(-2, 2, 10, dtype=F64).reshape(5, 2)
    for t in (0.2, 0.7):
        flow = denoiser.flow(x, t)
        step = 1e-5
        ahead, behind = (denoiser.log_density(x + h * flow, t + h) for h in (step, -step))
        slope = (ahead - behind) / (2 * step)
        jacobian = torch.autograd.functional.jacobian(lambda x, t=t: denoiser.flow(x, t), x)
        divergence = torch.einsum("ndnd->n", jacobian)
        assert torch.allclose(slope, -divergence, rtol=1e-6, atol=1e-7)


def test_the_exact_score_is_the_gradient_of_the_log_density():
    process = VariancePreserving()
    weights, means = torch.tensor([0.3, 0.7], dtype=F64), torch.tensor([[-2.0], [1.5]], dtype=F64)
    variances = torch.tensor([[[0.25]], [[0.64]]], dtype=F64)
    denoiser = mixture(process, weights, means, variances)
    x = torch.linspace(-3, 3, 7, dtype=F64)[:, None].requires_grad_()
    alpha, sigma = process.alpha(0.3), process.sigma(0.3)
    spread = alpha**2 * variances.flatten() + sigma**2
    log_p = torch.logsumexp(weights.log() - 0.5 * spread.log() - 0.5 * (x - alpha * means.flatten()) ** 2 / spread, 1)
    (score,) = torch.autograd.grad(log_p.sum(), x)
    assert torch.allclose(denoiser.score(x.detach(), 0.3), score, rtol=1e-6)
    log_p = log_p - 0.5 * math.log(2 * math.pi)
    assert torch.allclose(denoiser.log_density(x.detach(), 0.3), log_p.detach(), rtol=1e-9, atol=1e-9)
    each = torch.tensor([0.3, 0.9] * 3 + [0.3], dtype=F64)  # a time for each particle
    apart = torch.cat([denoiser.data(x[i : i + 1].detach(), float(t)) for i, t in enumerate(each)])
    assert torch.allclose(denoiser.data(x.detach(), each), apart, rtol=1e-12)
    assert denoiser.log_density(x.detach().float(), each).dtype == F64


def test_log_densities_that_are_not_there_or_do_not_fit():
    plain = Denoiser(lambda x, t: x, VariancePreserving())
    assert not plain.has_log_density and gaussian(VariancePreserving(), torch.zeros(1), torch.eye(1)).has_log_density
    with pytest.raises(MotesError, match="no log-density"):
        plain.log_density(torch.zeros(2, 1), 0.5)
    wrong = Denoiser(lambda x, t: x, VariancePreserving(), log_density=lambda x, t: x)
    with pytest.raises(ShapeError, match="one number a particle"):
        wrong.log_density(torch.zeros(2, 1), 0.5)
    with pytest.raises(ValueError, match="positive definite"):
        gaussian(VariancePreserving(), torch.zeros(2), torch.ones(2, 2))


def test_what_the_model_is_told():
    process, seen = VarianceExploding(), []

    def model(x, c):
        seen.append(c)
        return x

    for condition in ("t", "sigma", lambda t: 1000 * t):
        Denoiser(model, process, predicts="data", condition=condition).data(torch.zeros(3, 2), 0.5)
    assert all(c.shape == (3,) and c.dtype == torch.float32 for c in seen)
    assert [float(c[0]) for c in seen] == pytest.approx([0.5, math.sqrt(0.01 * 50), 500.0])
    with pytest.raises(ShapeError, match=r"shape \(3, 1\)"):
        Denoiser(lambda x, t: x[:, :1], process).data(torch.zeros(3, 2), 0.5)
    with pytest.raises(UnknownName, match="prediction"):
        Denoiser(model, process, predicts="x0")  # type: ignore[arg-type]
    with pytest.raises(UnknownName, match="condition"):
        Denoiser(model, process, condition="step")  # type: ignore[arg-type]
