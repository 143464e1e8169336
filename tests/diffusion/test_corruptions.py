"""The relatives of diffusion against closed forms: reflection, Poisson noise, cold and blended maps, chains."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats

import motes
from motes import Rng
from motes.diffusion import Denoiser, Guided, VarianceExploding, VariancePreserving, gaussian
from motes.diffusion.corruptions import (
    CorruptDenoise,
    PoissonStart,
    Reflected,
    ReflectedDiffusion,
    alpha_blending,
    cold_diffusion,
    poisson_empirical,
    poisson_noised,
)
from motes.errors import FileError, NanLogPotential, ShapeError, UnknownName

F64 = torch.float64
BOX = Reflected("box")
SIMPLEX = Reflected("simplex")
A = 0.8


def z_of(values, exact):
    """How many standard errors the mean of values (n,) is from the exact one."""
    return float((values.mean() - exact) / (values.std() / len(values) ** 0.5))


# ------------------------------------------------------------------------------------------------ reflection


def cosine(u, sigma):
    """The score of the box's law 1 + A cos(pi u) after noise, on one coordinate."""
    fade = A * math.exp(-0.5 * (math.pi * sigma) ** 2)
    return -fade * math.pi * torch.sin(math.pi * u) / (1 + fade * torch.cos(math.pi * u))


def cosine_product(u, sigma):
    """The score of 1 + A cos(pi u_1) cos(pi u_2), symmetric, so it is one of ordered places too."""
    fade, (a, b) = A * math.exp(-((math.pi * sigma) ** 2)), torch.cos(math.pi * u).T
    slope = torch.stack([torch.sin(math.pi * u[:, 0]) * b, torch.sin(math.pi * u[:, 1]) * a], 1)
    return -fade * math.pi * slope / (1 + fade * a * b)[:, None]


@pytest.mark.parametrize("box", [BOX, Reflected("box", low=-1.0, high=2.0)], ids=["unit", "wide"])
@pytest.mark.parametrize("sigma", [0.05, 0.4, 2.0])
def test_the_kernel_of_images_is_the_series_of_modes(box, sigma):
    width = box.high - box.low
    u, v = box.low + width * torch.linspace(0, 1, 41, dtype=F64), torch.tensor(box.low + 0.3 * width, dtype=F64)
    log_k, slope = box.kernel(u, v, sigma)
    k = torch.arange(1, 400, dtype=F64)[:, None] * math.pi / width
    modes = torch.exp(-0.5 * (k * sigma) ** 2) * torch.cos(k * (v - box.low))
    exact = (1 + 2 * (modes * torch.cos(k * (u - box.low))).sum(0)) / width
    derivative = (-2 * k * modes * torch.sin(k * (u - box.low))).sum(0) / width
    assert torch.allclose(log_k.exp(), exact, atol=1e-10)
    assert torch.allclose(slope * log_k.exp(), derivative, atol=1e-8)


def test_reflected_noise_has_the_law_of_the_heat_equation():
    """Places from 1 + A cos(pi x): the mode falls as exp(-pi^2 sigma^2 / 2); |z| < 4.9 catches errors of 0.012."""
    grid = torch.linspace(0, 1, 100001, dtype=F64)
    cdf = grid + A / math.pi * torch.sin(math.pi * grid)
    x = grid[torch.searchsorted(cdf, Rng(0).at("x").uniform((40000,))).clamp(max=100000)][:, None]
    for sigma in (0.2, 0.6):
        mode = torch.cos(math.pi * BOX.noised(Rng(1).at("n"), x, sigma)[:, 0])
        exact = 0.5 * A * math.exp(-0.5 * (math.pi * sigma) ** 2)
        assert abs(z_of(mode, exact)) < 4.9
        assert abs(z_of(torch.cos(2 * math.pi * BOX.noised(Rng(1).at("n"), x, sigma)[:, 0]), 0)) < 4.9
        clipped = (x + sigma * Rng(1).at("n").normal((40000, 1))).clamp(0, 1)[:, 0]
        assert abs(z_of(torch.cos(2 * math.pi * clipped), 0)) > 10  # the twin: walls that hold on to what comes


def test_noise_on_the_simplex_stays_there_and_forgets():
    x = torch.tensor([[0.7, 0.2, 0.1]], dtype=F64).expand(4000, 3)
    y = SIMPLEX.noised(Rng(0), x, 1.5)
    assert bool((y >= 0).all())
    assert torch.allclose(y.sum(1), torch.ones(4000, dtype=F64))
    for k in range(3):  # uniform: means 1/3, variances 1/18
        assert abs(z_of(y[:, k], 1 / 3)) < 4.9
        assert float(y[:, k].var()) == pytest.approx(1 / 18, rel=0.1)
    near = SIMPLEX.noised(Rng(0), x, 0.01)
    assert float((near - x).abs().max()) < 0.1
    assert torch.allclose(SIMPLEX.points(SIMPLEX.coordinates(x)), x)


@pytest.mark.parametrize("domain", [BOX, SIMPLEX], ids=["box", "simplex"])
def test_the_empirical_score_is_the_gradient_of_the_log_kernel(domain):
    d = 2
    data = torch.tensor([[0.2, 0.5], [0.8, 0.1], [0.3, 0.3]], dtype=F64)
    data = torch.cat([data, 1 - data.sum(1, keepdim=True)], 1).clamp(min=0) if domain is SIMPLEX else data
    v = domain.coordinates(data)
    orders = list(itertools.permutations(range(d))) if domain is SIMPLEX else [(0, 1)]
    u = domain.uniform(Rng(0), (7, d), F64).requires_grad_()
    density = sum(domain.kernel(u[:, None], v[:, list(o)], 0.3)[0].sum(2).exp() for o in orders).sum(1)
    exact = torch.autograd.grad(density.log().sum(), u)[0]
    assert torch.allclose(domain.empirical(data)(u.detach(), 0.3), exact, atol=1e-9)


def test_the_kernel_on_the_simplex_integrates_to_one():
    v = torch.tensor([[0.15, 0.4]], dtype=F64)
    grid = (torch.arange(300, dtype=F64) + 0.5) / 300
    u = torch.cartesian_prod(grid, grid)
    u = u[u[:, 0] < u[:, 1]]
    density = sum(SIMPLEX.kernel(u, v[:, list(o)], 0.2)[0].sum(1).exp() for o in itertools.permutations(range(2)))
    assert float(density.sum()) / 300**2 == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(("model", "domain", "exact"), [(cosine, BOX, A / 2), (cosine_product, SIMPLEX, A / 4)])
def test_reflected_sampling_reaches_the_data(model, domain, exact):
    """E of the mode, |z| < 4.9: errors of 0.04 would show, and the uniform law is off by 10 errors or more."""
    d = 1 if domain is BOX else 2
    run = motes.sample(ReflectedDiffusion(model, domain, 100, shape=(d,), dtype=F64), 8000, seed=1, progress=False)
    mode = torch.cos(math.pi * run.particles.x["state"]).prod(1)
    assert abs(z_of(mode, exact)) < 4.9
    assert abs(z_of(mode, 0)) > 10
    assert run.view.shape == (8000, 1 if domain is BOX else 3)


@pytest.mark.parametrize("schedule", ["end", "linear"])
def test_a_reward_in_the_box_has_its_normaliser(schedule):
    """E exp(x) and the tilted mean under 1 + A cos(pi x), over 40 seeds."""

    def reward(x):
        return 2 * x[:, 0]

    z = math.expm1(2) / 2 + A * -(math.e**2 + 1) * 2 / (4 + math.pi**2)
    model = ReflectedDiffusion(cosine, BOX, 60, reward=reward, shape=(1,), schedule=schedule, dtype=F64)
    found = [motes.sample(model, 200, seed=i, progress=False).log_evidence for i in range(40)]
    values = torch.tensor(found).exp()
    assert abs(z_of(values, z)) < 4.9
    assert float(values.mean()) == pytest.approx(z, rel=0.04)


def test_data_sets_come_back():
    data = torch.tensor([[0.6, 0.3, 0.1], [0.1, 0.2, 0.7]])
    model = ReflectedDiffusion(SIMPLEX.empirical(data), SIMPLEX, 60, shape=(2,))
    x = motes.sample(model, 500, seed=0, progress=False).view
    near = (x[:, None] - data).abs().amax(2) < 0.08
    assert bool(near.any(1).all())
    assert abs(int(near[:, 0].sum()) - 250) < 4.9 * 500**0.5 / 2


def test_what_does_not_fit_in_a_box():
    with pytest.raises(UnknownName, match="domain"):
        Reflected("ball")  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="add to one"):
        SIMPLEX.coordinates(torch.tensor([[0.5, 0.2]]))
    with pytest.raises(ShapeError, match="must lie in"):
        BOX.noised(Rng(0), torch.tensor([[1.5]]), 0.1)
    with pytest.raises(ShapeError, match="at most 7"):
        SIMPLEX.empirical(torch.full((1, 8), 0.125))
    with pytest.raises(ValueError, match="0 and 1 on the simplex"):
        Reflected("simplex", low=0, high=2)
    with pytest.raises(ValueError, match="positive and fall"):
        ReflectedDiffusion(cosine, BOX, torch.tensor([0.1, 0.2]), shape=(1,))
    with pytest.raises(NanLogPotential, match=r"score is not finite at step 1 .*particles"):
        motes.sample(ReflectedDiffusion(lambda u, s: u / 0, BOX, 3, shape=(1,)), 5, seed=0, progress=False)


# ------------------------------------------------------------------------------------------------ Poisson flows

POINTS = torch.tensor([[-1.0], [2.0], [2.5]], dtype=F64)
WIDE = VarianceExploding(sigma_min=0.05, sigma_max=60.0)


@pytest.mark.parametrize(("d", "extra"), [(1, 5), (3, 8), (2, 64)])
def test_poisson_noise_is_a_t_law(d, extra):
    x = poisson_noised(Rng(0), torch.zeros(20000, d, dtype=F64), 0.7, extra)
    assert stats.kstest(x[:, 0].numpy() / 0.7, stats.t(extra).cdf).pvalue > 1e-6
    square = x.square().sum(1)
    if extra > 5:
        assert abs(z_of(square, 0.49 * extra * d / (extra - 2))) < 4.9
    assert stats.kstest(x[:, 0].numpy() / 0.7, stats.norm.cdf).pvalue < 1e-6 or extra > 20


def test_the_flow_carries_quantiles_of_the_noised_laws():
    """One dimension: the flow is monotone, so the distribution function along a path stays what it is."""
    extra, denoiser = 3, poisson_empirical(WIDE, POINTS, 3)

    def cdf(x, sigma):
        return np.mean([stats.t(extra).cdf((x.numpy() - y) / sigma) for y in POINTS[:, 0].tolist()], 0)

    x = torch.linspace(-100, 100, 21, dtype=F64)[:, None]
    before, times = cdf(x[:, 0], 60.0), WIDE.times(3000)
    for t, s in itertools.pairwise(times):
        share = WIDE.sigma(s) / WIDE.sigma(t)
        x = share * x + (1 - share) * denoiser.data(x, float(t))
    assert np.abs(cdf(x[:, 0], 0.05) - before).max() < 0.005


def test_poisson_flows_sample_the_data_and_need_their_own_start():
    """Half of the examples are far out: half of the draws must be, |z| < 4.9 of 3000.

    The twin begins with normal noise, whose tails are too thin for the flow: those far out get less than is theirs.
    """
    extra, data = 1, torch.tensor([[0.0], [0.1], [30.0], [-30.0]], dtype=F64)
    process = VarianceExploding(sigma_min=0.01, sigma_max=300.0)
    denoiser, far = poisson_empirical(process, data, extra), []
    for start in (PoissonStart(process, extra), None):
        model = Guided(denoiser, 300, noise=0.0, start=start, shape=(1,), dtype=F64)
        x = motes.sample(model, 3000, seed=0, progress=False).view
        assert float(((x - data[:, 0]).abs().amin(1) < 0.06).double().mean()) > 0.98
        far.append(float((x.abs() > 15).double().mean()))
    assert abs(far[0] - 0.5) < 4.9 * (0.25 / 3000) ** 0.5
    assert abs(far[1] - 0.5) > 4.9 * (0.25 / 3000) ** 0.5


def test_many_extra_dimensions_are_normal_noise():
    denoiser, x = poisson_empirical(WIDE, POINTS, 10**7), torch.linspace(-3, 4, 9, dtype=F64)[:, None]
    log_w = -0.5 * (x - POINTS[:, 0]) ** 2 / float(WIDE.sigma(0.5)) ** 2
    assert torch.allclose(denoiser.data(x, 0.5), torch.softmax(log_w, 1) @ POINTS, atol=1e-5)


def test_poisson_flows_that_do_not_fit():
    with pytest.raises(ShapeError, match="alpha = 1"):
        poisson_empirical(VariancePreserving(), POINTS, 3)
    with pytest.raises(ValueError, match="extra dimension"):
        PoissonStart(WIDE, 0)
    with pytest.raises(ValueError, match="extra dimension"):
        poisson_noised(Rng(0), POINTS, 1.0, 0)


# ------------------------------------------------------------------------------------------------ cold, blended


def test_cold_diffusion_is_exact_for_any_restorer():
    x = Rng(0).at("x").normal((4, 3, 3))
    e = Rng(0).at("e").normal((3, 3))

    def degrade(image, s):
        return image + s * e

    for restore in (lambda x, s: torch.sin(x) - s, lambda x, s: 0 * x):
        back = cold_diffusion(degrade(x, 20), degrade, restore, 20)
        assert float((back - x).abs().max()) < 1e-12
        naive = degrade(x, 20)
        for s in range(20, 0, -1):
            naive = degrade(restore(naive, s), s - 1)
        assert float((naive - x).abs().max()) > 1
    with pytest.raises(ShapeError, match="restorer returned"):
        cold_diffusion(x, degrade, lambda x, s: x[:2], 3)
    with pytest.raises(ValueError, match="levels"):
        cold_diffusion(x, degrade, degrade, 0)


@pytest.mark.parametrize(("order", "steps", "error"), [(1, 1000, 8e-3), (2, 100, 5e-4)])
def test_blending_carries_one_normal_law_to_another(order, steps, error):
    """From N(0, 1) to N(2, 1/4): the map is x -> 2 + x / 2."""

    def difference(x, blend):
        a = blend[:, None]
        variance = (1 - a) ** 2 + 0.25 * a**2
        gain = (0.25 * a - (1 - a)) / variance  # regression of x_1 - x_0 on the blend
        return 2 + gain * (x - 2 * a)

    x = torch.linspace(-3, 3, 13, dtype=F64)[:, None]
    assert float((alpha_blending(difference, x, steps, order=order) - (2 + 0.5 * x)).abs().max()) < error
    halves = alpha_blending(difference, alpha_blending(difference, x, torch.tensor([0, 0.5])), torch.tensor([0.5, 1]))
    assert torch.equal(halves, alpha_blending(difference, x, 2))


def test_blends_that_do_not_fit():
    with pytest.raises(ValueError, match="order"):
        alpha_blending(lambda x, a: x, torch.zeros(1, 1), 3, order=3)
    with pytest.raises(ValueError, match="must rise"):
        alpha_blending(lambda x, a: x, torch.zeros(1, 1), torch.tensor([0.5, 0.5]))
    with pytest.raises(ShapeError, match="the model returned"):
        alpha_blending(lambda x, a: x[0], torch.zeros(2, 1), 3)


# ------------------------------------------------------------------------------------------------ corrupt and denoise


def recursion(chain, c2):
    """(a, v) of one sweep x -> a x + N(0, v) for data N(0, c2) and alpha = 1."""
    process, table = chain.denoiser.process, chain.table
    a, v = 1.0, float(process.sigma(chain.t)) ** 2
    for k in range(table.steps + 1):
        gain = c2 / (c2 + float(process.sigma(table.times[k])) ** 2)
        factor = gain if k == table.steps else float(table.keep[k]) + float(table.pull[k]) * gain
        a, v = factor * a, factor**2 * v + (0.0 if k == table.steps else float(table.std[k]) ** 2)
    return a, v


@pytest.mark.parametrize("sigma", [0.5, 2.0])
def test_the_chain_is_an_autoregression_with_the_law_of_the_data(sigma):
    """Data N(0, 1.5): coefficient c^2 / (c^2 + sigma^2), variance c^2 from any start; |z| < 4.9 at 10000 chains."""
    process, c2, begin = VarianceExploding(sigma_min=0.01, sigma_max=50.0), 1.5, 3.0
    denoiser = gaussian(process, torch.zeros(1), c2 * torch.eye(1))
    t, n, start = float(process.time(-math.log(sigma))), 10000, torch.full((1, 1), begin, dtype=F64)
    fine = CorruptDenoise(denoiser, start, t, steps=4000, sweeps=1)
    a, v = recursion(fine, c2)
    assert a == pytest.approx(c2 / (c2 + sigma**2), rel=2e-3)
    assert v / (1 - a * a) == pytest.approx(c2, rel=4e-3)
    sweeps = 25 if sigma < 1 else 6
    a, v = recursion(CorruptDenoise(denoiser, start, t, steps=15), c2)
    for many in (1, sweeps):
        run = motes.sample(CorruptDenoise(denoiser, start, t, steps=15, sweeps=many), n, seed=1, progress=False)
        x, mean = run.view[:, 0], a**many * begin
        assert abs(z_of(x, mean)) < 4.9
        assert abs(z_of((x - mean).square(), v * (1 - a ** (2 * many)) / (1 - a * a))) < 4.9
    assert math.isnan(run.log_evidence_se)


def test_a_chain_without_noise_in_its_denoising_shrinks():
    """The twin: the denoised mean in the place of a draw from the posterior loses the spread."""
    process = VarianceExploding(sigma_min=0.01, sigma_max=50.0)
    denoiser = gaussian(process, torch.zeros(1), 1.5 * torch.eye(1))
    t = float(process.time(-math.log(2.0)))
    times = torch.tensor([t, 0.0], dtype=F64)
    chain = CorruptDenoise(denoiser, torch.zeros(1, 1, dtype=F64), t, steps=times, sweeps=6, noise=0.0)
    assert float(motes.sample(chain, 2000, seed=1, progress=False).view.var()) < 0.7


def test_chains_that_do_not_fit():
    process = VarianceExploding(sigma_min=0.01, sigma_max=50.0)
    denoiser = gaussian(process, torch.zeros(1), torch.eye(1))
    one = torch.zeros(1, 1)
    late = torch.tensor([0.4, 0.1])
    for change, match in (({"t": 2.0}, "t must lie"), ({"sweeps": 0}, "sweeps"), ({"steps": late}, "begin")):
        with pytest.raises(ValueError, match=match):
            CorruptDenoise(**{"denoiser": denoiser, "samples": one, "t": 0.5, **change})  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="samples"):
        CorruptDenoise(denoiser, torch.zeros(3), 0.5)
    broken = Denoiser(lambda x, t: x / 0, process, predicts="data")
    with pytest.raises(NanLogPotential, match=r"sweep 1 .*particles"):
        motes.sample(CorruptDenoise(broken, one, 0.5, steps=2), 3, seed=0, progress=False)


# ------------------------------------------------------------------------------------------------ files


def test_runs_are_resumed_and_parts_do_not_matter(tmp_path):
    process = VarianceExploding(sigma_min=0.01, sigma_max=50.0)
    denoiser = gaussian(process, torch.zeros(1), torch.eye(1))

    def reward(x):
        return 3 * x[:, 0]

    def reflected(**change):
        kwargs = {"reward": reward, "shape": (1,), "schedule": "linear", **change}
        return ReflectedDiffusion(BOX.empirical(torch.tensor([[0.2], [0.7]])), BOX, 12, **kwargs)

    def chain(**change):
        return CorruptDenoise(denoiser, torch.zeros(1, 1), 0.6, **{"steps": 4, "sweeps": 5, **change})

    for make in (reflected, chain):
        path = tmp_path / f"{make.__name__}.motes"
        whole = motes.sample(make(), 10, seed=3, progress=False)
        motes.sample(make(), 10, seed=3, progress=False, max_steps=2).save(path)
        assert torch.equal(motes.resume(path, make(), progress=False).view, whole.view)
        assert torch.equal(motes.sample(make(micro_batch=3), 10, seed=3, progress=False).view, whole.view)
    path = motes.sample(reflected(), 10, seed=3, progress=False, max_steps=2).save(tmp_path / "early.motes")
    with pytest.raises(FileError, match="reward of particle 0 was"):
        motes.resume(path, reflected(reward=lambda x: x[:, 0]), progress=False)
