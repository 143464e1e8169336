"""ChEES-HMC: its criterion against the closed form on a Gaussian, its learning from bad starts, its jitter."""

import math

import pytest
import torch
from scipy.optimize import minimize_scalar

from breaks import decide
from motes.kernels import HMC, State, Sweep, Target, chees
from motes.kernels.adaptation import length
from motes.kernels.adaptation.length import ideal_length as length_of_gaussian
from motes.kernels.chees import ChEES
from motes.rng import Rng
from motes.testing.kernels import ranks
from motes.testing.violation import Z


class Gaussian(Target):
    """N(0, diag(sd^2))."""

    def __init__(self, sd):
        self.sd = torch.as_tensor(sd, dtype=torch.float64)

    def evaluate(self, position, gradient) -> State:
        slope = -position / self.sd.square()
        return {"position": position, "value": 0.5 * (slope * position).sum(1), "slope": slope}

    def log_density(self, state):
        return state["value"]

    def gradient(self, state):
        return state["slope"]

    def draws(self, n, seed=0):
        return self.sd * Rng(seed).at("draws").normal((n, len(self.sd)))


def learn(kernel, target, x, sweeps, start):
    """Parameters after `sweeps`, and the harmonic mean acceptance of each sweep."""
    state, weight = target.evaluate(x, True), torch.full((len(x),), 1 / len(x), dtype=torch.float64)
    parameters, harmonic = {**kernel.start(x.shape[1], x.dtype), **start}, []
    for i in range(sweeps):
        sweep = kernel.sweep(Rng(1).at("sweep", inner=i), target, state, parameters)
        state, parameters = sweep.state, kernel.learn(parameters, sweep, weight)
        harmonic.append(1 / float(sweep.acceptance.clamp(min=1e-3).reciprocal().mean()))
    return parameters, harmonic


def test_the_criterion_and_its_slope_are_those_of_a_gaussian():
    """E (|x'|^2 - |x|^2)^2 / 4 = sum sd^4 sin^2(t / sd), here with 2^17 particles within 1 %."""
    target, n = Gaussian([1.0, 0.7, 0.4]), 1 << 17
    x, weight = target.draws(n), torch.full((n,), 1 / n, dtype=torch.float64)
    kernel = ChEES(jitter=0.0)
    for t in (0.3, 1.2, 2.5):
        parameters = {**kernel.start(3, x.dtype), "length": t, "step_size": t / 32}
        sweep = kernel.sweep(Rng(0), target, target.evaluate(x, True), parameters)
        level, slope = length.criterion(sweep, weight, parameters["scale"])
        sd = target.sd
        assert level == pytest.approx(float((sd**4 * torch.sin(t / sd) ** 2).sum()), rel=0.03)
        assert slope == pytest.approx(float(t * (sd**3 * torch.sin(2 * t / sd)).sum()), rel=0.03, abs=0.03)


def best_length(sd: torch.Tensor, jitter: float) -> float:
    """The T that maximises the mean of sum sd^4 sin^2(u T / sd) over u uniform in 1 - jitter to 1."""
    u = 1 - jitter + jitter * (torch.arange(500, dtype=torch.float64) + 0.5) / 500

    def loss(t):
        return -float((sd**4 * torch.sin(t * u[:, None] / sd) ** 2).sum(1).mean())

    return minimize_scalar(loss, bounds=(1.0, 3.5), method="bounded").x


@pytest.mark.parametrize(("jitter", "length", "optimum"), [(1.0, 0.7, 2.2467), (0.75, 3.0, 2.2010), (0.0, 0.7, 1.5708)])
def test_the_length_becomes_what_suits_the_longest_direction(jitter, length, optimum):
    sd = torch.cat([torch.ones(4), torch.logspace(-1, -0.3, 6)]).double()
    assert best_length(sd[:4], jitter) == pytest.approx(optimum, abs=1e-3)
    assert length_of_gaussian(jitter) == pytest.approx(optimum, abs=1e-3)
    target, kernel = Gaussian(sd), ChEES(acceptance=0.95, jitter=jitter)
    parameters, _ = learn(kernel, target, target.draws(1000), 250, {"length": length})
    best = best_length(sd, jitter) - 0.5 * parameters["step_size"]  # the number of steps is rounded up
    assert parameters["length"] == pytest.approx(best, rel=0.1)


def test_with_the_velocity_of_the_start_it_does_not(monkeypatch):
    right = chees.leapfrog

    def wrong(target, state, velocity, h, steps, scale):
        end = right(target, state, velocity, h, steps, scale)
        return type(end)(end.state, velocity, end.log_ratio, end.kept)

    monkeypatch.setattr(chees, "leapfrog", wrong)
    target = Gaussian(torch.ones(4))
    parameters, _ = learn(ChEES(acceptance=0.95), target, target.draws(1000), 250, {"length": 0.7})
    assert not 1.7 < parameters["length"] < 2.8


@pytest.mark.parametrize("n", [4, 32, 1000])
@pytest.mark.parametrize("step", [1e-4, 1e3])
def test_a_bad_step_is_mended_in_some_sweeps_and_then_stays(n, step):
    target = Gaussian(torch.ones(20))
    _, harmonic = learn(ChEES(), target, target.draws(n), 25, {"step_size": step})
    assert sum(harmonic[15:]) / 10 > 0.25
    parameters, harmonic = learn(ChEES(), target, target.draws(n), 200, {"step_size": step})
    assert sum(harmonic[100:]) / 100 == pytest.approx(0.8, abs=0.15)
    after, _ = learn(ChEES(), target, target.draws(n, 1), 20, parameters)
    assert abs(math.log(after["step_size"] / parameters["step_size"])) < 0.3


def test_chains_come_in_from_far_out():
    """From 100 standard deviations in the narrow directions, 10^5 nats down: a fall is no divergence."""
    target = Gaussian(torch.logspace(-2, 0, 10))
    x = Rng(0).normal((32, 10))
    state, weight, kernel = target.evaluate(x, True), torch.full((32,), 1 / 32, dtype=torch.float64), ChEES()
    parameters = kernel.start(10, x.dtype)
    for i in range(80):
        sweep = kernel.sweep(Rng(1).at("sweep", inner=i), target, state, parameters)
        state, parameters = sweep.state, kernel.learn(parameters, sweep, weight)
    assert float(state["value"].min()) > -20
    high = target.evaluate(torch.full((8, 10), 0.5, dtype=torch.float64), True)
    small = {**HMC().start(10, x.dtype), "leapfrog_steps": 40, "step_size": 1e-3}
    sweep = HMC().sweep(Rng(2), target, high, small)
    assert sweep.diverged is not None and not sweep.diverged.any() and float(sweep.acceptance.min()) > 0.5


def test_all_particles_share_a_length_and_lengths_fill_the_interval_evenly():
    target, kernel = Gaussian(torch.ones(2)), ChEES(jitter=1.0)
    parameters = {**kernel.start(2, torch.float64), "length": 1.0, "step_size": 2.0**-8, "turns": 1}
    state, lengths = target.evaluate(target.draws(3), True), []
    for i in range(32):
        steps = length.jittered_steps(Rng(5).at("sweep", step=3, inner=i), parameters, 1.0, 512)
        lengths.append(steps / 256)
    assert int(torch.histc(torch.tensor(lengths), 16, 0, 1.001).max()) <= 3  # 32 numbers by chance: 6
    later = [
        length.jittered_steps(Rng(5).at("sweep", **at), parameters, 1.0, 512) for at in ({"step": 35}, {"inner": 35})
    ]
    assert later[0] == later[1]
    sweep = kernel.sweep(Rng(5).at("sweep", step=3), target, state, parameters)
    assert len(set(sweep.seen["length"].tolist())) == 1 and float(sweep.seen["length"][0]) == lengths[0]
    assert [length.van_der_corput(i) for i in range(5)] == [0, 0.5, 0.25, 0.75, 0.125]


def test_several_sweeps_can_be_learnt_from_at_once():
    target, kernel, n = Gaussian([1.0, 2.0]), ChEES(), 6
    x = target.draws(n)
    scale = torch.tensor([[1.0, 2.0], [1.5, 1.5]], dtype=torch.float64)
    parameters = {**kernel.start(2, x.dtype), "scale": scale}
    sweep = kernel.sweep(Rng(0), target, target.evaluate(x, True), parameters)
    twice = type(sweep)(
        sweep.state,
        sweep.acceptance.repeat(2),
        1,
        None,
        {k: v.repeat(2, *[1] * (v.ndim - 1)) for k, v in sweep.seen.items()},
    )
    one, two = (torch.full((m,), 1 / m, dtype=torch.float64) for m in (n, 2 * n))
    a, b = kernel.learn(parameters, sweep, one), kernel.learn(parameters, twice, two)
    assert a["length"] == pytest.approx(b["length"]) and a["step_size"] == pytest.approx(b["step_size"])


def test_nothing_is_learnt_of_the_length_from_trajectories_that_ran_off():
    target, kernel = Gaussian([1.0, 1.0]), ChEES()
    x, one = target.draws(5), torch.full((5,), 0.2, dtype=torch.float64)
    parameters = {**kernel.start(2, x.dtype), "step_size": 1e6, "length": 1e7}
    sweep = kernel.sweep(Rng(0), target, target.evaluate(x, True), parameters)
    assert sweep.diverged is not None and sweep.diverged.all() and torch.equal(sweep.state["position"], x)
    after = kernel.learn(parameters, sweep, one)
    assert after["length"] == 1e7 and after["step_size"] < 3e5


def test_ranks_of_the_truth_are_uniform_for_one_length():
    assert ranks(ChEES(jitter=0.0), {}, 0) < Z


def test_without_acceptance_they_are_not(monkeypatch):
    decide(monkeypatch, lambda rng, r: (torch.ones_like(r), torch.isfinite(r)))
    assert ranks(ChEES(jitter=0.0), {"step_size": 0.75}, 0) > Z


def test_knobs_outside_of_their_range_are_errors():
    with pytest.raises(ValueError, match="jitter"):
        ChEES(jitter=2.0)


def test_a_new_scale_lets_the_step_move_again():
    """After a long warm-up, coordinates become 30 times wider: the step follows within 10 lessons."""
    target, kernel = Gaussian(30 * torch.ones(10)), ChEES()
    x = target.draws(64)
    parameters, _ = learn(kernel, target, x, 100, {"step_size": 30.0, "length": 60.0})
    weight = torch.full((64,), 1 / 64, dtype=torch.float64)
    fitted = kernel.fit(parameters, target, target.evaluate(x, True), weight)
    assert fitted["length"] == pytest.approx(2.2, rel=0.4) and fitted["turns"] <= 3 < parameters["turns"]
    _, harmonic = learn(kernel, target, x, 20, fitted)
    assert sum(harmonic[10:]) / 10 > 0.6


def test_trajectories_that_run_off_ask_for_smaller_steps():
    """Where others are accepted; far out, where nothing is, they say nothing of the step that is wanted there."""
    kernel, n = ChEES(), 100
    start = kernel.start(2, torch.float64)
    weight = torch.full((n,), 1 / n, dtype=torch.float64)
    x = Rng(0).normal((n, 2))

    def after(acceptance: float, diverged: int) -> float:
        gone = torch.arange(n) < diverged
        a = torch.where(gone, 0.0, acceptance).double()
        what = length.seen(x, x + 0.1, x, 1.0)
        return kernel.learn(start, Sweep({"position": x}, a, 1, gone, what), weight)["wanted"]

    assert after(0.9, 0) == 0.8
    assert after(0.9, 2) == pytest.approx(0.8 + 0.17 * 0.1)
    assert after(0.9, 40) == pytest.approx(0.97)
    assert after(0.3, 2) == 0.8
