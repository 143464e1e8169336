"""Tempering against closed forms: evidence, its standard error, posterior moments; frozen, resumed and refused runs."""

import itertools
import math
import time

import numpy as np
import pytest
import torch
from torch.distributions import Beta, Dirichlet, Gamma, Normal

import motes
from motes.core.temperature import next_temperature
from motes.density import Tempering
from motes.density.demo import logistic_regression
from motes.errors import AllWeightsZero, FileError, MotesError, NanLogPotential
from motes.kernels import HMC, RandomWalk
from motes.laws import Density
from motes.laws.compiling import PRODUCT, work
from motes.rng import Rng

ONE = torch.ones((), dtype=torch.float64)
Z = 4.9  # two-sided level 1e-6


def gaussian(d: int, **knobs) -> tuple[Density, float]:
    """Prior N(0, I), likelihood N(2 | x, 0.09 I), and the exact log evidence."""
    constant = -0.5 * math.log(2 * math.pi * 0.09)

    def log_likelihood(x):
        return (-0.5 * ((x - 2) / 0.3).square() + constant).sum(-1)

    truth = d * (-math.log(2 * math.pi * 1.09) / 2 - 2 / 1.09)
    return Density(log_likelihood, Normal(torch.zeros(d, dtype=torch.float64), 1.0), vectorised=True, **knobs), truth


def errors(model, truth: float, n: int, seeds: range, **knobs) -> tuple[np.ndarray, np.ndarray]:
    """Errors of the log evidence and the standard errors that the runs reported."""
    runs = [motes.sample(model, n, seed=s, progress=False, **knobs) for s in seeds]
    return np.array([r.log_evidence - truth for r in runs]), np.array([r.log_evidence_se for r in runs])


def few(covered: np.ndarray, nominal: float) -> int:
    """The most intervals that may cover the truth and yet be too few at level 1e-6."""
    n, below = len(covered), 0.0
    for k in range(n + 1):
        below += math.comb(n, k) * nominal**k * (1 - nominal) ** (n - k)
        if below > 1e-6:
            return k - 1
    return n


def check(model, truth: float, n: int, seeds: int) -> None:
    """The mean error is small against its own spread, and the reported standard errors cover at their nominal rate.

    What it would catch: a bias of half a standard error with 100 seeds, or standard errors 0.6 times what they should
    be. The bias that is allowed for is that of the logarithm, -var / 2, and of adaptation, which is less than that.
    """
    error, se = errors(model, truth, n, range(seeds))
    assert np.isfinite(se).all()
    spread = max(error.std(ddof=1), se.mean())  # a handful of errors do not tell their own spread
    assert abs(error.mean()) < Z * spread / math.sqrt(seeds) + spread**2, (error.mean(), spread)
    covered = np.abs(error) < 1.96 * se
    assert covered.sum() > few(covered, 0.95), (covered.mean(), spread, se.mean())
    if seeds >= 100:
        assert (np.abs(error) < 1.96 * 0.6 * se).sum() <= few(covered, 0.95)  # the broken twin


def test_evidence_of_a_gaussian_and_its_coverage_over_100_seeds():
    density, truth = gaussian(2)
    check(Tempering(density), truth, 128, 100)


def test_random_walk_evidence_of_a_gaussian():
    density, truth = gaussian(2)
    check(Tempering(density, kernel="random-walk"), truth, 128, 20)


@pytest.mark.parametrize(("d", "n", "seeds"), [(12, 256, 8), (40, 512, 3)])
def test_evidence_of_a_gaussian_in_more_dimensions(d, n, seeds):
    density, truth = gaussian(d)
    check(Tempering(density), truth, n, seeds)


@pytest.mark.slow
@pytest.mark.parametrize(("d", "n"), [(2, 1024), (12, 1024), (40, 1024)])
def test_evidence_over_200_seeds_in_more_dimensions(d, n):
    density, truth = gaussian(d)
    check(Tempering(density), truth, n, 200)


def coin() -> tuple[Tempering, float]:
    """9 of 40 heads with a Beta(2, 3) prior; every sequence counts, so there is no binomial coefficient."""
    heads, tails, a, b = 9, 31, 2.0, 3.0
    density = Density(lambda v: heads * v["p"].log() + tails * (-v["p"]).log1p(), {"p": Beta(a * ONE, b * ONE)})

    def log_beta(a, b):
        return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)

    return Tempering(density), log_beta(a + heads, b + tails) - log_beta(a, b)


def counts() -> tuple[Tempering, float]:
    """Poisson counts with a Gamma(3, 2) prior on the rate."""
    y, a, b = torch.tensor([4.0, 7.0, 2.0, 9.0, 5.0], dtype=torch.float64), 3.0, 2.0

    def log_likelihood(v):  # of one point
        return (y * v["rate"].log() - v["rate"] - torch.lgamma(y + 1)).sum()

    s, n = float(y.sum()), len(y)
    truth = a * math.log(b) - math.lgamma(a) + math.lgamma(a + s) - (a + s) * math.log(b + n)
    density = Density(log_likelihood, {"rate": Gamma(a * ONE, b * ONE)})
    return Tempering(density), truth - float(torch.lgamma(y + 1).sum())


def shares() -> tuple[Tempering, float]:
    """Counts of four kinds with a Dirichlet prior."""
    y = torch.tensor([3.0, 10.0, 0.0, 7.0], dtype=torch.float64)
    a = torch.tensor([1.0, 2.0, 1.5, 0.8], dtype=torch.float64)
    truth = torch.lgamma(a.sum()) - torch.lgamma(a.sum() + y.sum()) + (torch.lgamma(a + y) - torch.lgamma(a)).sum()
    density = Density(lambda v: torch.special.xlogy(y, v["share"]).sum(-1), {"share": Dirichlet(a)})
    return Tempering(density), float(truth)


@pytest.mark.parametrize("problem", [coin, counts, shares])
def test_conjugate_families(problem):
    model, truth = problem()
    check(model, truth, 128, 10)


def test_posterior_means_are_those_of_the_conjugate_posterior():
    for problem, name, exact in (
        (coin, "p", [11 / 45]),
        (counts, "rate", [30 / 7]),
        (shares, "share", [4 / 25.3, 12 / 25.3, 1.5 / 25.3, 7.8 / 25.3]),
    ):
        run = motes.sample(problem()[0], 2000, seed=3, progress=False)
        mean = run.mean(name)
        assert ((mean.value - torch.tensor(exact, dtype=torch.float64)).abs() < Z * mean.se).all()
        assert float(mean.se.max()) < 0.1


def test_the_posterior_is_another_without_the_jacobian(monkeypatch):
    model, _ = coin()
    right = Density._parts

    def wrong(self, z):
        likelihood, prior, inside = right(self, z)
        return likelihood, prior - self.parameters.constrain(z)[1], inside

    monkeypatch.setattr(Density, "_parts", wrong)
    mean = motes.sample(model, 4000, seed=3, progress=False).mean("p")
    assert abs(float(mean) - 11 / 45) > Z * float(mean.se)


def test_a_frozen_run_is_unbiased():
    density, truth = gaussian(3)
    model = Tempering(density)
    small = motes.sample(model, 64, seed=1000, progress=False)
    frozen = model.freeze(small)
    error, _ = errors(frozen, truth, 32, range(64))
    ratio = np.exp(error)
    assert abs(ratio.mean() - 1) < Z * ratio.std(ddof=1) / 8
    again = motes.sample(frozen, 32, seed=0, progress=False)
    assert again.trace["temperature"].tolist() == small.trace["temperature"].tolist()
    with pytest.raises(MotesError, match="kernel"):
        Tempering(density, kernel="random-walk").freeze(small)


@pytest.mark.parametrize("kernel", [HMC(), RandomWalk()])
def test_an_interrupted_run_is_resumed_bit_for_bit(tmp_path, kernel):
    model = Tempering(gaussian(3)[0], kernel=kernel)
    whole = motes.sample(model, 100, seed=5, progress=False)
    for stop in (1, 3):
        path = tmp_path / f"{stop}.motes"
        motes.sample(model, 100, seed=5, progress=False, checkpoint=path, max_steps=stop)
        rest = motes.resume(path, Tempering(gaussian(3)[0], kernel=kernel), progress=False)
        assert rest.log_evidence == whole.log_evidence
        assert all(torch.equal(rest.particles.x[k], v) for k, v in whole.particles.x.items())
        assert torch.equal(rest.log_weight, whole.log_weight)
    with pytest.raises(FileError, match="conditional_ess"):
        path = tmp_path / "other.motes"
        motes.sample(model, 100, seed=5, progress=False, checkpoint=path, max_steps=1)
        motes.resume(path, Tempering(gaussian(3)[0], kernel=kernel, conditional_ess=0.5), progress=False)


def test_a_run_is_not_resumed_with_other_data(tmp_path):
    prior = Normal(torch.zeros(2, dtype=torch.float64), 1.0)

    def model(y, scale=1.0):
        return Tempering(Density(lambda x: -5 * (x - y).square().sum(-1), Normal(prior.mean, scale)))

    path = tmp_path / "run"
    motes.sample(model(2.0), 100, seed=5, progress=False, checkpoint=path, max_steps=1)
    with pytest.raises(FileError, match="log-likelihood of particle 0 was"):
        motes.resume(path, model(2.1), progress=False)
    with pytest.raises(FileError, match="log-prior of particle 0 was"):
        motes.resume(path, model(2.0, 1.1), progress=False)
    assert motes.resume(path, model(2.0), progress=False).result.value == "OK"


def test_the_seed_decides_and_a_fixed_micro_batch_does_not_matter_to_the_law():
    a, b = (motes.sample(Tempering(gaussian(2)[0]), 64, seed=1, progress=False) for _ in range(2))
    assert torch.equal(a.view, b.view) and a.log_evidence == b.log_evidence
    c = motes.sample(Tempering(gaussian(2, micro_batch=16)[0]), 64, seed=1, progress=False)
    assert c.log_evidence == pytest.approx(a.log_evidence, abs=1e-8)


@pytest.mark.slow
def test_a_compiled_run_has_the_same_law():
    density, _ = gaussian(2, compile=True)
    run = motes.sample(Tempering(density), 512, seed=1, progress=False)
    eager = motes.sample(Tempering(gaussian(2)[0]), 512, seed=1, progress=False)
    assert run.log_evidence == pytest.approx(eager.log_evidence, abs=1e-6)
    assert run.trace["compiled"][1:].all()


def test_a_clock_decides_nothing(monkeypatch):
    """A run that compiles in its middle does so at the same step on a busy machine and on a quiet one."""
    monkeypatch.setattr("motes.laws.compiling.WORTH", 0.003)
    monkeypatch.setattr("motes.laws.compiling.LEAST", 1.0)
    monkeypatch.setattr(torch, "compile", lambda f, **_: lambda z: {k: v + 1e-12 for k, v in f(z).items()})
    runs = []
    for jump in (0.0, 1e-3, 1e4):  # the clock is ahead by so many seconds whenever it is read
        now = itertools.count(step=jump)
        with monkeypatch.context() as clock:
            for name in ("perf_counter", "monotonic", "time"):
                clock.setattr(time, name, lambda now=now: float(next(now)))
            runs.append(motes.sample(Tempering(gaussian(2)[0]), 256, seed=1, progress=False))
    compiled = [run.trace["compiled"][1:].tolist() for run in runs]
    assert compiled[0][0] == 0 and compiled[0][-1] == 1
    assert compiled[1] == compiled[0] and compiled[2] == compiled[0]
    assert all(torch.equal(run.log_weight, runs[0].log_weight) for run in runs)
    assert runs[0].particles.shared["compiled"] is True


def test_what_cannot_be_compiled_or_has_other_values_then_stays_as_it_is(monkeypatch):
    monkeypatch.setattr("motes.laws.compiling.WORTH", 0.0)
    monkeypatch.setattr("motes.laws.compiling.LEAST", 0.0)
    plain = motes.sample(Tempering(gaussian(2)[0]), 256, seed=1, progress=False)

    def fails(f, **_):
        def call(z):
            raise RuntimeError("no compiler")

        return call

    for compiler in (fails, lambda f, **_: lambda z: {k: 1.01 * v for k, v in f(z).items()}):
        monkeypatch.setattr(torch, "compile", compiler)
        run = motes.sample(Tempering(gaussian(2)[0]), 256, seed=1, progress=False)
        assert run.particles.shared["compiled"] is False and run.log_evidence == plain.log_evidence


def test_the_work_of_an_evaluation_is_counted():
    """Twice the rows make twice the numbers; a matrix product is work that a compiler leaves as it is."""
    normal, matrix = Normal(torch.zeros(40).double(), 1.0), torch.eye(40).double()
    plain = motes.Density(lambda z: -z.exp().square().sum(1), normal, vectorised=True)
    product = motes.Density(lambda z: -(z @ matrix).square().sum(1), normal, vectorised=True)
    z = Rng(0).at("z").normal((20_000, 40))
    one, two = work(plain, z[:10_000], True), work(plain, z, True)
    assert 1.8 < two.fused / one.fused < 2.2 and one.left == 0
    # z @ matrix and back: 2 n d d each
    assert work(product, z, True).left == pytest.approx(2 * 2 * 20_000 * 40 * 40 * PRODUCT, rel=0.01)
    assert work(plain, z, False).fused < work(plain, z, True).fused


@pytest.mark.parametrize("conditional_ess", [0.3, 0.5, 0.9, 0.99])
def test_the_next_temperature_leaves_the_asked_fraction(conditional_ess):
    rng = motes.Rng(0)
    log_weight, likelihood = rng.normal((500,)), 100 * rng.at("l").normal((500,)).abs().neg()
    likelihood[::7] = -math.inf
    t = next_temperature(log_weight, likelihood, 0.25, conditional_ess)
    alive = torch.isfinite(likelihood)
    w, g = torch.softmax(log_weight[alive], 0), ((t - 0.25) * likelihood[alive]).exp()
    assert float((w @ g) ** 2 / (w @ g.square())) == pytest.approx(conditional_ess, rel=2e-3)


def test_the_next_temperature_is_one_when_that_is_near_and_survives_extremes():
    flat = torch.zeros(100, dtype=torch.float64)
    assert next_temperature(flat, flat, 0.0, 0.9) == 1.0
    assert next_temperature(flat, flat - 1e300, 0.5, 0.9) == 1.0
    huge = -(10.0 ** torch.linspace(0, 12, 100, dtype=torch.float64))
    t = next_temperature(flat, huge, 0.0, 0.9)
    assert 0 < t < 1e-8
    assert next_temperature(flat - 1e5 * torch.arange(100.0, dtype=torch.float64), huge, 0.0, 0.5) == 1.0


def test_a_hard_constraint_is_a_likelihood():
    """Prior N(0, 1) kept to x > 1: the evidence is P(x > 1)."""
    normal = Normal(torch.zeros(1, dtype=torch.float64), 1.0)
    density = Density(lambda x: torch.where(x[:, 0] > 1, 0.0 * x[:, 0], -math.inf), normal)
    error, _ = errors(Tempering(density), math.log(0.5 * math.erfc(1 / math.sqrt(2))), 500, range(20))
    assert abs(error.mean()) < Z * error.std(ddof=1) / math.sqrt(20) + error.var()


def test_faults_are_errors_that_say_where():
    normal = Normal(torch.zeros(1, dtype=torch.float64), 1.0)
    with pytest.raises(AllWeightsZero):
        motes.sample(Tempering(Density(lambda x: x[:, 0] - math.inf, normal)), 20, seed=0, progress=False)
    density = Density(lambda x: torch.where(x[:, 0] > 2.5, math.nan, 1.0 * x[:, 0]), normal)
    with pytest.raises(NanLogPotential, match="particle"):
        motes.sample(Tempering(density), 2000, seed=0, progress=False)
    plain = Density(lambda x: x[:, 0].detach(), normal)
    assert Tempering(plain).kernel == RandomWalk()
    with pytest.raises(MotesError, match="gradients"):
        Tempering(plain, kernel="hmc")
    with pytest.raises(ValueError, match="conditional_ess"):
        Tempering(plain, conditional_ess=1.5)
    with pytest.raises(ValueError, match="sweeps"):
        Tempering(plain, sweeps=0)


def test_one_particle_runs_to_the_end():
    run = motes.sample(Tempering(gaussian(2)[0]), 1, seed=0, progress=False)
    assert run.result is motes.Result.OK


def test_the_demonstration_has_the_posterior_that_it_should():
    """The weights are standard normal a priori; the evidence is that of a run with 20000 particles, -56.75."""
    run = motes.sample(logistic_regression(), 128, seed=0, progress=False)
    assert set(run.view) == {"intercept", "slope"} and run.view["slope"].shape == (128, 30)
    assert run.trace["temperature"][-1] == 1.0 and run.particles.x["log_likelihood"].mean() > -50
    assert abs(run.log_evidence + 56.75) < 2


def test_enormous_spreads_of_the_likelihood_have_a_next_temperature():
    """The variance of these log-likelihoods overflows."""
    flat = torch.zeros(4, dtype=torch.float64)
    low = next_temperature(flat, torch.tensor([-1e200, -1.0, -2.0, -3.0], dtype=torch.float64), 0.0, 0.5)
    assert 0 < low <= 1


def test_a_run_on_much_data_is_not_resumed_with_one_datum_changed(tmp_path):
    """100,000 observations, one of them moved by 5: less than a nat in 10^5."""
    y = torch.linspace(-3, 3, 100_000, dtype=torch.float64)
    prior = Normal(torch.zeros(1, dtype=torch.float64), 1.0)

    def model(data):
        return Tempering(Density(lambda x: -0.5 * (data - x).square().sum(-1), prior, vectorised=True), sweeps=1)

    path = tmp_path / "run"
    motes.sample(model(y), 8, seed=0, progress=False, max_steps=1, checkpoint=path)
    other = y.clone()
    other[70_000] += 1.0
    with pytest.raises(FileError, match="log-likelihood"):
        motes.resume(path, model(other), progress=False)
    motes.resume(path, model(y), progress=False, max_steps=2)
