"""The weights of reverse diffusion are right: by quadrature over all noise, and over many runs with resampling."""

import math

import pytest
import torch

import motes
from diffusion.linear import F64, Normal, chain, expected_weight
from motes.diffusion import VarianceExploding, VariancePreserving, gaussian, mixture
from motes.diffusion.processes import transition

VP = VariancePreserving()
COSINE = VariancePreserving(schedule="cosine", t_max=0.98)
VE = VarianceExploding(sigma_min=0.05, sigma_max=8.0)
PROCESSES = {"vp": VP, "cosine": COSINE, "ve": VE}
MILD = VarianceExploding(sigma_min=0.3, sigma_max=1.5)  # so mild that a coarse grid of nodes integrates it
NARROW = {"vp": (VP, VP.times(9)[[5, 7, 8]]), "ve": (MILD, MILD.times(2))}
GUIDANCE = {"none": None, "reward": "reward", "half": 0.5, "wild": lambda x, t: torch.sin(3 * x) + t}
ONE = Normal(torch.tensor([0.4], dtype=F64), torch.tensor([[0.6]], dtype=F64))
CENTRE, PRECISION = torch.tensor([1.0], dtype=F64), torch.tensor([[1.5]], dtype=F64)


def quadratic(centre, precision):
    return lambda x: -0.5 * torch.einsum("ni,ij,nj->n", x - centre.to(x), precision.to(x), x - centre.to(x))


def one_dimensional(process, steps=2, **kwargs):
    denoiser = gaussian(process, ONE.mean, ONE.covariance)
    kwargs = {"reward": quadratic(CENTRE, PRECISION), "shape": (1,), "dtype": F64, **kwargs}
    return motes.ReverseDiffusion(denoiser, steps, **kwargs)


@pytest.mark.parametrize("final", ["denoised", "state"])
@pytest.mark.parametrize("guidance", GUIDANCE)
@pytest.mark.parametrize("integrator", ["multistep", "ancestral", "euler-maruyama"])
@pytest.mark.parametrize("process", ["vp", "ve"])
def test_the_expected_weight_is_the_normaliser_of_the_discretised_chain(process, integrator, guidance, final):
    """Exact at 2 steps: quadrature over start and noise against the recursion's closed form."""
    process, times = NARROW[process]
    model = one_dimensional(process, times, guidance=GUIDANCE[guidance], integrator=integrator, final=final)
    log_z, law = chain(process, times, ONE, integrator, final).tilted(CENTRE, PRECISION)
    assert expected_weight(model, 48) == pytest.approx(math.exp(log_z), rel=1e-8)
    mean = expected_weight(model, 48, lambda x: x[:, 0]) / math.exp(log_z)
    assert mean == pytest.approx(float(law.mean), rel=1e-7)


@pytest.mark.parametrize("schedule", ["signal", "linear", "constant", "end", lambda t: 1 - t])
@pytest.mark.parametrize("potential", ["difference", "max", "sum"])
def test_the_path_telescopes_whatever_the_potential_and_the_schedule(potential, schedule):
    process, times = NARROW["vp"]
    model = one_dimensional(process, times, guidance=0.7, potential=potential, schedule=schedule)
    log_z, _ = chain(process, times, ONE, "multistep", "denoised").tilted(CENTRE, PRECISION)
    assert expected_weight(model, 40) == pytest.approx(math.exp(log_z), rel=1e-8)


@pytest.mark.parametrize("noise", [0.3, 0.7])
def test_less_noise_in_a_step_keeps_the_weights_exact(noise):
    """The reference is the same sampler without guidance, whose weights are the reward alone."""
    process, times = NARROW["vp"]
    kwargs = {"noise": noise, "integrator": "euler-maruyama"}
    plain = one_dimensional(process, times, schedule="end", **kwargs)
    guided = one_dimensional(process, times, guidance=GUIDANCE["wild"], **kwargs)
    assert expected_weight(guided, 40) == pytest.approx(expected_weight(plain, 40), rel=1e-6)


RIGHT = transition.log_reference_over_guided


@pytest.mark.parametrize("factor", [-1, 0])
def test_a_wrong_transition_ratio_is_caught(monkeypatch, factor):
    """The twins: the ratio upside down, and no ratio at all, which only shows in guided runs."""
    monkeypatch.setattr(transition, "log_reference_over_guided", lambda xi, shift: factor * RIGHT(xi, shift))
    process, times = NARROW["vp"]
    log_z, _ = chain(process, times, ONE, "multistep", "denoised").tilted(CENTRE, PRECISION)
    value = expected_weight(one_dimensional(process, times, guidance="reward"), 40)
    assert abs(value / math.exp(log_z) - 1) > 0.02


def test_a_linear_reward_and_its_optimal_guidance_leave_only_the_start():
    """Doob's transform: the log-weight is affine in the starting noise, with the slope that the chain carries over."""
    process, steps, slope = VP, 12, 1.3
    gain = float(ONE.covariance)
    table = motes.diffusion.transitions(process, steps, integrator="euler-maruyama")
    times = table.times
    alpha, sigma = process.alpha(times), process.sigma(times)
    derivative = alpha * gain / (alpha**2 * gain + sigma**2)  # of the denoised prediction, at each time
    push = [float(slope * derivative[-1])]
    for k in reversed(range(steps)):
        push.insert(0, float(table.keep[k] + table.pull[k] * derivative[k]) * push[0])
    ahead = dict(zip(times.tolist(), push[1:], strict=False))
    model = one_dimensional(
        process,
        steps,
        reward=lambda x: slope * x[:, 0],
        guidance=lambda x, t: torch.full_like(x, ahead[t]),
        integrator="euler-maruyama",
    )
    states = list(motes.steps(model, 500, seed=3, ess_threshold=0))
    start, end = states[0].particles, states[-1].particles
    remainder = end.log_weight - push[0] * start.x["state"][:, 0]
    assert float(remainder.max() - remainder.min()) < 1e-12
    assert float(end.log_weight.std()) < 0.02  # what is left is the start's share, push[0]
    plain = one_dimensional(process, steps, reward=model.reward, integrator="euler-maruyama")
    assert float(motes.sample(plain, 500, seed=3, ess_threshold=0, progress=False).log_weight.std()) > 0.5


def test_no_reward_leaves_the_weights_uniform_and_the_normaliser_one():
    for guidance in (None, 0.0):
        run = motes.sample(one_dimensional(VP, 5, reward=None, guidance=guidance), 7, seed=1, progress=False)
        assert run.log_evidence == 0.0 and bool((run.log_weight == 0).all())
    zero = one_dimensional(VP, 5, reward=lambda x: x.sum(1) * 0, guidance="reward")
    run = motes.sample(zero, 7, seed=1, progress=False)
    assert run.log_evidence == 0.0 and bool((run.log_weight == 0).all())


def test_one_particle_is_the_plain_sampler():
    process, times = NARROW["vp"]
    plain = motes.sample(one_dimensional(process, times, reward=None), 1, seed=9, progress=False)
    tilted = motes.sample(one_dimensional(process, times), 1, seed=9, progress=False)
    assert torch.equal(plain.view, tilted.view)
    assert tilted.log_evidence == pytest.approx(float(quadratic(CENTRE, PRECISION)(tilted.view)), abs=1e-12)


MEAN = torch.tensor([0.5, -0.3], dtype=F64)
COVARIANCE = torch.tensor([[0.7, 0.3], [0.3, 0.5]], dtype=F64)
TWO = Normal(MEAN, COVARIANCE)
AIM = torch.tensor([1.2, 0.6], dtype=F64)
SHARP = torch.tensor([[2.0, -0.5], [-0.5, 1.0]], dtype=F64)
DESIGNS = {
    "vp, unguided": (VP, {"integrator": "ancestral"}),
    "vp, by the reward": (VP, {"guidance": "reward", "integrator": "euler-maruyama"}),
    "cosine, max": (COSINE, {"guidance": 0.5, "potential": "max", "schedule": lambda t: 0.1 * (1 - t)}),
    "ve, a function": (VE, {"guidance": lambda x, t: 0.3 * torch.cos(x), "integrator": "ancestral"}),
}


def estimates(process, times, kwargs, runs):
    """(runs, 6): the normaliser and the unnormalised moments over their true values, from resampled runs of 64."""
    law = chain(process, times, TWO, kwargs.get("integrator", "multistep"), "denoised")
    log_z, tilted = law.tilted(AIM, SHARP)
    second = tilted.covariance + tilted.mean[:, None] * tilted.mean
    truth = torch.tensor([1.0, *tilted.mean, second[0, 0], second[0, 1], second[1, 1]], dtype=F64)
    model = motes.ReverseDiffusion(
        gaussian(process, MEAN, COVARIANCE), times, reward=quadratic(AIM, SHARP), shape=(2,), **kwargs
    )
    rows, resampled = [], 0
    for seed in range(runs):
        run = motes.sample(model, 64, seed=seed, ess_threshold=1.0, progress=False)
        x, w = run.view.to(F64), torch.exp(run.log_weight - log_z) / run.n
        a, b = x.T
        moments = torch.stack([torch.ones_like(a), a, b, a * a, a * b, b * b])
        rows.append(moments @ w - truth)
        resampled += int(run.trace["resampled"].sum())
    assert resampled > runs, "a test of resampling must resample"
    return torch.stack(rows)


def z_scores(errors):
    return errors.mean(0) / errors.std(0) * math.sqrt(len(errors))


@pytest.mark.parametrize("design", DESIGNS)
def test_normaliser_and_moments_are_unbiased_with_resampling(design):
    """E[Z_hat f] = Z pi(f) for the discretised chain: 60 runs, each of 6 numbers at alpha 1e-6 (t above 5.9).

    Catches an error in Z of 5 times its standard error, about 7 %.
    """
    process, kwargs = DESIGNS[design]
    errors = estimates(process, process.times(9)[[2, 4, 5, 6, 7, 8]], kwargs, 60)
    assert float(z_scores(errors).abs().max()) < 5.9
    assert float(errors[:, 0].std()) / math.sqrt(60) < 0.02


def test_the_statistical_test_catches_a_sign(monkeypatch):
    monkeypatch.setattr(transition, "log_reference_over_guided", lambda xi, shift: -RIGHT(xi, shift))
    process, kwargs = DESIGNS["vp, by the reward"]
    errors = estimates(process, process.times(9)[[2, 4, 5, 6, 7, 8]], kwargs, 60)
    assert float(z_scores(errors).abs().max()) > 5.9


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("integrator", ["multistep", "ancestral", "euler-maruyama"])
def test_many_steps_reach_the_continuous_law(process, integrator):
    """No sampling: the chain's own law (shown above to be what runs estimate) against the data's, tilted."""
    process = {"vp": VP, "cosine": COSINE, "ve": VarianceExploding(sigma_min=0.01, sigma_max=20.0)}[process]
    spacing = "snr" if process is COSINE else None
    truth, law = TWO.tilted(AIM, SHARP)
    errors = []
    for steps in (400, 1600):
        log_z, got = chain(process, process.times(steps, spacing), TWO, integrator, "denoised").tilted(AIM, SHARP)
        gaps = torch.cat([got.mean - law.mean, (got.covariance - law.covariance).flatten()])
        errors.append(max(abs(log_z - truth), float(gaps.abs().max())))
    assert errors[1] < 0.01 and errors[0] < 0.04, errors


def law_on_a_grid(model, grid):
    """The density of a one-dimensional chain's last state at the points of a grid, by integrating step after step."""
    step, table = float(grid[1] - grid[0]), model.table
    density = torch.exp(-0.5 * grid**2) / math.sqrt(2 * math.pi)
    for k in range(table.steps):
        mean = table.keep[k] * grid + table.pull[k] * model.denoiser.data(grid[:, None], table.times[k])[:, 0]
        std = float(table.std[k])
        move = torch.exp(-0.5 * ((grid[:, None] - mean) / std) ** 2) / (std * math.sqrt(2 * math.pi))
        density = step * move @ density
    return step * density


def test_a_mixture_with_a_curved_reward():
    """Two normals, r = sin 2x + x / 2: normaliser, moments and mass of the discretised chain, alpha 1e-6.

    The reference integrates the chain on a grid; with more steps it comes to the law of the data (the last lines).
    """
    weights, means, stds = (torch.tensor(v, dtype=F64) for v in ([0.3, 0.7], [-2.0, 1.5], [0.5, 0.8]))
    denoiser = mixture(VP, weights, means[:, None], (stds**2)[:, None, None])
    functions = [lambda x: torch.ones_like(x), lambda x: x, lambda x: x**2, lambda x: (x > 0).to(F64)]

    def reward(x):
        return torch.sin(2 * x[:, 0]) + x[:, 0] / 2

    def unnormalised(density, x):
        tilted = density * torch.exp(reward(x[:, None]))
        return torch.stack([(tilted * f(x)).sum() for f in functions])

    grid = torch.linspace(-6.5, 6.5, 1501, dtype=F64)
    data = (weights * torch.exp(-0.5 * ((grid[:, None] - means) / stds) ** 2) / stds).sum(1)
    limit = unnormalised(data / data.sum(), grid)
    assert float(limit[0].log()) == pytest.approx(0.6817, abs=1e-4)

    def made(steps):
        times = VP.times(steps + 1)[:-1]  # ends where the steps are still wide enough for the grid
        return motes.ReverseDiffusion(denoiser, times, reward=reward, guidance=0.8, shape=(1,), integrator="ancestral")

    def reference(model):
        image = model.denoiser.data(grid[:, None], model.table.times[-1])[:, 0]
        return unnormalised(law_on_a_grid(model, grid), image)

    model = made(20)
    truth, rows = reference(model), []
    for seed in range(25):
        run = motes.sample(model, 128, seed=seed, progress=False)
        w = torch.exp(run.log_weight) / run.n
        rows.append(torch.stack([w @ f(run.view[:, 0].to(F64)) for f in functions]))
    z = z_scores(torch.stack(rows) - truth)
    assert float(z.abs().max()) < 7, z
    gaps = [(reference(made(steps)) / limit - 1).abs() for steps in (20, 80)]
    assert bool((gaps[1] < 0.5 * gaps[0] + 0.01).all()) and float(gaps[1].max()) < 0.1, gaps
