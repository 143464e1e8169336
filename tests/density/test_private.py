"""Private release: the certificate and the privacy loss by quadrature in one dimension, with twins that leak."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch.distributions import Normal

import motes
from motes.density.differential_privacy import PrivateRelease
from motes.errors import MotesError
from motes.rng import Rng

SECRET = 0x51F0_92A7_C3D4_886B  # known to all readers of this file
RADIUS, WIDTH = 2.0, 1201
GRID = np.linspace(-RADIUS, RADIUS, WIDTH)
STEP = GRID[1] - GRID[0]


def regression(mean):
    """f(z) = z^2 / 2 + softplus(z - mean): between 1- and 1.25-strongly convex; `mean` is the data."""
    prior = Normal(torch.zeros(1, dtype=torch.float64), 1.0)
    return motes.Density(lambda z: -torch.nn.functional.softplus(z[:, 0] - mean), prior, vectorised=True, compile=False)


def f(mean, x=GRID):
    return x**2 / 2 + np.logaddexp(0, x - mean)


def release(mean, **knobs):
    """softplus(z - m) for two m differs by a function with slopes below 0.25 |m - m'|: 0.25 for 0 and 1."""
    return PrivateRelease(
        regression(mean), **{"radius": RADIUS, "convexity": 1.0, "smoothness": 1.25, "lipschitz": 0.25, **knobs}
    )


def transition(mean, h):
    """(WIDTH, WIDTH) the sweep as a matrix: from the y of each x to the exact second half, by quadrature."""
    y = np.linspace(-RADIUS - 8 * math.sqrt(h), RADIUS + 8 * math.sqrt(h), 2001)
    forward = np.exp(-((y[None] - GRID[:, None]) ** 2) / (2 * h))
    forward /= forward.sum(1, keepdims=True)
    back = np.exp(-f(mean)[None] - (GRID[None] - y[:, None]) ** 2 / (2 * h))
    back /= back.sum(1, keepdims=True)
    return forward @ back


def w_infinity(p, q):
    """In one dimension the largest gap between quantile functions; cells of the grid blur it by one step."""
    u = (np.arange(20000) + 0.5) / 20000
    gap = np.interp(u, np.cumsum(p), GRID) - np.interp(u, np.cumsum(q), GRID)
    return float(np.abs(gap).max())


def law(mean, sweeps, h):
    p = np.zeros(WIDTH)
    p[WIDTH // 2] = 1.0
    for _ in range(sweeps):
        p = p @ transition(mean, h)
    return p


def test_the_chain_is_as_near_as_its_certificate_says():
    """W-infinity by quadrature stays below R (1 + a h)^-K, and after one sweep it is no less than a sixth of it."""
    private = release(0.0)
    target = np.exp(-f(0.0))
    target /= target.sum()
    step = transition(0.0, private.step)
    assert np.abs(target @ step - target).max() < 1e-6 * target.max()  # invariant
    p = np.zeros(WIDTH)
    p[WIDTH // 2] = 1.0
    for k in range(1, 9):
        p = p @ step
        bound = RADIUS * (1 + private.convexity * private.step) ** -k
        found = w_infinity(p, target)
        assert found < bound + 2 * STEP, (k, found, bound)
        if k == 1:
            assert found > bound / 6
    assert private.sweeps(RADIUS * (1 + private.step) ** -5 * 1.0001) == 5


def test_two_chains_contract_by_quadrature():
    """The second half alone: laws for two y are within |y - y'| / (1 + a h) in W-infinity, on the ball too."""
    h = 0.8
    for y, z in ((0.0, 1.0), (1.5, 3.0), (-4.0, -2.0)):
        p, q = (np.exp(-f(0.0) - (GRID - v) ** 2 / (2 * h)) for v in (y, z))
        assert w_infinity(p / p.sum(), q / q.sum()) < abs(y - z) / (1 + h) + 2 * STEP


@pytest.mark.parametrize("sweeps", [1, 3])
def test_chains_have_the_law_that_quadrature_says(sweeps):
    """4000 chains: a distance of 0.045 between distribution functions would be seen."""
    private = release(0.7)
    x = private.walk(Rng(5).at("test"), 4000, sweeps)[:, 0].numpy()
    assert np.abs(x).max() <= RADIUS
    cdf = np.cumsum(law(0.7, sweeps, private.step))
    assert stats.kstest(x, lambda v: np.interp(v, GRID + STEP / 2, cdf)).pvalue > 1e-6
    wrong = np.cumsum(law(-0.7, sweeps, private.step))  # the broken twin: the other data set
    assert stats.kstest(x, lambda v: np.interp(v, GRID + STEP / 2, wrong)).pvalue < 1e-6


def released_law(mean, sweeps, h, noise):
    """Densities of chain plus noise on a wide grid, by convolution."""
    wide = np.linspace(-RADIUS - 6, RADIUS + 6, 3001)
    return law(mean, sweeps, h) @ noise(wide[None] - GRID[:, None]), wide[1] - wide[0]


def test_the_privacy_loss_is_what_was_promised_and_less_noise_leaks():
    """Two neighbouring data sets, the largest log-ratio of what is published. Exact draws cost 1 at most."""
    private = release(0.0)
    epsilon, spare = 1.4, 0.2
    distance = 0.3
    sweeps = private.sweeps(distance)
    assert private.exact_epsilon == 1.0

    def loss(scale, k):
        def noise(z):
            return np.exp(-np.abs(z) / scale) / (2 * scale)

        p, q = (released_law(m, k, private.step, noise)[0] for m in (0.0, 1.0))
        return float(np.abs(np.log(p) - np.log(q)).max())

    assert loss(distance / spare, sweeps) < epsilon
    exact = [np.exp(-f(m)) for m in (0.0, 1.0)]
    p, q = (e / e.sum() for e in exact)
    assert 0.2 < np.abs(np.log(p / q)).max() < private.exact_epsilon


def test_a_point_that_shows_the_data_needs_the_noise():
    """A chain that is within 0.1 of private draws but shows the data in where it stands: without noise it leaks."""
    target = np.exp(-f(0.0))
    target /= target.sum()
    cell = int(0.05 / STEP)
    snapped = [np.zeros(WIDTH), np.zeros(WIDTH)]  # on two interleaved combs with teeth 0.1 apart: W-infinity below 0.1
    for k, s in enumerate(snapped):
        for i, mass in enumerate(target):
            s[min(WIDTH - 1, (i // (2 * cell)) * 2 * cell + k * cell)] += mass
    assert all(w_infinity(s, target) < 0.1 + 2 * STEP for s in snapped)
    wide = np.linspace(-4, 4, 4001)

    def loss(scale):
        p, q = (s @ np.exp(-np.abs(wide[None] - GRID[:, None]) / scale) for s in snapped)
        return float(np.abs(np.log(p / q)).max())

    spare = 0.25
    assert loss(0.1 / spare) <= 2 * spare  # as certified
    assert loss(0.1 / spare / 20) > 2 * spare  # the broken twin: a twentieth of the noise


def test_gaussian_privacy_by_the_most_powerful_tests():
    """At no level has the likelihood-ratio test more power than mu allows; a tenth of mu is too little."""
    private = release(0.0)
    mu = 0.6
    spare = (mu - private.exact_mu) / 2
    distance = 0.2
    scale = distance / spare
    laws = [
        released_law(m, private.sweeps(distance), private.step, lambda z: stats.norm.pdf(z / scale)) for m in (0.0, 1.0)
    ]
    p, q = (x / x.sum() for x, _ in laws)

    def worst(of):
        order = np.argsort(p / q)
        level, power = np.cumsum(p[order]), np.cumsum(q[order])
        allowed = stats.norm.cdf(stats.norm.ppf(level.clip(1e-12, 1 - 1e-12)) + of)
        return float((power - allowed).max())

    assert worst(mu) < 1e-9
    assert worst(mu / 10) > 1e-3


def test_a_gaussian_in_closed_form():
    """f = |z|^2 on a ball so large that it does not matter: the chain is Gaussian with known mean and variance.

    h = 1 / (2 d), x' ~ N(y / (1 + 2 h), h / (1 + 2 h)): after K sweeps Var = (1 - r^2K) / 2, r = 1 / (1 + 2 h).
    """
    d = 3
    prior = Normal(torch.zeros(d, dtype=torch.float64), 1.0)
    density = motes.Density(lambda z: -0.5 * z.square().sum(1), prior, vectorised=True, compile=False)
    private = PrivateRelease(density, radius=12.0, convexity=2.0, smoothness=2.0, lipschitz=0.01)
    r = 1 / (1 + 2 * private.step)
    for k in (1, 4):
        x = private.walk(Rng(k).at("test"), 4000, k)
        expected = (1 - r ** (2 * k)) / 2
        ratio = float(x.square().mean()) / expected
        assert abs(ratio - 1) < 4.9 * math.sqrt(2 / 12000)
        assert float(x.mean(0).abs().max()) < 4.9 * math.sqrt(expected / 4000)


def test_what_is_released_has_the_noise_that_was_asked_for():
    private = release(0.0, lipschitz=0.001)
    found = private.draw(500, seed=SECRET + 1, noise=0.5, mu=1.0)
    assert found.noise == pytest.approx(0.5) and found.epsilon == math.inf and found.mu == 1.0
    assert isinstance(found.values, torch.Tensor) and found.values.shape == (500, 1)
    target = np.exp(-f(0.0))
    target /= target.sum()
    variance = target @ GRID**2 - (target @ GRID) ** 2
    assert float(found.values.var()) == pytest.approx(variance + 0.25, rel=0.25)
    single = private.draw(1, seed=SECRET + 1, noise=0.01, epsilon=0.1)
    assert single.distance == pytest.approx(0.01 * (0.1 - 0.004) / 2) and single.sweeps == private.sweeps(
        single.distance
    )
    assert RADIUS * (1 + private.step) ** -single.sweeps <= single.distance


def test_refusals():
    with pytest.raises(MotesError, match="strongly convex and smooth"):
        release(0.0, convexity=0.0)
    with pytest.raises(MotesError, match="not strongly convex with constant"):
        release(0.0, convexity=1.24).draw(50, seed=SECRET + 0, noise=0.1, mu=10.0)
    with pytest.raises(MotesError, match="not smooth with constant"):
        release(0.0, smoothness=1.01).draw(50, seed=SECRET + 0, noise=0.1, mu=10.0)
    with pytest.raises(MotesError, match="cost 2 already"):
        release(0.0).draw(2, seed=SECRET + 0, noise=0.1, epsilon=2.0)
    with pytest.raises(MotesError, match="sweeps would be needed"):
        release(0.0, smoothness=1e6).draw(1, seed=SECRET + 0, noise=1e-3, epsilon=2.0)
    with pytest.raises(MotesError, match="no place in the ball"):
        release(0.0, radius=0.01, centre=torch.tensor([80.0])).draw(1, seed=SECRET + 0, noise=1e-3, epsilon=2.0)
    for seed in (0, 20, 2**48 - 1):  # whoever guesses the seed can take the noise away again
        with pytest.raises(MotesError, match="can be guessed"):
            release(0.0).draw(1, seed=seed, noise=0.1, mu=10.0)
    for seed in (-1, 2**64, True):
        with pytest.raises(ValueError, match="seed must be an int"):
            release(0.0).draw(1, seed=seed, noise=0.1, mu=10.0)
    with pytest.raises(ValueError, match="one of epsilon and mu"):
        release(0.0).draw(1, seed=SECRET + 0, noise=0.1)
    blind = motes.Density(lambda z: torch.zeros(len(z)), Normal(torch.zeros(1).double(), 1.0), vectorised=True)
    with pytest.raises(MotesError, match="gradients"):
        PrivateRelease(blind, radius=1.0, convexity=1.0, smoothness=1.0, lipschitz=0.1)


def test_single_precision_and_a_centre_that_is_no_point_are_refused_before_anything_is_drawn():
    single = motes.Density(
        lambda z: -z[:, 0].square(), Normal(torch.zeros(1), 1.0), vectorised=True, dtype=torch.float32
    )
    with pytest.raises(MotesError, match="float64"):
        PrivateRelease(single, radius=2.0, convexity=3.0, smoothness=3.0, lipschitz=0.25)
    with pytest.raises(MotesError, match="centre must be finite"):
        release(0.0, centre=torch.tensor([math.nan]))


def test_a_constant_that_hides_the_curvature_is_refused():
    """With 1e12 nats on top of f, wrong constants could not be told from rounding."""
    prior = Normal(torch.zeros(1, dtype=torch.float64), 1.0)
    density = motes.Density(lambda z: 0 * z[:, 0] - 1e12, prior, vectorised=True, compile=False)
    knobs = {"radius": RADIUS, "convexity": 1.0, "smoothness": 1.25, "lipschitz": 0.25}
    with pytest.raises(MotesError, match="lost"):
        PrivateRelease(density, **knobs).draw(seed=SECRET, noise=2.0, epsilon=50.0)
