"""Data annealing against conjugate posteriors: the evidence of every prefix, moments, streams of data."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.distributions import Bernoulli, Beta, Normal

import motes
from motes.density.annealing.data_annealing import DataAnnealing, evidence_path
from motes.errors import AllWeightsZero, FileError, MotesError, ShapeError

ONE = torch.ones((), dtype=torch.float64)
Z = 4.9  # two-sided level 1e-6


def data(count: int) -> torch.Tensor:
    return 0.7 + motes.Rng(7).normal((count,))


def normal(y: torch.Tensor, **knobs) -> DataAnnealing:
    """Prior mean ~ N(0, 2^2), observations N(mean, 1)."""
    return DataAnnealing(lambda p, y: Normal(p["mean"], 1.0).log_prob(y), {"mean": Normal(0 * ONE, 2.0)}, y, **knobs)


def normal_evidence(y: torch.Tensor) -> torch.Tensor:
    """(T + 1,) log p(y_1:t), by the predictive densities N(m, v + 1)."""
    m, v, total = 0.0, 4.0, [0.0]
    for value in y.tolist():
        total.append(total[-1] - 0.5 * math.log(2 * math.pi * (v + 1)) - 0.5 * (value - m) ** 2 / (v + 1))
        m, v = (m + v * value) / (v + 1), v / (v + 1)
    return torch.tensor(total, dtype=torch.float64)


def coin(y: torch.Tensor, **knobs) -> DataAnnealing:
    """Tosses with a Beta(2, 3) prior, the function written for a batch of points."""

    def log_likelihood(p, y):
        return y * p["p"][:, None].log() + (1 - y) * (-p["p"][:, None]).log1p()

    return DataAnnealing(log_likelihood, {"p": Beta(2 * ONE, 3 * ONE)}, y, **knobs)


def coin_evidence(y: torch.Tensor) -> torch.Tensor:
    heads = torch.cat([torch.zeros(1, dtype=torch.float64), y.cumsum(0)])
    tails = torch.arange(len(y) + 1) - heads

    def log_beta(a, b):
        return torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b)

    return log_beta(2 + heads, 3 + tails) - log_beta(2 * ONE, 3 * ONE)


def raw_regression(count: int = 12) -> DataAnnealing:
    """A line through points far to the right, so that intercept and slope are all but one number."""
    x = 60 + 4 * motes.Rng(3).at("x").normal((count,))
    y = 20 + 0.5 * x + 2 * motes.Rng(3).at("y").normal((count,))

    def log_likelihood(p, data):
        x, y = data
        return Normal(p["a"][:, None] + p["b"][:, None] * x, 2.0).log_prob(y)

    return DataAnnealing(log_likelihood, {"a": Normal(0 * ONE, 100.0), "b": Normal(0 * ONE, 100.0)}, (x, y))


def test_particles_that_do_not_keep_up_with_the_data_begin_anew(monkeypatch):
    model = replace(raw_regression(), sweeps=1)
    run = motes.sample(model, 512, seed=0, progress=False)
    assert run.particles.shared["careful"]
    seen, _ = evidence_path(run)
    assert seen.tolist() == list(range(13))  # of the second attempt alone
    monkeypatch.setattr("motes.density.annealing.data_annealing.CERTAIN", math.inf)
    assert not motes.sample(model, 512, seed=0, progress=False).particles.shared["careful"]


def errors(model: DataAnnealing, truth: torch.Tensor, n: int, seeds: int) -> np.ndarray:
    """(seeds, T + 1) errors of the log evidence of every prefix."""
    rows = []
    for seed in range(seeds):
        seen, found = evidence_path(motes.sample(model, n, seed=seed, progress=False))
        rows.append((found - truth[seen]).numpy())
    return np.array(rows)


def worst(error: np.ndarray) -> float:
    """The largest distance of a mean error from zero in its own standard errors, the bias of the logarithm allowed."""
    mean, sd = error[:, 1:].mean(0), error[:, 1:].std(0, ddof=1)
    return float((np.maximum(np.abs(mean) - sd**2, 0) / (sd / math.sqrt(len(error)))).max())


TOSSES = (motes.Rng(3).uniform((30,)) < 0.3).double()
CASES = {
    "normal": (normal(data(25)), normal_evidence(data(25))),
    "normal by batches of 7": (normal(data(25), batch=7), normal_evidence(data(25))),
    "normal by random walk": (normal(data(25), kernel="random-walk"), normal_evidence(data(25))),
    "coin": (coin(TOSSES), coin_evidence(TOSSES)),
}


@pytest.mark.parametrize("case", CASES)
def test_the_evidence_of_every_prefix(case):
    """20 runs with a spread of 0.05 to 0.1: an error of 0.15 nats would be seen at any of the times."""
    model, truth = CASES[case]
    error = errors(model, truth, 400, 20)
    assert worst(error) < 7.4  # Student's t with 19 degrees of freedom is beyond with probability 5e-7
    assert error[:, -1].std() < 0.2


def test_moves_that_forget_an_observation_are_noticed(monkeypatch):
    model, truth = CASES["normal"]
    right = DataAnnealing._so_far
    monkeypatch.setattr(DataAnnealing, "_so_far", lambda self, s: right(self, {**s, "seen": max(1, s["seen"] // 2)}))
    assert worst(errors(model, truth, 400, 20)) > 7.4


def test_posterior_moments_and_the_error_bar():
    model, truth = CASES["normal"]
    run = motes.sample(model, 4000, seed=1, progress=False)
    y = data(25)
    mean, variance = float(y.sum()) / (25 + 0.25), 1 / (25 + 0.25)
    first, second = run.mean("mean"), run.mean(lambda p: (p["mean"] - mean).square())
    assert abs(float(first) - mean) < Z * float(first.se) < 0.1
    assert abs(float(second) - variance) < Z * float(second.se) < 0.05
    assert abs(run.log_evidence - float(truth[-1])) < Z * run.log_evidence_se < 0.3
    assert 1 < run.trace["acceptance"][run.trace["resampled"] == 1].size < 15  # moves are rare


def test_every_move_goes_on_until_all_is_forgotten():
    run = motes.sample(normal(data(40)), 512, seed=0, progress=False)
    moved = run.trace["sweeps"] > 0
    assert int(moved.sum()) > 2 and float(run.trace["correlation"][moved].max()) <= 0.1
    once = motes.sample(normal(data(40), sweeps=1), 512, seed=0, progress=False)
    assert float(once.trace["correlation"][once.trace["sweeps"] > 0].max()) > 0.1


def test_the_final_evidence_does_not_depend_on_the_order():
    y = data(25)
    runs = [motes.sample(normal(v), 2000, seed=2, progress=False) for v in (y, y.flip(0), y.sort().values)]
    truth = float(normal_evidence(y)[-1])
    assert all(abs(r.log_evidence - truth) < Z * r.log_evidence_se < 0.5 for r in runs)


def test_a_batch_that_says_much_enters_in_steps():
    y = 3.0 + data(60)
    run = motes.sample(normal(y, batch=60), 1000, seed=0, progress=False)
    assert len(run.trace["t"]) > 3 and run.trace["exponent"][-1] == 1.0
    assert abs(run.log_evidence - float(normal_evidence(y)[-1])) < Z * run.log_evidence_se < 1
    seen, _ = evidence_path(run)
    assert seen.tolist() == [0, 60]


def test_a_power_that_cannot_rise_is_an_error_and_no_endless_run(monkeypatch):
    monkeypatch.setattr(
        "motes.density.annealing.data_annealing.next_temperature", lambda log_weight, gain, now, conditional_ess: now
    )
    with pytest.raises(MotesError, match=r"power of the observations 0 to 0 cannot rise above 0\.0 at t=1"):
        motes.sample(normal(data(4)), 10, seed=0, progress=False, max_steps=20)


def test_a_stream_of_data_goes_on_where_it_was(tmp_path):
    y, path = data(20), tmp_path / "run.motes"
    whole = motes.sample(normal(y), 200, seed=4, progress=False)
    part = motes.sample(normal(y[:8]), 200, seed=4, progress=False, checkpoint=path)
    assert part.result is motes.Result.OK
    assert motes.resume(path, normal(y[:8]), progress=False).log_evidence == part.log_evidence
    with pytest.raises(FileError, match="log-likelihood"):
        motes.resume(path, normal(y + 0.1), progress=False)
    with pytest.raises(FileError, match="there are 5 now"):
        motes.sample(normal(y[:8]), 200, seed=4, progress=False, checkpoint=tmp_path / "stopped", max_steps=7)
        motes.resume(tmp_path / "stopped", normal(y[:5]), progress=False)
    motes.resume(path, normal(y[:13]), progress=False, max_steps=10)
    rest = motes.resume(path, normal(y), progress=False)
    assert rest.log_evidence == whole.log_evidence
    assert torch.equal(rest.view["mean"], whole.view["mean"]) and torch.equal(rest.log_weight, whole.log_weight)


def test_several_tensors_of_observations():
    x, y = torch.linspace(-1, 1, 12, dtype=torch.float64), data(12)
    model = DataAnnealing(
        lambda p, o: Normal(p["slope"] * o["x"], 1.0).log_prob(o["y"]),
        {"slope": Normal(0 * ONE, 1.0)},
        {"x": x, "y": y},
    )
    cov = torch.eye(12, dtype=torch.float64) + x[:, None] * x
    truth = float(
        torch.distributions.MultivariateNormal(torch.zeros(12, dtype=torch.float64), covariance_matrix=cov).log_prob(y)
    )
    run = motes.sample(model, 2000, seed=0, progress=False)
    assert abs(run.log_evidence - truth) < Z * run.log_evidence_se < 0.3


def test_faults_are_errors():
    prior = {"p": Beta(2 * ONE, 3 * ONE)}
    with pytest.raises(ShapeError, match="last axis"):
        DataAnnealing(lambda p, y: Bernoulli(p["p"]).log_prob(y).sum(), prior, TOSSES)
    with pytest.raises(ShapeError, match="observations"):
        DataAnnealing(lambda p, y: y, prior, {"a": TOSSES, "b": TOSSES[1:]})
    with pytest.raises(ValueError, match="batch"):
        coin(TOSSES, batch=0)
    never = DataAnnealing(lambda p, y: (p["p"][:, None] + 0 * y).log() - math.inf, prior, TOSSES, vectorised=True)
    with pytest.raises(AllWeightsZero):
        motes.sample(never, 10, seed=0, progress=False)
