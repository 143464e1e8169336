"""Replicas of every sampler of densities: each population as if alone, one run of all, saved and read again."""

import math

import pytest
import torch
from torch.distributions import Normal

import motes
from motes.density import (
    AMIS,
    AnnealedImportanceSampling,
    NestedSampling,
    ParallelTempering,
    PersistentSampling,
    WasteFree,
)

double = torch.float64
DENSITY = motes.Density(
    lambda x: -0.5 * ((x - 1) / 0.5).square().sum(-1), Normal(torch.zeros(2, dtype=double), 1.0), vectorised=True
)
EXACT = -math.log(5) - 2 * 0.5 / 1.25  # of exp(-(x - 1)^2 / .5) under N(0, 1), twice
MODELS = {
    "tempering": (motes.Tempering(DENSITY), 64),
    "waste-free": (WasteFree(DENSITY), 64),
    "annealed": (AnnealedImportanceSampling(DENSITY), 64),
    "persistent": (PersistentSampling(DENSITY), 64),
    "nested": (NestedSampling(DENSITY), 48),
    "amis": (AMIS(DENSITY), 64),
    "chains": (motes.Chains(DENSITY, draws=20), 16),
    "parallel-tempering": (ParallelTempering(DENSITY, temperatures=3, draws=20, rounds=2), 8),
}
K = 4


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.filterwarnings("ignore::motes.errors.MotesWarning")
def test_replicas_of(name, tmp_path):
    model, n = MODELS[name]
    run = motes.sample(model, n, seed=1, progress=False, replicas=K)
    alone = motes.sample(model, n, seed=run.replicas[K - 1].seed, progress=False)
    assert torch.equal(alone.flat, run.replicas[K - 1].flat)
    assert torch.equal(alone.log_weight, run.replicas[K - 1].log_weight)
    assert len(run.flat) == sum(len(part.flat) for part in run.replicas)
    found = run.mean()
    low, high = found.interval(1 - 1e-6)
    assert found.freedom == K - 1 and bool(((low < 0.8) & (high > 0.8)).all())
    if name != "chains":
        below, above = run.interval(1 - 1e-6)
        assert below < EXACT < above and run.log_evidence_se < 1
    again = motes.load(run.save(tmp_path / "run"))
    assert repr(again) == repr(run) and torch.equal(again.flat, run.flat) and again.remarks == run.remarks
    assert float(run.mean(lambda x: 0 * x[:, 0] + 1)) == pytest.approx(1, abs=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(41, 44))
@pytest.mark.filterwarnings("ignore::motes.errors.MotesWarning")
def test_a_narrow_mode_that_some_populations_lost_is_told(seed):
    """Two modes in 8 dimensions, of which one population in five meets the narrow one."""
    centre, scale = torch.tensor([[-3.0], [3.0]], dtype=double), torch.tensor([0.3, 0.15], dtype=double)
    share = torch.tensor([0.2, 0.8], dtype=double)

    def log_likelihood(x):
        return torch.logsumexp(share.log() + Normal(centre, scale[:, None]).log_prob(x[:, None]).sum(-1), 1)

    density = motes.Density(log_likelihood, Normal(torch.zeros(8, dtype=double), 3.0), vectorised=True)
    run = motes.sample(motes.Tempering(density), 256, seed=seed, progress=False, replicas=8)
    met = [bool((part.view[:, 0] > 0).any()) for part in run.replicas]
    assert any(met) and run.doubts == {"evidence", "means"}
    assert math.isnan(run.log_evidence_se) and math.isnan(float(run.mean("x[0]").se))
