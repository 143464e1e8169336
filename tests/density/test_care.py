"""Tempering that finds itself out: laws that are narrow in places, healthy ones, and particles that cannot move."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from torch import Tensor
from torch.distributions import HalfCauchy, Normal

import motes
from motes.density.annealing import care
from motes.density.annealing.care import ADAPTATION, Care
from motes.errors import MotesWarning
from motes.kernels import RandomWalk
from motes.kernels.stationarity.noncentred import NonCentred

REAL = torch.float64
Y = torch.tensor([28, 8, -3, 7, -1, 1, 18, 12], dtype=REAL)
SIGMA = torch.tensor([15, 10, 16, 11, 9, 11, 10, 18], dtype=REAL)
WIDE = torch.tensor(3.0, dtype=REAL)


def normal(x: Tensor, mean: Tensor | float, scale: Tensor) -> Tensor:
    return -0.5 * ((x - mean) / scale).square() - scale.log() - 0.5 * math.log(2 * math.pi)


def funnel(x: Tensor) -> Tensor:
    """Neal's funnel over its start: the log evidence is 0, E v = 0 and P(v < -3) = .159."""
    v = x[:, 0]
    return normal(v, 0.0, WIDE) + normal(x[:, 1:], 0.0, torch.exp(v / 2)[:, None]).sum(1) - normal(x, 0.0, WIDE).sum(1)


def gaussian(x: Tensor) -> Tensor:
    return -0.5 * ((x - 2) / 0.3).square().sum(1)


def tempering(log_likelihood, d: int = 4, scale: Tensor = WIDE, **knobs) -> motes.Tempering:
    prior = Normal(torch.zeros(d, dtype=REAL), scale)
    return motes.Tempering(motes.Density(log_likelihood, prior, vectorised=True), **knobs)


def quiet(model: motes.Tempering, n: int, seed: int, **more) -> motes.Run:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MotesWarning)
        return motes.sample(model, n, seed=seed, progress=False, **more)


def neck(x: Tensor) -> Tensor:
    return (x[:, 0] < -3).to(REAL)


def test_a_funnel_is_found_and_entered_and_without_care_it_is_not():
    run = quiet(tempering(funnel), 1024, 0)
    care = run.particles.shared["care"]
    assert care["careful"] and care["dependence"] == [[0], [], [1, 2, 3]]
    for f, truth in ((neck, 0.158655), (lambda x: x[:, 0], 0.0)):
        found = run.mean(f)
        assert abs(float(found) - truth) < 4.9 * float(found.se)
    low, high = run.interval(1 - 6e-5)
    assert low < 0.0 < high
    without = quiet(tempering(funnel, careful=False), 1024, 0).mean(neck)
    assert float(without) < 0.08


def test_healthy_runs_keep_their_bits():
    with_care, without = (quiet(tempering(gaussian, 5, careful=c), 256, 1) for c in ("auto", False))
    assert torch.equal(with_care.log_weight, without.log_weight)
    assert torch.equal(with_care.particles.x["position"], without.particles.x["position"])
    assert not with_care.remarks and not with_care.particles.shared["care"]["careful"]


def test_a_run_that_began_anew_is_resumed_and_frozen(tmp_path):
    model, path = tempering(funnel), tmp_path / "run"
    whole = quiet(model, 256, 3)
    begun = whole.particles.shared["care"]["begun"]
    assert begun > 0 and whole.genealogy.t == whole.particles.t
    for t in (begun - 1, begun, begun + 2):
        quiet(model, 256, 3, max_steps=t, checkpoint=path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", MotesWarning)
            assert torch.equal(motes.resume(path, model, progress=False).log_weight, whole.log_weight)
    frozen = quiet(model.freeze(whole), 256, 4)
    assert frozen.particles.t == len(whole.particles.shared["ladder"]) - 1
    assert abs(frozen.log_evidence) < 1.0


def test_a_frozen_careful_run_is_unbiased(monkeypatch):
    """A normalised law whose two scales hang on a coordinate, so that E[Z_hat] = 1; its moves are not centred."""

    def narrow(x: Tensor) -> Tensor:
        v, two = x[:, 0], torch.tensor(2.0, dtype=REAL)
        return normal(v, 0.0, two / 2) + normal(x[:, 1:], 0.0, v.exp()[:, None]).sum(1) - normal(x, 0.0, two).sum(1)

    model = tempering(narrow, 3, torch.tensor(2.0, dtype=REAL), careful=True, conditional_ess=0.7, sweeps=2)
    pilot = quiet(model, 256, 1000)
    assert sum(r["parameters"]["map"] is not None for r in pilot.particles.shared["ladder"][1:]) > 3
    frozen = model.freeze(pilot)

    def off() -> float:
        z = torch.tensor([quiet(frozen, 32, s).log_evidence for s in range(24)], dtype=REAL).exp()
        return abs(float(z.mean()) - 1) / (float(z.std()) / 24**0.5)

    assert off() < 4.9
    jacobian_left_out = lambda self, x: self.base.log_density({**x, "position": x["centred"]})  # noqa: E731
    monkeypatch.setattr(NonCentred, "log_density", jacobian_left_out)
    assert off() > 4.9


def test_many_dimensions_and_few_particles_widen_the_bar_of_the_evidence(monkeypatch):
    """64 particles in 64 dimensions: log evidences are 1 nat too low, and frozen ones have nothing to widen."""
    d, ratio = 64, 3.0**2 / 0.3**2
    truth = -0.5 * d * (math.log1p(ratio) + 4 / (3.0**2 + 0.3**2))
    model = tempering(gaussian, d)
    runs = [quiet(model, 64, seed) for seed in range(1, 4)]
    error = torch.tensor([r.log_evidence - truth for r in runs])
    bar = torch.tensor([r.log_evidence_se for r in runs])
    assert bool((error.abs() < 1.96 * bar).all()), (error, bar)
    steps = len(runs[0].particles.shared["ladder"])
    assert float(bar[0]) > ADAPTATION * steps / 8 > 0.5
    assert quiet(model.freeze(runs[0]), 64, 9).log_evidence_se < 0.8 * float(bar[0])
    monkeypatch.setattr("motes.density.annealing.tempering.ADAPTATION", 0.0)
    narrow = quiet(model, 64, 1).log_evidence_se
    assert narrow < 0.8 * float(bar[0]) and float((error.abs() / narrow).square().mean()) > 1.96**2


class Stuck(RandomWalk):
    """A random walk that proposes steps of next to no length."""

    def start(self, d, dtype):
        return {**super().start(d, dtype), "step_size": 1e-7}

    def learn(self, parameters, sweep, weight):
        return parameters


def test_particles_that_cannot_move_have_no_error_bars():
    run = quiet(tempering(gaussian, kernel=Stuck(), sweeps=2), 512, 0)
    assert run.particles.shared["care"]["careful"] and {"evidence", "means"} <= run.doubts
    assert math.isnan(run.log_evidence_se) and any("not settled" in remark for remark in run.remarks)
    assert bool(run.mean().se.isnan().all())


@pytest.mark.slow
def test_eight_schools_centred():
    """log Z = -31.311, E tau = 3.598, P(tau < 1) = .200 by quadrature; the prior of theta is divided out."""

    def log_likelihood(p):
        theta, mu, tau = p["theta"], p["mu"][:, None], p["tau"][:, None]
        prior = normal(theta, 0.0, torch.tensor(10.0, dtype=REAL))
        return (normal(Y, theta, SIGMA) + normal(theta, mu, tau) - prior).sum(1)

    real = [torch.tensor(v, dtype=REAL) for v in (0.0, 5.0, 10.0)]
    prior = {"mu": Normal(*real[:2]), "tau": HalfCauchy(real[1]), "theta": Normal(real[0].expand(8), real[2])}
    density = motes.Density(log_likelihood, prior, vectorised=True)
    tails = []
    for seed in range(6):
        run = quiet(motes.Tempering(density), 1024, seed)
        tails.append(float(run.mean(lambda v: (v["tau"] < 1).to(REAL))))
        assert abs(run.log_evidence + 31.311) < 0.5
    assert abs(sum(tails) / 6 - 0.200) < 0.06
    without = quiet(motes.Tempering(density, careful=False), 1024, 0)
    assert float(without.mean(lambda v: (v["tau"] < 1).to(REAL))) < 0.12


def test_what_moves_changed_behind_a_wall_is_a_share_and_no_log_likelihood(monkeypatch):
    """Five of ten particles are behind a wall of -1e300, and then four: the mean weight rises by a fifth."""
    before, after = torch.zeros(10, dtype=REAL), torch.zeros(10, dtype=REAL)
    before[:5], after[:4] = -1e300, -1e300
    even, family = torch.full((10,), 0.1, dtype=REAL), torch.arange(10)
    lag, variance = Care().after(1.0, before, after, even, family, 0.1).lag
    assert lag == pytest.approx(0.2) and 0 < variance < 0.1
    near = Care().after(1.0, before.clamp(min=-3.0), after.clamp(min=-3.0), even, family, 0.1).lag
    assert near[0] == pytest.approx(0.1 * 0.3)  # in proportion
    monkeypatch.setattr(care, "FAR", math.inf)
    assert Care().after(1.0, before, after, even, family, 0.1).lag[0] > 1e297


def test_a_hard_wall_leaves_error_bars_of_their_size():
    def log_likelihood(x):
        return torch.where((x[:, 0] > 0) & (x[:, 0] < 0.3), normal(x[:, 1], 2.0, torch.exp(x[:, 2])), -1e300)

    run = quiet(tempering(log_likelihood, 3, WIDE / 3), 256, 0)
    assert 0 < run.log_evidence_se < 0.5
