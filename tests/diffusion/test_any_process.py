"""Reverse diffusion on every process with every integrator: weights by quadrature, moments by runs."""

import math

import pytest
import torch

import motes
from diffusion.linear import F64, Normal, expected_weight
from motes.diffusion import VarianceExploding, VariancePreserving, gaussian, mixture
from motes.diffusion.processes import transition
from motes.diffusion.processes.edm import EDM
from motes.diffusion.processes.interpolant import Interpolant, RectifiedFlow
from motes.diffusion.processes.tabulated import Tabulated

TABLE = Tabulated(torch.cumprod(1 - torch.linspace(1e-3, 0.05, 200, dtype=F64), 0))
PROCESSES = {
    "vp": (VariancePreserving(), [0.6, 0.4, 0.2]),
    "cosine": (VariancePreserving(schedule="cosine"), [0.8, 0.6, 0.3]),
    "ve": (VarianceExploding(sigma_max=3.0), [1.0, 0.9, 0.7]),
    "edm": (EDM(t_max=3.0), [3.0, 1.8, 0.6]),
    "straight": (RectifiedFlow(), [0.8, 0.6, 0.3]),
    "arc": (Interpolant("trigonometric"), [0.8, 0.6, 0.3]),
    "own": (Interpolant((lambda t: (1 - t) ** 2, lambda t: t)), [0.7, 0.5, 0.3]),
    "table": (TABLE, [150.0, 110.0, 50.0]),
}
INTEGRATORS = {
    "ancestral": ("ancestral", 1.0),
    "ddim": ("ddim", 0.6),
    "euler-maruyama": ("euler-maruyama", 1.0),
    "exponential": ("exponential", 1.0),
    "little churn": ("exponential", 0.6),
    "much churn": ("exponential", 1.3),
}
CENTRE, PRECISION, DATA = 1.1, 0.8, (0.4, 0.7)


def chain(process, table):
    """The law of the last denoised prediction, by recursion over the table, for one-dimensional normal data."""
    mean, variance = 0.0, process.start_std**2
    centre, spread = DATA
    for k in range(table.steps + 1):
        alpha, sigma = float(process.alpha(table.times[k])), float(process.sigma(table.times[k]))
        gain = alpha * spread / (alpha**2 * spread + sigma**2)
        offset = centre - gain * alpha * centre
        if k == table.steps:
            return Normal(
                torch.tensor([gain * mean + offset], dtype=F64), torch.tensor([[gain**2 * variance]], dtype=F64)
            )
        slope = float(table.keep[k] + table.pull[k] * gain)
        mean, variance = slope * mean + float(table.pull[k]) * offset, slope**2 * variance + float(table.std[k]) ** 2
    raise AssertionError


def expected(process, times, integrator, noise, guidance):
    """(E[exp(log_weight)] by quadrature over the noise, the true normaliser of the chain)."""
    denoiser = gaussian(process, torch.tensor([DATA[0]], dtype=F64), torch.tensor([[DATA[1]]], dtype=F64))
    model = motes.ReverseDiffusion(
        denoiser,
        torch.tensor(times, dtype=F64),
        reward=lambda x: -0.5 * PRECISION * (x[:, 0] - CENTRE) ** 2,
        guidance=guidance,
        shape=(1,),
        integrator=integrator,
        noise=noise,
        dtype=F64,
    )
    law = chain(process, model.table)
    log_z, _ = law.tilted(torch.tensor([CENTRE], dtype=F64), torch.tensor([[PRECISION]], dtype=F64))
    return expected_weight(model, 40), math.exp(log_z)


@pytest.mark.parametrize("integrator", INTEGRATORS)
@pytest.mark.parametrize("process", PROCESSES)
def test_the_expected_weight_is_the_normaliser(process, integrator):
    """Two steps, guided and not, at any step size: no sampling error; an error of 1e-5 is caught."""
    process, times = PROCESSES[process]
    for guidance in (None, 0.7):
        value, truth = expected(process, times, *INTEGRATORS[integrator], guidance)
        assert value == pytest.approx(truth, rel=1e-5)


def test_a_step_with_too_little_pull_is_caught(monkeypatch):
    right = transition.exponential

    def wrong(process, t, s, noise):
        keep, pull, std = right(process, t, s, noise)
        return keep, 0.9 * pull, std

    assert marginal_gap(PROCESSES["straight"][0], "exponential", 1.0, 800) < 0.02
    monkeypatch.setitem(transition.INTEGRATORS, "exponential", wrong)
    assert marginal_gap(PROCESSES["straight"][0], "exponential", 1.0, 800) > 0.1


def marginal_gap(process, integrator, noise, steps):
    """The largest gap in mean and variance between the chain's law and that of normal data, from a wide start."""
    table = transition.transitions(process, process.times(steps, "snr"), integrator=integrator, noise=noise)
    law = chain(process, table)
    return max(abs(float(law.mean[0]) - DATA[0]), abs(float(law.covariance[0, 0]) - DATA[1]))


@pytest.mark.parametrize("integrator", INTEGRATORS)
@pytest.mark.parametrize("process", ["vp", "wide ve", "edm", "straight", "own", "table"])
def test_a_mixture_tilted_and_not(process, integrator):
    """Two normals and r = x / 2, 2000 particles and 100 steps: Z, mean and second moment, by quadrature.

    Within 4.9 standard errors of independent particles and 5 % for the discretisation: a forgotten tilt is off by 30 %.
    """
    wide = {"wide ve": VarianceExploding(sigma_max=20.0), "edm": EDM(t_max=20.0)}
    process = wide[process] if process in wide else PROCESSES[process][0]
    weights, means, stds = (torch.tensor(v, dtype=F64) for v in ([0.3, 0.7], [-2.0, 1.5], [0.5, 0.8]))
    denoiser = mixture(process, weights, means[:, None], (stds**2)[:, None, None])
    name, noise = INTEGRATORS[integrator]
    spacing = None if name == "euler-maruyama" and isinstance(process, VariancePreserving) else "snr"
    model = motes.ReverseDiffusion(
        denoiser,
        process.times(100, spacing),
        reward=lambda x: x[:, 0] / 2,
        shape=(1,),
        integrator=name,
        noise=noise,
    )
    run = motes.sample(model, 2000, seed=5, progress=False)
    grid = torch.linspace(-8, 8, 4001, dtype=F64)
    density = (weights / stds * torch.exp(-0.5 * ((grid[:, None] - means) / stds) ** 2)).sum(1)
    tilted = density * torch.exp(grid / 2)
    z = float(tilted.sum() / density.sum())
    p = tilted / tilted.sum()
    assert run.log_evidence == pytest.approx(math.log(z), abs=4.9 * 1.0 / math.sqrt(2000) + 0.05)
    w, x = torch.softmax(run.log_weight, 0), run.view[:, 0].to(F64)
    for f in (lambda x: x, lambda x: x**2):
        exact = float(p @ f(grid))
        spread = math.sqrt(float(p @ f(grid) ** 2) - exact**2)
        assert abs(float(w @ f(x)) - exact) < 4.9 * 1.5 * spread / math.sqrt(2000) + 0.05 * abs(exact)
