"""Walk-jump sampling of a Gaussian, whose measurements and jumps are known, and of a mixture with far modes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import motes
from motes.density.walk_jump import Measurement, WalkJump
from motes.errors import FileError, MotesError, NanLogPotential, ShapeError

N, Z = 3000, 4.9  # two-sided level 1e-6
MIX = torch.tensor([[2.0, 0.0], [0.9, 0.5]], dtype=torch.float64)


def gaussian(y: Tensor, sigma: float) -> Tensor:
    """x ~ N(0, A A^T), smoothed."""
    covariance = MIX @ MIX.T + sigma**2 * torch.eye(2, dtype=torch.float64)
    return -0.5 * torch.linalg.vecdot(y, torch.linalg.solve(covariance, y.T).T)


def mixture(y: Tensor, sigma: float) -> Tensor:
    """x ~ 0.3 N(-6, 0.5^2) + 0.7 N(6, 0.5^2), smoothed."""
    variance = 0.25 + sigma**2
    centre, weight = torch.tensor([-6.0, 6.0], dtype=y.dtype), torch.tensor([0.3, 0.7], dtype=y.dtype)
    return torch.logsumexp(weight.log() - (y - centre).square() / (2 * variance), 1)


def sampled(model: WalkJump, seed: int = 0) -> motes.Run:
    return motes.sample(model, N, seed=seed, progress=False)


def scores(x: Tensor, covariance: Tensor) -> float:
    """The largest z-score of the mean and of the second moments."""
    pairs = [(0, 0), (0, 1), (1, 1)]
    terms = [(x[:, i], 0.0) for i in range(2)] + [(x[:, i] * x[:, j], float(covariance[i, j])) for i, j in pairs]
    return max(abs(float(f.mean()) - truth) / float(f.std()) * math.sqrt(len(x)) for f, truth in terms)


@pytest.mark.parametrize("m", [1, 2, 9])
@pytest.mark.parametrize("kernel", ["hmc", "slice"])
def test_measurements_and_jumps_of_a_gaussian(m: int, kernel: str) -> None:
    """Would catch variances off by 13 %."""
    noise, sweeps = 2.0, 10 if kernel == "hmc" else 30
    run = sampled(WalkJump(gaussian, 2, sigma=noise, measurements=m, kernel=kernel, sweeps=sweeps))
    prior, extra = MIX @ MIX.T, noise**2 / m * torch.eye(2, dtype=torch.float64)
    assert scores(run.particles.x["mean"], prior + extra) < Z
    assert scores(run.view, prior @ torch.linalg.solve(prior + extra, prior)) < Z
    assert run.trace["acceptance"].min() > 0.3


def test_the_jump_is_the_posterior_mean() -> None:
    run, prior = motes.sample(WalkJump(gaussian, 2, sigma=2.0, measurements=9), 5, seed=0, progress=False), MIX @ MIX.T
    y = run.particles.x["mean"]
    exact = torch.linalg.solve(prior + 4 / 9 * torch.eye(2, dtype=torch.float64), y.T).T @ prior
    assert torch.allclose(run.view, exact)


def test_a_measurement_has_its_conditional_law() -> None:
    """The log-density given the past is that of all measurements, up to a constant: here directly, for k = 3."""
    past, y = motes.Rng(0).normal((2, 4, 2)), motes.Rng(1).normal((4, 2))
    covariance = (MIX @ MIX.T).repeat(3, 3) + 2.25 * torch.eye(6, dtype=torch.float64)
    joint = torch.distributions.MultivariateNormal(torch.zeros(6, dtype=torch.float64), covariance)
    law = Measurement(gaussian, past.mean(0), 3, 1.5)
    other = y.flip(0)

    def whole(y: Tensor) -> Tensor:
        return joint.log_prob(torch.cat([past[0], past[1], y], 1))

    found = law.evaluate(y, True)["value"] - law.evaluate(other, True)["value"]
    assert torch.allclose(found, whole(y) - whole(other), rtol=1e-10)
    z = y.clone().requires_grad_()
    (slope,) = torch.autograd.grad(whole(z).sum(), z)
    assert torch.allclose(law.evaluate(y, True)["slope"], slope)
    rows = torch.tensor([3, 1])
    assert torch.allclose(law.part(rows).evaluate(y[rows], True)["slope"], slope[rows])


def test_far_modes_get_their_weights() -> None:
    """Modes 24 standard deviations apart, measured with noise that joins them; would catch a weight off by 0.04."""
    run = sampled(WalkJump(mixture, 1, sigma=6.0, measurements=60, spread=9.0))
    jump = run.view[:, 0]
    right = float((jump > 0).double().mean())
    assert abs(right - 0.7) < Z * math.sqrt(0.21 / N)
    expected = 0.25**2 / (0.25 + 36 / 60)
    for mode in (jump[jump > 0] - 6, jump[jump < 0] + 6):
        assert abs(float(mode.mean())) < Z * math.sqrt(expected / len(mode))
        assert float(mode.var()) == pytest.approx(expected, rel=Z * math.sqrt(2 / len(mode)))


def test_without_the_past_it_is_another_law(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Measurement.evaluate

    def forgetful(self, position, gradient):
        return right(Measurement(self.smoothed, self.mean, 1, self.sigma), position, gradient)

    monkeypatch.setattr(Measurement, "evaluate", forgetful)
    run = sampled(WalkJump(gaussian, 2, sigma=2.0, measurements=4))
    assert scores(run.particles.x["mean"], MIX @ MIX.T + torch.eye(2, dtype=torch.float64)) > Z


def test_an_interrupted_run_is_resumed_bit_for_bit(tmp_path) -> None:
    model, path = WalkJump(gaussian, 2, sigma=2.0, measurements=4), tmp_path / "run.motes"
    whole = motes.sample(model, 50, seed=5, progress=False)
    motes.sample(model, 50, seed=5, progress=False, checkpoint=path, max_steps=2)
    with pytest.raises(FileError, match="log-density of particle 0 was"):
        motes.resume(
            path, WalkJump(lambda y, sigma: 1.1 * gaussian(y, sigma), 2, sigma=2.0, measurements=4), progress=False
        )
    assert torch.equal(motes.resume(path, model, progress=False).view, whole.view)


def test_faults_are_errors() -> None:
    with pytest.raises(ValueError, match="positive"):
        WalkJump(gaussian, 2, sigma=0.0, measurements=3)
    with pytest.raises(MotesError, match="whole numbers"):
        WalkJump(gaussian, 2, sigma=1.0, measurements=3, kernel="flip")
    with pytest.raises(MotesError, match="gradients"):
        WalkJump(lambda y, sigma: y.detach().sum(1), 2, sigma=1.0, measurements=3)
    with pytest.raises(ShapeError, match=r"\(4,\)"):
        motes.sample(WalkJump(lambda y, sigma: y.sum(), 2, sigma=1.0, measurements=3), 4, seed=0, progress=False)
    with pytest.raises(NanLogPotential, match="particle"):
        motes.sample(WalkJump(lambda y, sigma: y[:, 0].log(), 2, sigma=1.0, measurements=3), 40, seed=0, progress=False)
