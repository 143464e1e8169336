"""Processes, their grids, the table of transitions, and the four predictions of a denoiser."""

import math
from dataclasses import replace

import pytest
import torch

from diffusion.linear import F64
from motes.diffusion import (
    EDM,
    Denoiser,
    Interpolant,
    RectifiedFlow,
    Tabulated,
    VarianceExploding,
    VariancePreserving,
    gaussian,
    mixture,
    preconditioned,
    transitions,
)
from motes.diffusion.processes import processes
from motes.errors import MotesError, ShapeError, UnknownName

PROCESSES = [
    EDM(),
    RectifiedFlow(),
    Interpolant("trigonometric"),
    Interpolant((lambda t: 1 - t**2, lambda t: torch.sqrt(0.2 * t + 0.8 * t**2))),
    VariancePreserving(),
    VariancePreserving(beta_min=2.0, beta_max=2.0),
    VariancePreserving(schedule="cosine"),
    VarianceExploding(),
]
KNOWN = {*map(type, PROCESSES), Tabulated}
PROCESSES += [kind() for kind in processes.values() if kind not in KNOWN]


@pytest.mark.parametrize("process", PROCESSES, ids=lambda process: type(process).__name__)
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
        table = transitions(process, 6, integrator="ancestral", noise=noise)
        t, s = table.times[:-1], table.times[1:]
        assert torch.allclose(table.keep * process.alpha(t) + table.pull, process.alpha(s), rtol=1e-12)
        variance = (table.keep * process.sigma(t)) ** 2 + table.std**2
        assert torch.allclose(variance, process.sigma(s) ** 2, rtol=1e-10)


@pytest.mark.parametrize("process", PROCESSES)
def test_the_exponential_step_is_the_ancestral_one_at_full_noise_and_without_noise(process):
    for noise in (0.0, 1.0):
        one, other = (
            transitions(process, 6, integrator=name, noise=noise, still=True) for name in ("exponential", "ddim")
        )
        for a, b in zip(*((t.keep, t.pull, t.std) for t in (one, other)), strict=True):
            assert torch.allclose(a, b, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("noise", [0.4, 1.0, 1.7])
@pytest.mark.parametrize("process", PROCESSES)
def test_exponential_steps_do_not_depend_on_how_a_stretch_is_cut_where_the_data_is_known(process, noise):
    """With a fixed prediction the step is exact, so one step is two; and the marginals of known data are kept."""
    times = process.times(8, "snr")[2:7:2]
    two, one = (
        transitions(process, times, integrator="exponential", noise=noise),
        transitions(process, times[[0, 2]], integrator="exponential", noise=noise),
    )
    keep = two.keep.prod()
    pull = two.keep[1] * two.pull[0] + two.pull[1]
    std = torch.sqrt((two.keep[1] * two.std[0]) ** 2 + two.std[1] ** 2)
    assert torch.allclose(torch.stack([keep, pull, std]), torch.stack([one.keep[0], one.pull[0], one.std[0]]))
    t, s = times[:-1], times[1:]
    assert torch.allclose(two.keep * process.alpha(t) + two.pull, process.alpha(s), rtol=1e-12)
    assert torch.allclose((two.keep * process.sigma(t)) ** 2 + two.std**2, process.sigma(s) ** 2, rtol=1e-10)


INTEGRATORS = {
    "ddpm": ("ancestral", 1.0),
    "ddim, half": ("ddim", 0.5),
    "euler": ("euler-maruyama", 1.0),
    "euler, half": ("euler-maruyama", 0.7),
    "exponential": ("exponential", 1.0),
    "much churn": ("exponential", 1.5),
}


@pytest.mark.parametrize("design", INTEGRATORS)
@pytest.mark.parametrize("process", PROCESSES)
def test_the_same_marginals_at_any_churn(process, design):
    """Normal data, whose denoiser is affine: the law of the last state by recursion, against the law of x at t_min.

    No sampling, from the law of x at t_max. Twice the steps halve the error (first order); errors of 0.02 are seen.
    """
    integrator, noise = INTEGRATORS[design]
    centre, variance = 0.7, 0.6
    errors = []
    for steps in (400, 800):
        table = transitions(process, process.times(steps, "snr"), integrator=integrator, noise=noise)
        t = table.times[:-1]
        alpha, sigma = process.alpha(t), process.sigma(t)
        gain = alpha * variance / (alpha**2 * variance + sigma**2)  # data = gain x + (1 - gain alpha) centre
        slope = table.keep + table.pull * gain
        offset = table.pull * (1 - gain * alpha) * centre
        start = process.alpha(process.t_max), process.sigma(process.t_max)
        mean, spread = float(start[0] * centre), float(start[0] ** 2 * variance + start[1] ** 2)
        for a, b, s in zip(slope.tolist(), offset.tolist(), table.std.tolist(), strict=True):
            mean, spread = a * mean + b, a * a * spread + s * s
        end = process.alpha(process.t_min), process.sigma(process.t_min)
        truth = float(end[0] * centre), float(end[0] ** 2 * variance + end[1] ** 2)
        errors.append(max(abs(mean - truth[0]), abs(spread - truth[1])))
    assert errors[1] < 0.02 and (errors[1] < 0.55 * errors[0] or errors[1] < 1e-6), errors


def spread_at_the_end(process, variance, table):
    """The variance of the last state over that of x at the last time, less 1, for centred normal data."""
    alpha, sigma = process.alpha(table.times), process.sigma(table.times)
    gain = (alpha * variance / (alpha**2 * variance + sigma**2)).tolist()
    first = float(alpha[0] ** 2 * variance + sigma[0] ** 2)
    both = torch.tensor([[first, 0.0], [0.0, 0.0]], dtype=torch.float64)  # of the state and the prediction before
    for k in range(table.steps):
        keep, pull, std, back = (float(v[k]) for v in (table.keep, table.pull, table.std, table.back))
        step = torch.tensor([[keep + (pull + back) * gain[k], -back], [gain[k], 0.0]], dtype=torch.float64)
        both = step @ both @ step.T
        both[0, 0] += std**2
    return float(both[0, 0] / (alpha[-1] ** 2 * variance + sigma[-1] ** 2)) - 1


@pytest.mark.parametrize("noise", [1.0, 0.6, 1.3])
@pytest.mark.parametrize("variance", [0.1, 1.0, 9.0])
@pytest.mark.parametrize("process", PROCESSES)
def test_the_multistep_integrator_is_of_second_order(process, variance, noise):
    """Twice the steps quarter the error of the variance, and at 50 steps it is at most a fifth of the ancestral one.

    The twin: without the correction it halves.
    """
    coarse, fine = (
        spread_at_the_end(
            process,
            variance,
            transitions(process, process.times(k, "snr"), integrator="multistep", noise=noise, history=True),
        )
        for k in (400, 800)
    )
    assert abs(fine) < 0.3 * abs(coarse) and abs(fine) < 1e-3
    coarse, fine = (
        spread_at_the_end(process, variance, replace(t, back=torch.zeros_like(t.std)))
        for t in (
            transitions(process, process.times(k, "snr"), integrator="exponential", noise=noise) for k in (400, 800)
        )
    )
    assert abs(fine) > 0.4 * abs(coarse)
    times = process.times(50, "snr")
    first = transitions(process, times, integrator="exponential", noise=noise)
    second = transitions(process, times, integrator="multistep", noise=noise, history=True)
    plain = spread_at_the_end(process, variance, replace(first, back=torch.zeros_like(first.std)))
    assert abs(spread_at_the_end(process, variance, second)) < 0.2 * abs(plain)


def test_samplers_that_do_not_look_back_refuse_the_integrator():
    process = VariancePreserving()
    with pytest.raises(UnknownName, match="multistep"):
        transitions(process, 5, integrator="multistep")
    table = transitions(process, 5, integrator="multistep", history=True)
    assert table.digest != replace(table, back=None).digest
    with pytest.raises(ValueError, match="does not keep the step before"):
        transitions(process, table)
    assert transitions(process, table, history=True) is table


def test_steps_of_second_order_are_even_in_the_ratio_of_signal_to_noise():
    process = VariancePreserving()
    even = process.log_snr(transitions(process, 8, integrator="multistep", history=True).times).diff()
    assert float(even.max() - even.min()) < 1e-6
    assert torch.equal(transitions(EDM(), 8, integrator="multistep", history=True).times, EDM().times(8))


@pytest.mark.parametrize("integrator", ["ancestral", "euler-maruyama", "exponential"])
def test_steps_without_noise_are_refused_with_the_reason(integrator):
    with pytest.raises(ValueError, match="no density") as error:
        transitions(VariancePreserving(), 5, integrator=integrator, noise=0.0)
    assert "without noise" in str(error.value)
    times = torch.tensor([0.9, 0.5, 0.0])
    if integrator != "euler-maruyama":
        with pytest.raises(ValueError, match=r"step 2 .*has no noise.*no density"):
            transitions(VariancePreserving(), times, integrator=integrator)
    with pytest.raises(ValueError, match="no density"):
        transitions(VariancePreserving(), 5, integrator=integrator, noise=float("nan"))


def test_grids_and_names_that_do_not_fit():
    process = VariancePreserving()
    with pytest.raises(UnknownName, match="no integrator is called 'heun'; there are: ancestral, ddim, euler"):
        transitions(process, 5, integrator="heun")
    with pytest.raises(UnknownName, match="spacing"):
        process.times(5, "cosine")
    with pytest.raises(UnknownName, match="schedule"):
        VariancePreserving(schedule="quadratic")  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="falling"):
        transitions(process, torch.tensor([0.1, 0.5]))
    with pytest.raises(ValueError, match="at least 1 step"):
        process.times(0)
    with pytest.raises(ValueError, match="more variance"):
        transitions(process, 4, integrator="ancestral", noise=1.5)
    with pytest.raises(ValueError, match="t_max"):
        VariancePreserving(schedule="cosine", t_max=1.0)
    for made in (lambda: RectifiedFlow(t_max=1.0), lambda: Interpolant("linear", t_max=1.0)):
        with pytest.raises(ValueError, match="less than 1"):
            made()
    with pytest.raises(ValueError, match=r"finite log\(alpha / sigma\)"):
        EDM(t_min=0.0).times(5, "snr")
    assert float(EDM(t_min=0.0).times(5)[-1]) == 0.0 and bool((EDM(t_min=0.0).times(5).diff() < 0).all())
    with pytest.raises(ValueError, match="rho"):
        EDM(rho=0.0)
    with pytest.raises(UnknownName, match="path"):
        Interpolant("lines")
    with pytest.raises(ValueError, match="must fall"):
        Interpolant((lambda t: t, lambda t: 1 - t))
    with pytest.raises(ValueError, match="positive"):
        Interpolant((lambda t: 0.5 - t, lambda t: t))
    with pytest.raises(ValueError, match="derivative of alpha"):
        Interpolant("linear", rates_of=(torch.ones_like, torch.ones_like))
    with pytest.raises(ValueError, match="derivative of sigma"):
        Interpolant((lambda t: 1 - t, lambda t: t.detach() + 0 * t))
    with pytest.raises(ValueError, match="lies between"):
        Interpolant("linear").time(50.0)
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


def test_paths_of_ones_own_are_those_with_names():
    t = torch.linspace(0.01, 0.99, 21, dtype=F64)
    line, arc = Interpolant(), Interpolant("trigonometric")
    for a, b in ((line, RectifiedFlow()), (arc, VariancePreserving(schedule="cosine"))):
        for name in ("alpha", "sigma", "drift", "diffusion", "log_snr"):
            assert torch.allclose(getattr(a, name)(t), getattr(b, name)(t), rtol=1e-10), name
        assert torch.allclose(torch.stack(a.rates(t)), torch.stack(b.rates(t)), rtol=1e-10)
    given = Interpolant((lambda t: 1 - t**2, lambda t: t), rates_of=(lambda t: -2 * t, lambda t: 1.0))
    taken = Interpolant((lambda t: 1 - t**2, lambda t: t))
    assert torch.allclose(torch.stack(given.rates(t)), torch.stack(taken.rates(t)), rtol=1e-14)
    assert (
        taken.settings()["path"]
        == given.settings()["path"]
        != Interpolant((lambda t: 1 - t, lambda t: t)).settings()["path"]
    )


@pytest.mark.parametrize("process", PROCESSES)
def test_the_flow_and_the_score_are_one_another(process):
    """score = (alpha v - alpha' x) / (sigma (alpha' sigma - alpha sigma')), to rounding."""
    denoiser = gaussian(process, torch.tensor([0.3]), torch.tensor([[0.5]]))
    x = torch.linspace(-2, 2, 9, dtype=F64)[:, None]
    for t in (0.2, 0.7):
        alpha, sigma, (da, ds) = process.alpha(t), process.sigma(t), process.rates(t)
        score = (alpha * denoiser.flow(x, t) - da * x) / (sigma * (da * sigma - alpha * ds))
        exact = (alpha * 0.3 - x) / (alpha**2 * 0.5 + sigma**2)
        assert float((score - exact).abs().max()) < 1e-6 * float(exact.abs().max())  # given in float32
        asked = Denoiser(denoiser.flow, process, predicts="flow").score(x, t)
        assert float((asked - denoiser.score(x, t)).abs().max()) < 1e-12 * float(1 / sigma)


def test_networks_with_scaled_inputs_and_outputs():
    """The network that is right for normal data of the same spread is zero: everything is in the skip connection."""
    process = EDM()
    denoiser = preconditioned(lambda x, c: 0 * x, process, sigma_data=0.5, name="nothing")
    exact = gaussian(process, torch.zeros(2), 0.25 * torch.eye(2))
    x = torch.linspace(-3, 3, 8, dtype=F64).reshape(4, 2)
    for t in (0.01, 1.0, 30.0):
        assert torch.allclose(denoiser.data(x, t), exact.data(x, t), rtol=1e-9)
    seen = []
    preconditioned(lambda x, c: seen.append((x, c)) or x, VariancePreserving(), sigma_data=0.5).data(x, 0.4)
    (scaled, c), snr = seen[0], VariancePreserving().log_snr(0.4)
    assert torch.allclose(c, (-snr / 4).expand(4))
    alpha, sigma = VariancePreserving().alpha(0.4), VariancePreserving().sigma(0.4)
    assert torch.allclose(scaled, x / torch.sqrt(sigma**2 + 0.25 * alpha**2))
    with pytest.raises(ValueError, match="sigma_data"):
        preconditioned(lambda x, c: x, process, sigma_data=0.0)
