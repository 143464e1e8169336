"""The probability flow: normal data, whose flow is linear, in closed form; orders, contraction, churn, mixtures."""

import math

import pytest
import torch

import motes
from diffusion.linear import F64
from motes.diffusion import Denoiser, VariancePreserving, gaussian, mixture
from motes.diffusion.flows import solvers
from motes.diffusion.flows.flow import ProbabilityFlow
from motes.diffusion.processes.edm import EDM
from motes.diffusion.processes.interpolant import Interpolant, RectifiedFlow
from motes.errors import FileError, NanLogPotential, UnknownName

PROCESSES = {
    "vp": VariancePreserving(),
    "edm": EDM(),
    "straight": RectifiedFlow(),
    "arc": Interpolant("trigonometric"),
}
CENTRE, SPREAD = 0.7, 0.5


def normal(process, d=1):
    return gaussian(process, torch.full((d,), CENTRE, dtype=F64), SPREAD**2 * torch.eye(d, dtype=F64))


def flowed(process, integrator, steps, times=None, **kwargs):
    """(slope, offset) of the map from noise to the last state: the flow of normal data is affine, so two points do."""
    times = process.times(steps, "snr") if times is None else times
    model = ProbabilityFlow(
        normal(process), times, integrator=integrator, shape=(1,), final="state", dtype=F64, **kwargs
    )
    particles = model.init(motes.Rng(0).at("init"), 2)
    start = particles.x["state"]
    while not model.done(particles):
        particles = model.step(motes.Rng(0).at("step", step=particles.t + 1), particles)
    end = particles.x["state"]
    slope = float((end[1] - end[0]) / (start[1] - start[0]))
    return slope, float(end[0] - slope * start[0])


def truth(process):
    """The same map of the flow itself: standardised coordinates do not move."""
    ends = []
    for t in (process.t_max, process.t_min):
        alpha, sigma = float(process.alpha(t)), float(process.sigma(t))
        ends.append((alpha * CENTRE, math.sqrt(alpha**2 * SPREAD**2 + sigma**2)))
    slope = ends[1][1] / ends[0][1]
    return slope, ends[1][0] - slope * ends[0][0]


def error(process, integrator, steps, **kwargs):
    return max(abs(a - b) for a, b in zip(flowed(process, integrator, steps, **kwargs), truth(process), strict=True))


ORDERS = {"euler": 1, "ddim": 1, "heun": 2, "dpm++2m": 2}


@pytest.mark.parametrize("integrator", ORDERS)
@pytest.mark.parametrize("process", PROCESSES)
def test_orders(process, integrator):
    """Twice the steps divide the error by 2 or by 4, to a fifth of the exponent; no sampling error."""
    process = PROCESSES[process]
    kwargs = {"times": None}
    one, two = (error(process, integrator, steps, **kwargs) for steps in (200, 400))
    assert math.log2(one / two) == pytest.approx(ORDERS[integrator], abs=0.2)
    assert two < {1: 0.05, 2: 2e-3}[ORDERS[integrator]]


def test_a_trapezoid_without_its_second_slope_is_caught(monkeypatch):
    monkeypatch.setitem(solvers.FLOWS, "heun", solvers.ddim)
    one, two = (error(PROCESSES["vp"], "heun", steps) for steps in (200, 400))
    assert abs(math.log2(one / two) - 2) > 0.2


@pytest.mark.parametrize("process", ["edm", "vp"])
def test_ddim_contracts_by_the_cosines_of_its_angles(process):
    """Centred coordinates y = x / alpha with nu = c tan a: each step multiplies the true ratio by cos(change of a)."""
    process = PROCESSES[process]
    for times in (process.times(7), process.times(10, "snr")):
        nu = torch.exp(-process.log_snr(times))
        contraction = float(torch.cos(torch.atan(nu / SPREAD).diff()).prod())
        slope, _ = flowed(process, "ddim", None, times=times)
        assert slope / truth(process)[0] == pytest.approx(contraction, rel=1e-9)
    if isinstance(process, EDM):  # equal angles are best: cos(A / n)^n
        ends = [math.atan(t / SPREAD) for t in (process.t_max, process.t_min)]
        times = (SPREAD * torch.tan(torch.linspace(*ends, 11, dtype=F64))).clamp(max=80.0)
        assert flowed(process, "ddim", None, times=times)[0] / truth(process)[0] == pytest.approx(0.884916, abs=1e-6)


def test_euler_on_straight_lines_is_ddim():
    process = PROCESSES["straight"]
    assert flowed(process, "euler", 9) == pytest.approx(flowed(process, "ddim", 9), rel=1e-10)


@pytest.mark.parametrize("churn", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("integrator", ["heun", "ddim", "euler"])
def test_churn_keeps_the_marginals(integrator, churn):
    """4000 particles, 100 steps: mean and variance at alpha 1e-6 (|z| < 4.9) with the exact start.

    Catches errors of 0.04 in the mean and 0.03 in the variance; noise without its denoising is far more (below).
    """
    process = PROCESSES["edm"]
    steps = {"heun": 40, "ddim": 400, "euler": 400}[integrator]
    times = process.times(steps)
    model = ProbabilityFlow(normal(process), times, integrator=integrator, churn=churn, shape=(1,), dtype=F64)
    view = motes.sample(model, 4000, seed=2, progress=False).view
    drift = 0.01 if integrator != "heun" else 0.002
    assert abs(float(view.mean()) - CENTRE) < 4.9 * SPREAD / math.sqrt(4000) + drift
    assert abs(float(view.var()) - SPREAD**2) < 4.9 * SPREAD**2 * math.sqrt(2 / 4000) + drift


def test_churn_whose_noise_is_not_removed_is_caught(monkeypatch):
    right = solvers.ddim
    model = ProbabilityFlow(normal(PROCESSES["edm"]), 400, integrator="ddim", churn=1.0, shape=(1,), dtype=F64)

    def late(leg):
        t = float(model.times[int((model.raised == leg.t).nonzero()[0])])
        return right(solvers.Leg(leg.process, leg.x, t, leg.s, leg.denoised, None, t, leg.model))

    monkeypatch.setitem(solvers.FLOWS, "ddim", late)
    view = motes.sample(model, 4000, seed=2, progress=False).view
    assert abs(float(view.var()) - SPREAD**2) > 4.9 * SPREAD**2 * math.sqrt(2 / 4000) + 0.01


@pytest.mark.parametrize("integrator", ["heun", "dpm++2m"])
@pytest.mark.parametrize("process", PROCESSES)
def test_a_mixture_comes_out_in_20_steps(process, integrator):
    """Moments and the mass above zero of two normals, 8000 particles at alpha 1e-6, and 4 % for the discretisation."""
    process = PROCESSES[process]
    weights, means, stds = (torch.tensor(v, dtype=F64) for v in ([0.3, 0.7], [-2.0, 1.5], [0.5, 0.8]))
    denoiser = mixture(process, weights, means[:, None], (stds**2)[:, None, None])
    times = process.times(20, "karras" if isinstance(process, EDM) else None if integrator == "heun" else "snr")
    view = motes.sample(
        ProbabilityFlow(denoiser, times, integrator=integrator, shape=(1,)), 8000, seed=3, progress=False
    ).view
    mean, second = float(weights @ means), float((weights * (means**2 + stds**2)).sum())
    fourth = float((weights * (means**4 + 6 * means**2 * stds**2 + 3 * stds**4)).sum())
    above = float((weights * torch.special.ndtr(means / stds)).sum())
    for value, exact, variance in (
        (view, mean, second - mean**2),
        (view**2, second, fourth - second**2),
        ((view > 0).to(F64), above, above * (1 - above)),
    ):
        assert abs(float(value.mean()) - exact) < 4.9 * math.sqrt(variance / 8000) + 0.04 * abs(exact)


def test_a_grid_down_to_no_noise_ends_in_the_prediction():
    process = EDM(t_min=0.0)
    for integrator in solvers.FLOWS:
        model = ProbabilityFlow(normal(process, 2), 12, integrator=integrator, shape=(2,))
        run = motes.sample(model, 5, seed=1, progress=False)
        assert bool(torch.isfinite(run.view).all()) and torch.equal(run.view, run.particles.x["state"])


@pytest.mark.parametrize(("integrator", "churn", "calls"), [("heun", 0, 21), ("ddim", 0, 11), ("dpm++2m", 0, 11)])
def test_the_model_is_asked_once_a_point(integrator, churn, calls):
    """K first-order steps and the last prediction are K + 1 calls (and one for the probe), Heun's twice K + 1."""
    exact, seen = normal(PROCESSES["vp"]), []

    def model(x, t):
        if len(x) == 7:
            seen.append((float(t[0]), x.clone()))
        return exact.data(x, t)

    denoiser = Denoiser(model, PROCESSES["vp"], predicts="data")
    motes.sample(
        ProbabilityFlow(denoiser, 10, integrator=integrator, churn=churn, shape=(1,)), 7, seed=1, progress=False
    )
    assert len(seen) == calls
    assert not any(a[0] == b[0] and torch.equal(a[1], b[1]) for i, a in enumerate(seen) for b in seen[:i])


def test_nothing_is_weighed_and_runs_are_resumed(tmp_path):
    for integrator, churn in (("heun", 0.5), ("dpm++2m", 0.0)):
        model = ProbabilityFlow(normal(PROCESSES["vp"]), 6, integrator=integrator, churn=churn, shape=(1,))
        whole = motes.sample(model, 5, seed=4, progress=False)
        assert bool((whole.log_weight == 0).all()) and math.isnan(float(whole.standard_error))
        path = tmp_path / f"{integrator}.motes"
        motes.sample(model, 5, seed=4, progress=False, checkpoint=path, callback=lambda s: s.particles.t == 3)
        assert torch.equal(motes.resume(path, model, progress=False).view, whole.view)
        motes.sample(model, 5, seed=4, progress=False, checkpoint=path, callback=lambda s: s.particles.t == 3)
        named = normal(PROCESSES["vp"]).name
        other = Denoiser(lambda x, t: 0 * x, PROCESSES["vp"], predicts="data", name=named)
        with pytest.raises(FileError, match="denoiser"):
            motes.resume(
                path, ProbabilityFlow(other, 6, integrator=integrator, churn=churn, shape=(1,)), progress=False
            )
        parts = ProbabilityFlow(
            normal(PROCESSES["vp"]), 6, integrator=integrator, churn=churn, shape=(1,), micro_batch=2
        )
        assert torch.allclose(motes.sample(parts, 5, seed=4, progress=False).view, whole.view, rtol=1e-5)


def test_what_does_not_fit_is_said():
    denoiser = normal(PROCESSES["vp"])
    with pytest.raises(UnknownName, match="rk45"):
        ProbabilityFlow(denoiser, 5, integrator="rk45", shape=(1,))
    with pytest.raises(ValueError, match="churn"):
        ProbabilityFlow(denoiser, 5, churn=-1.0, shape=(1,))
    with pytest.raises(ValueError, match="extrapolates"):
        ProbabilityFlow(denoiser, 5, integrator="dpm++2m", churn=0.1, shape=(1,))
    with pytest.raises(UnknownName, match="final"):
        ProbabilityFlow(denoiser, 5, shape=(1,), final="x0")  # type: ignore[arg-type]
    broken = Denoiser(lambda x, t: x / 0, PROCESSES["vp"], predicts="data")
    with pytest.raises(NanLogPotential, match=r"step 0 of 5 .*particles \[0, 1, 2\]"):
        motes.sample(ProbabilityFlow(broken, 5, shape=(1,)), 3, seed=1, progress=False)
