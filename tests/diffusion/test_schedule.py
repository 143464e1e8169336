"""Schedules against the closed forms of normal data; a shift of a model against the loss that it saves."""

import itertools
import math

import pytest
import torch

import motes
from motes import Rng
from motes.diffusion import Denoiser, Guided, VarianceExploding, VariancePreserving, gaussian, mixture
from motes.diffusion.denoisers.calibrated import calibrated
from motes.diffusion.schedule import Teleport, align_your_steps, cost, deterministic_spread, steps_for_spread
from motes.diffusion.schedule.path import best_path, finer
from motes.errors import ShapeError, UnknownName

F64 = torch.float64
STD = 0.5
VE = VarianceExploding(sigma_min=0.002, sigma_max=80.0)
VP = VariancePreserving()
DATA = STD * Rng(0).at("data").normal((256, 1))


def one(process, std=STD):
    return gaussian(process, torch.zeros(1), std**2 * torch.eye(1))


def divergence(sigmas):
    """The bound of the paths' divergence for N(0, STD^2), alpha = 1, by quadrature in log(sigma)."""
    total = 0.0
    for a, b in itertools.pairwise(sigmas):
        u = torch.linspace(math.log(b), math.log(a), 4001, dtype=F64).exp()
        f = STD**4 * (a * a - u * u) / ((STD**2 + a * a) * (STD**2 + u * u)) / u**2
        total += float(torch.trapezoid(f, u.log()))
    return total


def karras(steps, rho=7):
    share = torch.arange(steps + 1, dtype=F64) / steps
    return ((80 ** (1 / rho) + share * (0.002 ** (1 / rho) - 80 ** (1 / rho))) ** rho).tolist()


# ------------------------------------------------------------------------------------------------ dynamic programming


def test_the_best_path_is_the_best_of_all():
    price = Rng(3).at("cost").uniform((9, 9))
    for steps in (1, 2, 4, 8):
        ways = [(0, *inner, 8) for inner in itertools.combinations(range(1, 8), steps - 1)]
        best = min(ways, key=lambda way: sum(float(price[i, j]) for i, j in itertools.pairwise(way)))
        assert tuple(best_path(price, steps).tolist()) == best
    with pytest.raises(ValueError, match="1 to 8 steps"):
        best_path(price, 9)
    grid = finer(torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0]), torch.tensor([0, 2, 4]), 2)
    assert grid.tolist() == [0, 1, 1.5, 2, 2.5, 3, 4]


# ------------------------------------------------------------------------------------------------ alignment


def test_stochastic_steps_reach_the_optimum_of_the_divergence():
    """4.56 is the optimum, 11.7 and 46.6 what two schedules in use leave; a wrong path law costs more than 10."""
    times = align_your_steps(one(VE), DATA, 10, seed=Rng(1))
    found = divergence(VE.sigma(times).tolist())
    geometric = divergence(VE.sigma(VE.times(10)).tolist())
    assert found < 4.68
    assert geometric == pytest.approx(11.73, abs=0.01)
    assert divergence(karras(10)) == pytest.approx(46.6, abs=0.05)
    # one jump to the scale of the data, then in proportion
    knots = VE.sigma(times)
    assert float(knots[1]) == pytest.approx(0.352, rel=0.25)
    assert bool((knots[2:-1] / knots[1:-2] < 0.62).all())


def test_the_measured_divergence_is_the_closed_form():
    """256 samples estimate it to about a tenth; a factor of 2 would be seen."""
    times = VE.times(128, "snr")
    found = cost.path_divergence(one(VE).data, VE, DATA, times, Rng(2))
    for i, j in ((0, 64), (40, 90), (64, 70)):
        exact = divergence([float(VE.sigma(times[i])), float(VE.sigma(times[j]))])
        assert float(found[i, j]) == pytest.approx(exact, rel=0.3)
    assert float(found.diagonal().abs().max()) == 0


def test_two_places_of_a_path_that_are_drawn_apart_are_caught(monkeypatch):
    """The twin: noise at each time on its own, which makes a prediction's change larger than it is."""

    def apart(process, samples, times, rng):
        noise = [rng.at(f"increment-{m}").normal(tuple(samples.shape)) for m in range(len(times))]
        return [
            float(process.alpha(t)) * samples + float(process.sigma(t)) * z for t, z in zip(times, noise, strict=True)
        ]

    monkeypatch.setattr(cost, "forward_path", apart)
    found = cost.path_divergence(one(VE).data, VE, DATA, VE.times(128, "snr"), Rng(2))
    assert float(found[64, 70]) > 1.5 * divergence(VE.sigma(VE.times(128)[[64, 70]]).tolist())
    assert divergence(VE.sigma(align_your_steps(one(VE), DATA, 10, seed=Rng(1))).tolist()) > 4.85


@pytest.mark.parametrize("process", [VE, VP], ids=["ve", "vp"])
def test_deterministic_steps_come_out_equal_in_the_angle(process):
    times = align_your_steps(one(process), DATA, 10, seed=Rng(1), noise=0.0, grid=128)
    ends = torch.atan(torch.exp(-process.log_snr(times[[0, -1]])) / STD)
    best = math.cos(float(ends[0] - ends[1]) / 10) ** 10
    found = deterministic_spread(process, times, STD)
    assert best - 2e-3 < found < best + 1e-12
    if process is VE:
        assert best == pytest.approx(0.884916, abs=1e-6)
        assert deterministic_spread(VE, VE.time(-torch.tensor(karras(10)).log().double()), STD) < 0.76


def test_the_spread_of_deterministic_steps_is_the_product_of_cosines():
    """The sampler itself, without noise, on a population that starts with the true law."""
    times = align_your_steps(one(VE), DATA, 6, seed=Rng(1), noise=0.0, grid=64)
    x = (80.0**2 + STD**2) ** 0.5
    denoiser, state = one(VE), torch.tensor([[x]], dtype=F64)
    for t, s in itertools.pairwise(times):
        share = VE.sigma(s) / VE.sigma(t)
        state = share * state + (1 - share) * denoiser.data(state, float(t))
    true = (0.002**2 + STD**2) ** 0.5
    assert float(state) / true == pytest.approx(deterministic_spread(VE, times, STD), rel=1e-10)


def test_aligned_times_serve_a_sampler_and_beat_its_own():
    """A mixture: the mean distance of quantiles from the law falls by half or more at 6 steps."""
    law = torch.tensor([0.3, 0.7]), torch.tensor([[-2.0], [1.0]]), 0.04 * torch.ones(2, 1, 1)
    denoiser = mixture(VE, *law)
    pick = (Rng(0).at("pick").uniform((128, 1)) < 0.3).double()
    data = 0.2 * Rng(0).at("data").normal((128, 1)) + 1 - 3 * pick
    level = (torch.arange(2000, dtype=F64) + 0.5) / 2000
    grid = torch.linspace(-4, 3, 20001, dtype=F64)
    cdf = sum(w * torch.special.ndtr((grid - m) / 0.2) for w, m in ((0.3, -2.0), (0.7, 1.0)))
    exact = grid[torch.searchsorted(cdf, level).clamp(max=20000)]

    def miss(times):
        start = 80.0 * torch.special.ndtri(level)[:, None]
        for t, s in itertools.pairwise(times):
            share = VE.sigma(s) / VE.sigma(t)
            start = share * start + (1 - share) * denoiser.data(start, float(t))
        return float((start[:, 0].sort().values - exact).abs().mean())

    aligned = align_your_steps(denoiser, data, 6, seed=Rng(1), noise=0.0)
    assert miss(aligned) < 0.5 * miss(VE.times(6))


def test_what_cannot_be_aligned():
    with pytest.raises(UnknownName, match="integrator"):
        align_your_steps(one(VE), DATA, 3, seed=Rng(0), integrator="leap")
    with pytest.raises(ValueError, match=r"noise=0.5"):
        align_your_steps(one(VE), DATA, 3, seed=Rng(0), noise=0.5)
    with pytest.raises(ValueError, match="places have room"):
        align_your_steps(one(VE), DATA[:4], 9, seed=Rng(0), grid=8)
    with pytest.raises(ShapeError, match="at least 2"):
        align_your_steps(one(VE), DATA[:1], 3, seed=Rng(0))
    with pytest.raises(ValueError, match="last must lie"):
        align_your_steps(one(VE), DATA, 3, seed=Rng(0), last=1.5)
    assert float(align_your_steps(one(VE), DATA[:9], 3, seed=Rng(0), last=0.2, grid=16)[-1]) == 0.2


# ------------------------------------------------------------------------------------------------ the spread


@pytest.mark.parametrize("share", [0.5, 0.884916, 0.95, 0.99])
@pytest.mark.parametrize("process", [VE, VP], ids=["ve", "vp"])
def test_steps_for_a_spread(process, share):
    times = steps_for_spread(process, STD, share)
    assert deterministic_spread(process, times, STD) == pytest.approx(share, abs=1e-9)
    ends = torch.atan(torch.exp(-process.log_snr(times[[0, -1]])) / STD)
    whole, n = float(ends[0] - ends[1]), len(times) - 1
    assert math.cos(whole / n) ** n >= share - 1e-9
    assert n == 1 or math.cos(whole / (n - 1)) ** (n - 1) < share
    assert bool((times.diff() < 0).all())


def test_spreads_that_no_number_of_steps_has():
    for share in (1.0, 0.001):
        with pytest.raises(ValueError, match="shares from"):
            steps_for_spread(VE, STD, share)
    with pytest.raises(ValueError, match="must be positive"):
        steps_for_spread(VE, 0.0, 0.5)


# ------------------------------------------------------------------------------------------------ teleportation

MEAN = torch.tensor([0.7, -0.3], dtype=F64)
COVARIANCE = torch.tensor([[1.0, 0.6], [0.6, 0.5]], dtype=F64)


@pytest.mark.parametrize("process", [VarianceExploding(sigma_min=0.05, sigma_max=20.0), VP], ids=["ve", "vp"])
def test_a_jump_is_where_ever_finer_steps_lead(process):
    """Euler's method on the flow converges to it at first order."""
    denoiser = gaussian(process, MEAN, COVARIANCE)
    land = 0.4
    jump = Teleport(process, MEAN, COVARIANCE, land)
    noise = process.start_std * Rng(0).at("x").normal((5, 2))
    exact, errors = jump.flow(noise, process.t_max, land), []
    for steps in (100, 1000):
        x = noise
        times = torch.linspace(process.t_max, land, steps + 1, dtype=F64)
        for t, s in itertools.pairwise(times):
            speed = process.drift(t) * x - 0.5 * process.diffusion(t) ** 2 * denoiser.score(x, float(t))
            x = x + (s - t) * speed
        errors.append(float((x - exact).abs().max()))
    assert errors[0] / errors[1] == pytest.approx(10, rel=0.2)
    assert errors[1] < 0.02
    assert torch.allclose(jump.flow(exact, land, process.t_max), noise, atol=1e-9)
    assert torch.allclose(jump.data(exact, land), denoiser.data(exact, land), atol=1e-9)


def test_a_sampler_that_starts_late_has_the_law():
    """|z| < 4.9 over 4000 images catches a mean off by 0.08 and, in the twin, a start from noise alone."""
    process = VarianceExploding(sigma_min=0.05, sigma_max=50.0)
    denoiser = gaussian(process, MEAN, COVARIANCE)
    start = Teleport(process, MEAN, COVARIANCE, float(process.time(0.0)))
    model = Guided(denoiser, start.times(60), noise=0.0, start=start, shape=(2,), dtype=F64, final="state")
    x = motes.sample(model, 4000, seed=1, progress=False).view
    z = (x.mean(0) - MEAN) / (x.std(0) / 4000**0.5)
    assert float(z.abs().max()) < 4.9
    assert torch.allclose(torch.cov(x.T), COVARIANCE, atol=0.12)
    lost = Guided(denoiser, start.times(60), noise=0.0, shape=(2,), dtype=F64, final="state")
    twin = motes.sample(lost, 4000, seed=1, progress=False).view
    assert not torch.allclose(torch.cov(twin.T), COVARIANCE, atol=0.5)


def test_weights_are_exact_for_the_chain_that_starts_late():
    process = VarianceExploding(sigma_min=0.05, sigma_max=50.0)
    denoiser = gaussian(process, torch.zeros(1), torch.eye(1))
    start = Teleport(process, torch.zeros(1), torch.eye(1), float(process.time(0.0)))
    model = motes.ReverseDiffusion(
        denoiser, start.times(40), reward=lambda x: x[:, 0], guidance="reward", start=start, shape=(1,)
    )
    values = torch.tensor([motes.sample(model, 200, seed=i, progress=False).log_evidence for i in range(40)]).exp()
    assert float(values.mean()) == pytest.approx(math.exp(0.5), rel=0.05)
    assert model.settings()["start"]["name"] == "Teleport"


def test_how_far_a_mixture_is_from_normal_falls_with_noise():
    law = torch.tensor([0.5, 0.5]), torch.tensor([[-1.0], [1.0]]), 0.01 * torch.ones(2, 1, 1)
    denoiser = mixture(VE, *law)
    sign = (Rng(0).at("pick").uniform((400, 1)) < 0.5).double() * 2 - 1
    data = sign + 0.1 * Rng(0).at("data").normal((400, 1))
    start = Teleport.fitted(VE, data, VE.t_max)
    near, far = (start.distance(denoiser, data, float(VE.time(-math.log(s))), Rng(1)) for s in (5.0, 0.5))
    assert float(near.value) < 0.005
    assert float(far.value) > 0.1
    exact = Teleport(VE, torch.zeros(1), STD**2 * torch.eye(1), VE.t_max)
    assert float(exact.distance(one(VE), DATA, 0.5, Rng(1)).value) < 1e-20


def test_jumps_that_do_not_fit():
    with pytest.raises(ShapeError, match=r"\(2, 2\)"):
        Teleport(VE, MEAN, torch.eye(3), 0.5)
    with pytest.raises(ValueError, match="must lie in"):
        Teleport(VE, MEAN, COVARIANCE, 2.0)
    with pytest.raises(ValueError, match="negative eigenvalue"):
        Teleport(VE, MEAN, -COVARIANCE, 0.5)


# ------------------------------------------------------------------------------------------------ calibration

OFF = torch.tensor([0.3, -0.2], dtype=F64)


def off(process):
    """The exact denoiser of N(0, 1) with an error that is largest in the middle of the way."""
    exact = gaussian(process, torch.zeros(2), torch.eye(2))
    return Denoiser(
        lambda x, t: exact.data(x, t) + OFF.to(x) * torch.sin(3 * t)[:, None] + 0.1 * x, process, predicts="data"
    )


def loss(denoiser, samples, noise, t):
    """E|score + noise / sigma|^2 over the samples and both signs of the noise."""
    process = denoiser.process
    alpha, sigma = float(process.alpha(t)), float(process.sigma(t))
    out = [
        (denoiser.score(alpha * samples + s * sigma * noise, t) + s * noise / sigma).square().sum(1) for s in (1, -1)
    ]
    return float(torch.cat(out).mean())


def test_the_loss_drops_by_the_square_of_the_mean_score_exactly():
    samples, times = Rng(0).at("x").normal((50, 2)), VP.times(8)[1:-1]
    samples = samples - samples.mean(0)  # the model's score is then all that has a mean
    before, address = off(VP), Rng(4)
    after = calibrated(before, samples, times, seed=address)
    for k, t in enumerate(sorted(times.tolist())):
        noise = address.at(f"calibration-{k}", inner=0).normal((50, 2))
        alpha, sigma = float(VP.alpha(t)), float(VP.sigma(t))
        score = torch.cat([before.score(alpha * samples + s * sigma * noise, t) for s in (1, -1)])
        gap = loss(before, samples, noise, t) - loss(after, samples, noise, t)
        assert gap == pytest.approx(float(score.mean(0).square().sum()), rel=1e-7)
        assert gap > 0


def test_the_measured_shift_is_the_error_that_was_put_in():
    samples = Rng(0).at("x").normal((4000, 2))
    samples = samples - samples.mean(0)
    after = calibrated(off(VP), samples, VP.times(20), seed=Rng(1))
    shift, se = after.model.shift, after.model.se
    exact = OFF * torch.sin(3 * after.model.times)[:, None]
    assert float(((shift - exact) / se).abs().max()) < 4.9
    assert float(se.max()) < 0.02
    # between the times it is interpolated, for particles with times of their own too
    t = torch.tensor([0.31, 0.62], dtype=F64)
    after_one = calibrated(off(VP), samples[:9], torch.tensor([0.5]), seed=Rng(1))
    plain = Denoiser(lambda x, t: 0 * x + torch.sin(t)[:, None], VP, predicts="data")
    flat = calibrated(plain, torch.cat([samples[:9], -samples[:9]]), torch.linspace(0.1, 0.9, 200), seed=Rng(1))
    assert float(flat.data(torch.zeros(2, 2, dtype=F64), t).abs().max()) < 1e-5
    assert after_one.model.shift.shape == (1, 2)


def test_calibrated_samples_lose_their_bias():
    """Without the correction the mean is off by more than 10 standard errors."""
    exact = gaussian(VP, torch.zeros(2), torch.eye(2))
    wrong = Denoiser(lambda x, t: exact.data(x, t) + OFF.to(x), VP, predicts="data")
    data = Rng(0).at("x").normal((2000, 2))
    right = calibrated(wrong, data - data.mean(0), VP.times(40), seed=Rng(1))
    means = []
    for denoiser in (wrong, right):
        model = Guided(denoiser, 40, shape=(2,), dtype=F64)
        x = motes.sample(model, 2000, seed=2, progress=False).view
        means.append(float((x.mean(0) / (x.std(0) / 2000**0.5)).abs().max()))
    assert means[0] > 10
    assert means[1] < 4.9


def test_calibration_needs_samples():
    with pytest.raises(ShapeError, match="at least 2"):
        calibrated(off(VP), torch.zeros(1, 2), torch.tensor([0.5]), seed=Rng(0))
