"""Compositions of models: exact weights by quadrature and over many runs, limits, errors and what a run says."""

import json
import math
import warnings

import pytest
import torch

import motes
from diffusion.linear import Nodes
from diffusion.two_modes import (
    CASES,
    F64,
    NARROW,
    PROCESS,
    WIDE,
    A,
    B,
    blind,
    curved,
    made,
    moments,
    truth,
)
from motes.core import tree
from motes.diffusion import Denoiser, VarianceExploding, VariancePreserving, gaussian
from motes.diffusion.composing import composition
from motes.diffusion.composing.composition import Composition
from motes.diffusion.composing.compositions import annealed, classifier_free, geometric_mean, product, rl_guidance
from motes.errors import FileError, MotesError, UnknownName

pytestmark = pytest.mark.filterwarnings("ignore::motes.errors.MotesWarning")
VP = VariancePreserving()
TIMES = VP.times(9)[[5, 7, 8]]  # two steps so mild that a coarse grid of nodes integrates them
ONE = (0.4, 0.6)  # mean and variance
TWO = (-0.3, 0.9)


def normal(mean, variance, process=VP):
    return gaussian(process, torch.tensor([mean], dtype=F64), torch.tensor([[variance]], dtype=F64))


def expected(model, order=48):
    """E[exp(log_weight)] and E[exp(log_weight) x] of one particle without resampling, by quadrature over its noise."""
    nodes = Nodes.grid(model.grid.steps, order)
    particles = model.init(nodes.at("init", step=0), len(nodes.weight))
    while not model.done(particles):
        particles = model.step(nodes.at("step", step=particles.t + 1), particles)
    value = nodes.weight * torch.exp(particles.log_weight)
    return float(value.sum()), float(value @ particles.x["state"][:, 0])


def power(exponents, t):
    """log Z and the mean of N_1^w_1 N_2^w_2 with the laws of x_t of the two models above."""
    alpha, sigma = float(VP.alpha(t)), float(VP.sigma(t))
    precision = shift = constant = 0.0
    for w, (m, v) in zip(exponents, (ONE, TWO), strict=True):
        s = alpha**2 * v + sigma**2
        precision, shift = precision + w / s, shift + w * alpha * m / s
        constant -= 0.5 * w * (math.log(2 * math.pi * s) + (alpha * m) ** 2 / s)
    return constant + 0.5 * math.log(2 * math.pi / precision) + 0.5 * shift**2 / precision, shift / precision


@pytest.mark.parametrize("noise", [0.9, 1.0, 1.14])
@pytest.mark.parametrize("exponents", [(1.0, 1.0), (-0.5, 1.5), (0.3, 0.3), (lambda t: 1 - t, lambda t: t + 0.2)])
def test_weights_from_log_densities_are_exact_at_two_steps(exponents, noise):
    models = [normal(*ONE), normal(*TWO)]
    options = {"shape": (1,), "dtype": F64, "noise": noise, "curvature": 0.8, "final": "state"}
    model = Composition(models, exponents, TIMES, **options)
    assert model.rule == "energy"
    last = [w(float(TIMES[-1])) if callable(w) else w for w in exponents]
    log_z, mean = power(last, TIMES[-1])
    value, first = expected(model)
    assert value == pytest.approx(math.exp(log_z), rel=1e-7)
    assert first / value == pytest.approx(mean, rel=1e-5)


def test_guidance_and_rewards_leave_exact_weights_exact():
    models = [normal(*ONE), normal(*TWO)]
    options = {"shape": (1,), "dtype": F64, "curvature": 0.8, "final": "state"}
    plain = expected(Composition(models, (1.0, 0.5), TIMES, reward=lambda x: x[:, 0], schedule="end", **options), 40)
    for guidance in (0.7, "reward", lambda x, t: torch.sin(3 * x) + t):
        for schedule in ("end", "constant"):
            model = Composition(
                models, (1.0, 0.5), TIMES, reward=lambda x: x[:, 0], guidance=guidance, schedule=schedule, **options
            )
            assert expected(model, 40) == pytest.approx(plain, rel=1e-6)


def chains(exponents, spread):
    """log Z of prod_i (path density of model i's discretised chain)^w_i, paths of three states, by one normal integral.

    The chains are written out from Tweedie's formula, with the variance that the curvature 1 / (alpha^2 spread^2 +
    sigma^2) gives.
    """
    precision, shift = torch.zeros(3, 3, dtype=F64), torch.zeros(3, dtype=F64)
    constant = 0.0
    for w, (m, v) in zip(exponents, (ONE, TWO), strict=True):
        rows, offsets, variances = [torch.tensor([1.0, 0, 0], dtype=F64)], [0.0], [VP.start_std**2]
        for k in range(2):
            t, s = TIMES[k], TIMES[k + 1]
            a = float(VP.alpha(t) / VP.alpha(s))
            added = float(VP.sigma(t) ** 2 - (a * VP.sigma(s)) ** 2)
            alpha, marginal = float(VP.alpha(t)), float(VP.alpha(t) ** 2 * v + VP.sigma(t) ** 2)
            curvature = 1 / float(VP.alpha(t) ** 2 * spread**2 + VP.sigma(t) ** 2)
            row = torch.zeros(3, dtype=F64)
            row[k + 1], row[k] = 1.0, -(1 - added / marginal) / a
            rows.append(row)
            offsets.append(added * alpha * m / marginal / a)
            variances.append(added / a**2 * (1 - added * curvature))
        for row, offset, variance in zip(rows, offsets, variances, strict=True):
            precision += w * torch.outer(row, row) / variance
            shift += w * row * offset / variance
            constant -= 0.5 * w * (math.log(2 * math.pi * variance) + offset**2 / variance)
    inverse = torch.linalg.inv(precision)
    integral = 0.5 * (3 * math.log(2 * math.pi) - float(torch.logdet(precision))) + 0.5 * float(shift @ inverse @ shift)
    return constant + integral, float((inverse @ shift)[2])


@pytest.mark.parametrize("exponents", [(-0.5, 1.5), (0.3, 0.7)])
@pytest.mark.parametrize("spread", [0.0, 0.8])
def test_weights_from_transitions_are_exact_for_the_discretised_chains(exponents, spread):
    models = [normal(*ONE), normal(*TWO)]
    options = {"shape": (1,), "dtype": F64, "curvature": spread, "final": "state", "weights": "transition"}
    value, first = expected(Composition(models, exponents, TIMES, **options))
    log_z, mean = chains(exponents, spread)
    assert value == pytest.approx(math.exp(log_z), rel=1e-7)
    assert first / value == pytest.approx(mean, rel=1e-6)


def errors(case, steps, n, seeds, reward=None, **options):
    """(seeds, 4): Z_hat and the unnormalised moments over Z, less the truth; resampled runs."""
    log_z, right = truth(case, reward)
    right = torch.cat([torch.ones(1, dtype=F64), right])
    rows = []
    for seed in range(seeds):
        run = motes.sample(made(case, steps, reward=reward, **options), n, seed=seed, progress=False)
        rows.append(moments(run.view[:, 0], torch.exp(run.log_weight - log_z) / n) - right)
    return torch.stack(rows)


def z_scores(rows):
    return rows.mean(0) / rows.std(0) * math.sqrt(len(rows))


@pytest.mark.parametrize("case", CASES)
def test_energy_weights_are_unbiased_at_a_dozen_steps(case):
    """40 runs of 300, on the linear scale, alpha 1e-6 each (t above 5.8); catches 3 % of Z where it varies most."""
    rows = errors(case, 12, 300, 40)
    assert float(z_scores(rows).abs().max()) < 5.8
    assert float(rows[:, 0].std()) / math.sqrt(40) < 0.013


def test_energy_weights_with_a_reward_are_unbiased():
    rows = errors("guided", 12, 300, 40, curved, guidance=0.5)
    assert float(z_scores(rows).abs().max()) < 5.8
    assert float(rows[:, 0].std()) / math.sqrt(40) < 0.03


def test_a_backward_kernel_left_out_is_caught(monkeypatch):
    """The twin: ratios of densities alone, as if the steps kept every law."""
    monkeypatch.setattr(composition, "backward_over_forward", lambda *a, **k: torch.zeros(300, dtype=F64))
    assert float(z_scores(errors("cold", 12, 300, 20)).abs().max()) > 5.8


TIGHT = {"cold": 0.1, "warm": 0.05, "guided": 0.12, "half": 0.03, "product": 0.1}


@pytest.mark.parametrize("case", CASES)
def test_transition_weights_are_near_with_few_steps(case):
    """Means over 10 runs of 1000 with 25 steps, against quadrature; and the error that they estimate."""
    log_z, right = truth(case)
    rows = []
    for seed in range(10):
        model = made(case, 25, weights="transition")
        run = motes.sample(model, 1000, seed=seed, progress=False)
        weight = torch.softmax(run.log_weight, 0)
        error = model.discretisation(run.particles)
        rows.append(
            torch.cat([torch.tensor([run.log_evidence, error], dtype=F64), moments(run.view[:, 0], weight)[1:]])
        )
    mean = torch.stack(rows).mean(0)
    assert abs(float(mean[0]) - log_z) < TIGHT[case], mean
    assert abs(float(mean[0] - mean[1]) - log_z) < 0.08, mean  # with the estimated error taken off
    assert float((mean[2:] - right).abs().max()) < 0.25 and abs(float(mean[4] - right[2])) < 0.05, mean


def test_the_bar_carries_the_error_of_the_steps():
    """Twelve runs of 400 with 40 steps: intervals of particles alone cover less often than with the steps."""
    log_z, _ = truth("guided")
    alone, both = 0, 0
    for seed in range(12):
        run = motes.sample(made("guided", 40, weights="transition"), 400, seed=seed, progress=False)
        error = abs(run.log_evidence - log_z)
        alone += error < 1.96 * run.particles_error.value
        both += error < 1.96 * run.log_evidence_se
    assert both >= 9 and both > alone


def test_rates_on_a_coarse_grid_are_nats_off_and_say_so_where_energies_are_exact():
    """Times in equal ratios from 6 to 0.001, 50 steps: the rate is out by several nats, the exact weights by 0.05."""
    log_z, _ = truth("cold")
    times = PROCESS.times(50, "geometric")
    rate, energy = (made("cold", times, weights=w) for w in ("rate", "energy"))
    run = motes.sample(rate, 1000, seed=0, progress=False)
    assert run.log_evidence - log_z > 2 and rate.discretisation(run.particles) > 1
    assert any("normaliser is off" in said for said in run.remarks)
    assert abs(motes.sample(energy, 1000, seed=0, progress=False).log_evidence - log_z) < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.7, 1.0, 1.4])
@pytest.mark.parametrize("case", CASES)
def test_rates_come_to_the_composition_at_any_noise(case, noise):
    """400 steps, 4 runs of 4000: within 0.15 nats and the spread of the runs."""
    log_z, right = truth(case)
    rows = []
    for seed in range(4):
        run = motes.sample(made(case, 400, weights="rate", noise=noise), 4000, seed=seed, progress=False)
        found = moments(run.view[:, 0], torch.softmax(run.log_weight, 0))[1:]
        rows.append(torch.cat([torch.tensor([run.log_evidence], dtype=F64), found]))
    rows = torch.stack(rows)
    gap = (rows.mean(0) - torch.cat([torch.tensor([log_z], dtype=F64), right])).abs()
    assert bool((gap < torch.tensor([0.15, 0.1, 0.1, 0.03]) + 4.9 * rows.std(0) / math.sqrt(4)).all()), gap


def test_rates_of_guidance_come_near_with_a_hundred_steps():
    log_z, right = truth("guided")
    run = motes.sample(made("guided", 100, weights="rate"), 4000, seed=1, progress=False)
    found = moments(run.view[:, 0], torch.softmax(run.log_weight, 0))[1:]
    assert abs(run.log_evidence - log_z) < 0.08 and abs(float(found[2] - right[2])) < 0.04
    raw = motes.sample(made("guided", 100, weights="none"), 4000, seed=1, progress=False)
    assert float((raw.view > 0).to(F64).mean()) - float(right[2]) > 0.1  # guidance without weights: twice the mass


def test_a_model_tuned_for_a_linear_reward_is_scaled_exactly():
    """Normal base, reward a x: the combined model is N(w a, 1), and all weights are equal."""
    slope, scale = 0.8, 1.7
    base, tuned = normal(0.0, 1.0), normal(slope, 1.0)
    run = motes.sample(
        rl_guidance(base, tuned, scale, 60, shape=(1,), dtype=F64, weights="transition", final="state"), 4000, seed=2
    )
    assert float(run.log_weight.std()) < 1e-9
    alpha = float(VP.alpha(VP.t_min))
    assert abs(float(run.view.mean()) - alpha * scale * slope) < 4.9 / math.sqrt(4000) + 0.01
    assert run.log_evidence == pytest.approx(0.5 * scale * (scale - 1) * (alpha * slope) ** 2, rel=0.05)


@pytest.mark.parametrize("rule", ["energy", "transition", "rate"])
def test_a_reward_is_met_by_every_rule(rule):
    """One model, r = sin 2x + x / 2, with and without guidance: 60 steps and 2000 particles."""
    points = torch.linspace(-9, 9, 20_001, dtype=F64)
    p = torch.exp(WIDE.log_density(points[:, None], PROCESS.t_min) + curved(points[:, None])) * (points[1] - points[0])
    right = moments(points, p / p.sum())[1:]
    for guidance in (None, 0.5):
        model = Composition(
            [WIDE],
            [1.0],
            60,
            reward=curved,
            guidance=guidance,
            shape=(1,),
            weights=rule,
            final="state",
            dtype=F64,
        )
        run = motes.sample(model, 2000, seed=4, progress=False)
        found = moments(run.view[:, 0], torch.softmax(run.log_weight, 0))[1:]
        assert abs(run.log_evidence - float(p.sum().log())) < 0.08, guidance
        assert bool(((found - right).abs() < torch.tensor([0.2, 0.3, 0.05])).all()), (found, right)


@pytest.mark.parametrize("rule", ["transition", "rate"])
def test_a_start_short_of_noise_is_weighed_where_it_is_known(rule):
    short = VariancePreserving(beta_min=6.0, beta_max=6.0, t_min=0.01, t_max=0.25)  # alpha is 0.47 at the start
    models, exponents = [normal(1.2, 0.5, short), normal(-1.0, 1.3, short)], (0.4, 0.6)
    points = torch.linspace(-8, 8, 20_001, dtype=F64)[:, None]
    log_p = sum(w * m.log_density(points, short.t_min) for w, m in zip(exponents, models, strict=True))
    log_z = float(torch.log(torch.exp(log_p).sum() * (points[1, 0] - points[0, 0])))

    def initial(x):
        return sum(w * m.log_density(x, short.t_max) for w, m in zip(exponents, models, strict=True))

    options = {"shape": (1,), "dtype": F64, "weights": rule, "final": "state"}
    known = Composition(models, exponents, 80, initial=initial, **options)
    guess = Composition(models, exponents, 80, **options)
    assert abs(motes.sample(known, 4000, seed=1, progress=False).log_evidence - log_z) < 0.02
    assert abs(motes.sample(guess, 4000, seed=1, progress=False).log_evidence - log_z) > 0.05  # the twin


@pytest.mark.parametrize("rule", ["energy", "transition"])
def test_exploding_variance_is_walked_back_too(rule):
    process = VarianceExploding(sigma_min=0.05, sigma_max=20.0)
    models, exponents = [normal(0.5, 0.5, process), normal(-0.4, 1.3, process)], (0.8, 0.7)
    points = torch.linspace(-8, 8, 20_001, dtype=F64)[:, None]
    log_p = sum(w * m.log_density(points, process.t_min) for w, m in zip(exponents, models, strict=True))
    log_z = float(torch.log(torch.exp(log_p).sum() * (points[1, 0] - points[0, 0])))
    model = Composition(models, exponents, 40, shape=(1,), dtype=F64, weights=rule)
    assert abs(motes.sample(model, 2000, seed=1, progress=False).log_evidence - log_z) < 0.05


def test_a_product_without_a_normaliser_is_noticed_and_others_are_not():
    broken = Composition([NARROW, WIDE], [-1.5, 2.5], 60, shape=(1,), dtype=F64)
    run = motes.sample(broken, 500, seed=0, progress=False)
    assert any("cannot be normalised" in said for said in broken.remarks(run.particles))
    for case in CASES:
        for rule in ("energy", "transition", "rate"):
            model = made(case, 30, weights=rule)
            run = motes.sample(model, 500, seed=0, progress=False)
            assert not any("cannot be normalised" in said for said in model.remarks(run.particles))


def test_the_rule_is_the_best_that_the_models_allow():
    models = [blind(A), blind(B)]
    assert made("product", 5).rule == "energy"
    assert Composition(models, [1, 1], 5, shape=(1,)).rule == "transition"
    assert Composition(models, [1, 1], 5, shape=(1,), noise=0.7).rule == "rate"
    settings = Composition([A, models[1]], [1, 1], 5, shape=(1,)).settings()
    assert settings["weights"] == "transition" and json.loads(json.dumps(settings)) == settings
    assert "Skreta" in motes.cite(motes.sample(Composition(models, [1, 1], 5, shape=(1,)), 5, seed=0), "text")
    run = motes.sample(Composition(models, [1, 1], 6, shape=(1,)), 200, seed=0, progress=False)
    assert len(run.trace["discretisation"]) == 7


def test_names_stand_for_exponents():
    options = {"shape": (1,)}
    assert classifier_free(A, B, 3.0, 5, **options).exponents == [-2.0, 3.0]
    assert annealed(A, 2.0, 5, **options).exponents == [2.0]
    assert product([A, B], 5, **options).exponents == [1.0, 1.0]
    assert geometric_mean([A, B], 5, shares=[3, 1], **options).exponents == [0.75, 0.25]
    assert rl_guidance(A, B, 0.5, 5, **options).exponents == [0.5, 0.5]
    with pytest.raises(ValueError, match="positive"):
        geometric_mean([A, B], 5, shares=[1, -1], **options)


@pytest.mark.parametrize("rule", ["energy", "transition", "rate", "none"])
def test_each_model_is_asked_once_a_step_and_parts_do_not_matter(rule):
    calls = []

    def counted(x, t):
        calls.append(len(x))
        return torch.tanh(x) * t[:, None]

    model = Denoiser(counted, VP, predicts="data", log_density=lambda x, t: -0.5 * x.square().sum(1))
    options = {"shape": (3,), "weights": rule, "reward": lambda x: x[:, 0]}
    whole = motes.sample(Composition([model, model], [0.7, 0.6], 6, **options), 20, seed=3, progress=False)
    assert sum(calls) == 2 * 7 * 20
    parts = motes.sample(Composition([model, model], [0.7, 0.6], 6, **options, micro_batch=7), 20, seed=3)
    assert tree.equal(whole.particles.x, parts.particles.x) and torch.equal(whole.log_weight, parts.log_weight)


@pytest.mark.parametrize("rule", ["energy", "transition", "rate"])
def test_an_interrupted_run_goes_on_bit_for_bit_and_refuses_another_model(tmp_path, rule):
    model, path = made("guided", 8, weights=rule), tmp_path / "run.motes"

    class Cutoff(Exception):
        pass

    def stop(state):
        if state.particles.t == 5:
            raise Cutoff

    with pytest.raises(Cutoff):
        motes.sample(model, 30, seed=5, progress=False, checkpoint=path, callback=stop)
    run = motes.resume(path, model, progress=False)
    whole = motes.sample(model, 30, seed=5, progress=False)
    assert tree.equal(run.particles.x, whole.particles.x) and torch.equal(run.log_weight, whole.log_weight)
    other = Composition([NARROW, WIDE], [-1.0, 2.0], 8, shape=(1,), dtype=F64, weights=rule)
    with pytest.raises(FileError, match="scores"):
        other.restore(whole.particles)


def test_what_does_not_fit_is_refused():
    options = {"shape": (1,)}
    with pytest.raises(ValueError, match="as many exponents"):
        Composition([A], [1, 2], 5, **options)
    with pytest.raises(UnknownName, match="rule"):
        Composition([A], [1], 5, weights="energies", **options)
    with pytest.raises(ValueError, match="add to more than 0"):
        Composition([A, B], [1, -1], 5, **options)
    with pytest.raises(ValueError, match="noise must be positive"):
        Composition([A], [1], 5, noise=0.0, **options)
    with pytest.raises(ValueError, match="models of one process"):
        Composition([A, normal(0.0, 1.0)], [1, 1], 5, **options)
    with pytest.raises(MotesError, match="log-density of every model"):
        Composition([blind(A)], [1], 5, weights="energy", **options)
    with pytest.raises(MotesError, match="change with the time"):
        Composition([blind(A)], [lambda t: 1 + t], 5, **options)
    with pytest.raises(MotesError, match="noise=1"):
        Composition([A], [2], 5, weights="transition", noise=0.7, **options)
    with pytest.raises(TypeError, match="list of Denoiser"):
        Composition([], [], 5, **options)
    with pytest.raises(ValueError, match="needs a reward"):
        Composition([A], [1], 5, guidance="reward", **options)
    with pytest.raises(ValueError, match="curvature"):
        Composition([A], [1], 5, curvature="guessed", **options)


def test_without_weights_a_run_says_so():
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        run = motes.sample(made("guided", 5, weights="none"), 50, seed=0, progress=False)
    assert any("no weights" in str(w.message) for w in seen) and math.isnan(run.standard_error.value)
