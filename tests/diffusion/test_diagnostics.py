"""Diagnostics against closed forms: what is right passes, and what was broken on purpose is found."""

import itertools
import math

import pytest
import torch

import motes
from motes import Rng
from motes.diffusion import Denoiser, VarianceExploding, VariancePreserving, demo, gaussian
from motes.diffusion.diagnostics import (
    by_noise_level,
    calibration,
    diagnose,
    entropy_bound,
    entropy_rate,
    kl_divergence,
    mutual_information,
    non_conservativeness,
    posterior_ranks,
    step_errors,
)
from motes.diffusion.diagnostics.calibration import squared_mean
from motes.errors import ShapeError

F64 = torch.float64
VP, VE = VariancePreserving(), VarianceExploding(sigma_min=0.02, sigma_max=60.0)
PROCESSES = pytest.mark.parametrize("process", [VP, VE], ids=["vp", "ve"])
MEAN = torch.tensor([0.7, -0.3], dtype=F64)
COVARIANCE = torch.tensor([[1.0, 0.6], [0.6, 0.5]], dtype=F64)
ROOT = torch.linalg.cholesky(COVARIANCE)
DATA = MEAN + Rng(0).at("data").normal((1000, 2)) @ ROOT.T
TURN = torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=F64)


def exact(process):
    return gaussian(process, MEAN, COVARIANCE)


def spread(process, t):
    """The covariance of x_t."""
    return float(process.alpha(t)) ** 2 * COVARIANCE + float(process.sigma(t)) ** 2 * torch.eye(2, dtype=F64)


def entropy(covariance):
    return float(0.5 * torch.logdet(2 * math.pi * math.e * covariance))


def close(found, truth, alarm=4.9, least=1e-12):
    """Whether an estimate is within its error bar of the truth."""
    return bool(((found.value - torch.as_tensor(truth)).abs() <= alarm * found.se + least).all())


# ------------------------------------------------------------------------------------------------ conservativeness


@PROCESSES
def test_a_gradient_has_no_antisymmetric_part(process):
    x = Rng(1).at("x").normal((20, 2))
    found = non_conservativeness(exact(process), x, 0.5, seed=Rng(0), probes=3)
    inverse = torch.linalg.inv(spread(process, 0.5))
    assert float(found.square.value) < 1e-20
    assert found.share < 1e-20
    assert close(found.jacobian, inverse.square().sum())


def test_a_rotation_is_found_and_measured():
    """J = S + r T with S symmetric and T a turn: |J - J'|^2 = 8 r^2, |J|^2 = |S|^2 + 2 r^2."""
    right, r, x = exact(VP), 0.3, Rng(1).at("x").normal((2000, 2))
    wrong = Denoiser(lambda x, t: right.score(x, float(t[0])) + r * x @ TURN, VP, predicts="score")
    found = non_conservativeness(wrong, x, 0.5, seed=Rng(0))
    size = torch.linalg.inv(spread(VP, 0.5)).square().sum() + 2 * r * r
    assert close(found.square, 8 * r * r)
    assert float(found.square.se) < 0.05
    assert close(found.jacobian, size)
    assert found.share == pytest.approx(float(2 * r * r / size), rel=0.1)


def test_probes_see_a_jacobian_that_depends_on_the_place():
    """A score (y^2, x y) in the plane: J - J' = y T' at (x, y), so the mean over standard normal places is 2."""
    score = Denoiser(lambda x, t: torch.stack([x[:, 1] ** 2, x[:, 0] * x[:, 1]], 1), VP, predicts="score")
    found = non_conservativeness(score, Rng(1).at("x").normal((4000, 2)), 0.5, seed=Rng(0))
    assert close(found.square, 2.0)
    assert float(found.square.se) < 0.15


def test_images_of_a_network_can_be_asked():
    denoiser = motes.diffusion.load("digits")
    found = non_conservativeness(denoiser, Rng(0).at("x").normal((8, 1, 8, 8), torch.float32), 0.5, seed=Rng(0))
    assert 0 < found.share < 0.5


# ------------------------------------------------------------------------------------------------ entropies


@PROCESSES
def test_the_rate_of_entropy_of_a_normal_law(process):
    times = process.times(6)[1:-1]
    rate = entropy_rate(exact(process), DATA, times, seed=Rng(3))
    h = 1e-5
    slope = [(entropy(spread(process, t + h)) - entropy(spread(process, t - h))) / (2 * h) for t in times.tolist()]
    assert close(rate.model, torch.tensor(slope, dtype=F64), least=1e-6)
    assert close(rate.bound, torch.tensor(slope, dtype=F64), least=1e-6)
    score = torch.tensor(slope) - 2 * process.drift(times)  # the score's part: a factor of 1/2 would be seen
    assert float((rate.model.se / score).max()) < 0.05


def test_a_wrong_score_is_above_or_below_but_its_bound_is_below():
    times = VP.times(6)[1:-1]
    truth = entropy_rate(exact(VP), DATA, times, seed=Rng(3)).bound
    for factor in (0.7, 1.3):
        wrong = Denoiser(lambda x, t, f=factor: f * exact(VP).score(x, float(t[0])), VP, predicts="score")
        rate = entropy_rate(wrong, DATA, times, seed=Rng(3))
        assert bool((rate.bound.value < truth.value - 4.9 * truth.se).any())
        assert bool((rate.bound.value < truth.value + 4.9 * truth.se).all())
        sign = factor - 1
        assert bool((sign * (rate.model.value - truth.value) > 0).all())


@PROCESSES
def test_the_bound_of_the_entropy_is_tight_for_the_right_model(process):
    truth = entropy(spread(process, process.t_min))
    found = entropy_bound(exact(process), DATA, seed=Rng(5), steps=200)
    assert close(found, truth, least=0.01)
    assert float(found.se) < 0.05
    wrong = gaussian(process, MEAN + 0.5, COVARIANCE)
    worse = entropy_bound(wrong, DATA, seed=Rng(5), steps=200)
    cross = truth + 0.5 * float(
        torch.full((2,), 0.5, dtype=F64) @ torch.linalg.solve(COVARIANCE, torch.full((2,), 0.5, dtype=F64))
    )
    assert float(worse.value) > truth + 0.1
    assert float(worse.value) == pytest.approx(cross, abs=0.06)


# ------------------------------------------------------------------------------------------------ divergences


@PROCESSES
def test_the_divergence_of_two_normal_laws(process):
    other = torch.tensor([0.0, 0.4], dtype=F64), torch.tensor([[0.6, -0.2], [-0.2, 1.2]], dtype=F64)
    found = kl_divergence(exact(process), gaussian(process, *other), DATA, seed=Rng(2), steps=150)

    def divergence(t):
        alpha, p, eye = float(process.alpha(t)), spread(process, t), torch.eye(2, dtype=F64)
        q = alpha**2 * other[1] + float(process.sigma(t)) ** 2 * eye
        gap = alpha * (MEAN - other[0])
        solved = torch.linalg.solve(q, p)
        return float(0.5 * (torch.trace(solved) - 2 - torch.logdet(solved) + gap @ torch.linalg.solve(q, gap)))

    truth = divergence(process.t_min) - divergence(process.t_max)
    assert close(found, truth, least=0.002)
    assert float(found.se) < 0.1 * truth
    assert float(kl_divergence(exact(process), exact(process), DATA, seed=Rng(2)).value) < 1e-20
    # the twin: from draws of the other law it is another number
    theirs = other[0] + Rng(4).at("q").normal((1000, 2)) @ torch.linalg.cholesky(other[1]).T
    assert not close(kl_divergence(exact(process), gaussian(process, *other), theirs, seed=Rng(2), steps=150), truth)


@pytest.mark.parametrize("rho", [0.0, 0.6, 0.95])
def test_the_mutual_information_of_a_normal_pair(rho):
    """-log(1 - rho^2) / 2, for data that noise at t_min hardly changes."""
    z = Rng(0).at("z").normal((2000, 2))
    x, y = z[:, :1], rho * z[:, :1] + (1 - rho**2) ** 0.5 * z[:, 1:]
    one = gaussian(VE, torch.zeros(1), torch.eye(1))

    def known(x, t, y):
        sigma2, rest = float(VE.sigma(t)) ** 2, 1 - rho**2
        return rho * y + rest / (rest + sigma2) * (x - rho * y)

    found = mutual_information(one, known, x, y, seed=Rng(1))
    assert close(found, -0.5 * math.log(1 - rho**2), least=0.005)
    assert float(found.se) < 0.05
    with pytest.raises(ShapeError, match="as many partners"):
        mutual_information(one, known, x, y[:5], seed=Rng(1))
    if rho == 0.6:  # partners of other samples have less to say than it seems: the twin
        assert not close(mutual_information(one, known, x, y.flip(0), seed=Rng(1)), -0.5 * math.log(1 - rho**2))


def test_processes_that_differ_have_no_divergence():
    with pytest.raises(ValueError, match="share a process"):
        kl_divergence(exact(VP), exact(VE), DATA, seed=Rng(0))


# ------------------------------------------------------------------------------------------------ steps


def factor(process, t, s, std):
    """What a deterministic step does to one coordinate of centred normal data."""
    alpha, sigma = float(process.alpha(t)), float(process.sigma(t))
    keep = float(process.sigma(s)) / sigma
    gain = alpha * std**2 / (alpha**2 * std**2 + sigma**2)
    return keep + (float(process.alpha(s)) - keep * alpha) * gain


@PROCESSES
def test_errors_of_steps_and_what_becomes_of_them(process):
    std, steps = 0.5, 7
    denoiser = gaussian(process, torch.zeros(1), std**2 * torch.eye(1))
    data = std * Rng(0).at("x").normal((400, 1))
    times = process.times(steps, "snr")
    errors = step_errors(denoiser, data, times, seed=Rng(1))
    start = float(process.alpha(times[0])) * data + float(process.sigma(times[0])) * Rng(1).at("start").normal((400, 1))
    whole = [factor(process, t, s, std) for t, s in itertools.pairwise(times)]
    alpha, sigma = float(process.alpha(times[-1])), float(process.sigma(times[-1]))
    last = alpha * std**2 / (alpha**2 * std**2 + sigma**2)
    for k, (t, s) in enumerate(itertools.pairwise(times)):
        middle = process.time(0.5 * (process.log_snr(t) + process.log_snr(s)))
        gap = factor(process, t, middle, std) * factor(process, middle, s, std) - whole[k]
        local = (gap * math.prod(whole[:k]) * start).square().mean()
        passed = math.prod(whole[k + 1 :]) * last
        assert float(errors.local.value[k]) == pytest.approx(float(local), rel=1e-8)
        assert float(errors.final.value[k]) == pytest.approx(float(local) * passed**2, rel=1e-8)
        assert float(errors.amplification[k]) == pytest.approx(abs(passed), rel=1e-8)


def test_halving_all_steps_quarters_the_mean_square_of_each():
    """Local errors of order 2: halves of the step have a sixteenth of its mean square, in twice as many places."""
    coarse = step_errors(exact(VP), DATA[:100], VP.times(32, "snr"), seed=Rng(1))
    fine = step_errors(exact(VP), DATA[:100], VP.times(64, "snr"), seed=Rng(1))
    ratio = coarse.local.value[8:-8].sum() / fine.local.value[16:-16].sum()
    assert float(ratio) == pytest.approx(8, rel=0.15)


# ------------------------------------------------------------------------------------------------ calibration


def test_the_square_of_a_mean_without_its_variance():
    values = Rng(0).at("v").normal((60, 30, 4))
    found = torch.tensor([squared_mean(v)[0] for v in values])
    assert abs(float(found.mean() / (found.std() / 60**0.5))) < 4.9
    assert float((values.mean(1).square().sum(1)).mean()) > 0.1  # what the plain square would say
    shifted, se = squared_mean(values[0] + 2.0)
    assert abs(shifted - 16.0) < 4.9 * se + 1.5


@PROCESSES
def test_a_right_denoiser_is_calibrated(process):
    times = process.times(6, "snr")[1:-1]
    found = calibration(exact(process), DATA, times, seed=Rng(7))
    truth = []
    for t in times.tolist():
        inverse = torch.linalg.inv(spread(process, t))
        posterior = COVARIANCE - float(process.alpha(t)) ** 2 * COVARIANCE @ inverse @ COVARIANCE
        truth.append(float(torch.trace(posterior)) / 2)
    truth = torch.tensor(truth, dtype=F64)
    assert close(found.error, truth)
    assert close(found.claimed, truth)
    assert close(found.excess, 0.0)
    assert close(found.bias, 0.0)


def test_bias_and_overconfidence_are_found_and_measured():
    times = VP.times(5, "snr")[1:-1]
    shifted = Denoiser(lambda x, t: exact(VP).data(x, float(t[0])) + 0.4, VP, predicts="data")
    found = calibration(shifted, DATA, times, seed=Rng(7))
    assert close(found.bias, 0.16)
    assert bool((found.bias.value > 4.9 * found.bias.se)[1:].all())
    narrow = gaussian(VP, MEAN, 0.25 * COVARIANCE)  # thinks that the data is closer to its mean than it is
    excess = calibration(narrow, DATA, times, seed=Rng(7)).excess
    assert bool((excess.value > 4.9 * excess.se)[:2].all())
    wide = gaussian(VP, MEAN, 4 * COVARIANCE)
    excess = calibration(wide, DATA, times, seed=Rng(7)).excess
    assert bool((excess.value < -4.9 * excess.se)[:1].all())


def first(x):
    return x[:, 0]


def test_truths_rank_as_one_more_draw():
    right = posterior_ranks(exact(VP), DATA, 0.4, first, seed=Rng(0), draws=9, steps=60)
    assert right.p_value > 1e-6
    assert close(right.coverage, right.nominal)
    assert torch.allclose(right.nominal, torch.tensor([0.6, 1.0], dtype=F64)) or right.nominal[0] > 0.4
    narrow = posterior_ranks(gaussian(VP, MEAN, 0.3 * COVARIANCE), DATA, 0.4, first, seed=Rng(0), draws=9, steps=60)
    assert narrow.p_value < 1e-6
    assert float(narrow.coverage.value[0]) < float(right.nominal[0]) - 0.1
    moved = posterior_ranks(gaussian(VP, MEAN + 0.8, COVARIANCE), DATA, 0.6, first, seed=Rng(0), draws=9, steps=60)
    assert moved.p_value < 1e-6
    assert float(moved.rank.double().mean()) < 4.0


def test_a_thousand_ranks_have_the_law_of_the_p_value():
    """Ranks drawn uniformly: p-values of 40 such tables do not crowd at zero."""
    flat = gaussian(VP, torch.zeros(1), torch.eye(1))
    data = Rng(2).at("x").normal((400, 1))
    constant = [
        posterior_ranks(flat, data, 0.3, lambda x: 0 * x[:, 0], seed=Rng(i), draws=9, steps=1) for i in range(40)
    ]
    values = torch.tensor([r.p_value for r in constant])
    assert 0.25 < float(values.mean()) < 0.75
    assert float(values.min()) > 1e-4
    with pytest.raises(ShapeError, match="statistic must return"):
        posterior_ranks(flat, data, 0.3, lambda x: x, seed=Rng(0), steps=1)


# ------------------------------------------------------------------------------------------------ runs


def test_a_run_by_noise_level():
    model = demo.steered_digits(7, steps=10)
    run = motes.sample(model, 32, seed=0, progress=False)
    table = by_noise_level(run)
    assert torch.equal(table.noise_level, model.process.sigma(model.table.times))
    assert table.ess.tolist() == run.trace["ess"].tolist()
    assert bool((table.survivors.diff() >= 0).all())
    assert int(table.survivors[-1]) == 32
    assert int(table.survivors[0]) == int(table.roots[-1])
    assert "noise level" in repr(table)
    density = motes.Density(lambda x: -x.square().sum(-1), torch.distributions.Normal(torch.zeros(1), 1.0))
    with pytest.raises(ValueError, match="no noise levels"):
        by_noise_level(motes.sample(motes.Tempering(density), 16, seed=0, progress=False))


def test_a_diagnosis_names_what_is_wrong():
    assert diagnose(exact(VP), DATA, seed=Rng(0)).warnings == ()

    def broken(x, t):
        data = gaussian(VP, MEAN, 0.3 * COVARIANCE).data(x, float(t[0]))
        return data + 0.5 + 0.4 * (x - x.detach().mean(0)) @ TURN

    found = diagnose(Denoiser(broken, VP, predicts="data"), DATA, seed=Rng(0))
    for words in ("does not average to zero", "larger than", "no gradient"):
        assert any(words in w for w in found.warnings), words
    assert "claimed" in repr(found)


def test_too_few_samples():
    with pytest.raises(ShapeError, match="at least 3"):
        calibration(exact(VP), DATA[:2], torch.tensor([0.5]), seed=Rng(0))
    with pytest.raises(ShapeError, match="at least 2"):
        entropy_rate(exact(VP), DATA[:1], torch.tensor([0.5]), seed=Rng(0))
