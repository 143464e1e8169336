"""Where few particles had the largest weights: how often the bar is kept, and that it covers where it is."""

import math

import pytest
import torch

import motes
from motes.core.estimate import upper_tail
from motes.core.estimate.psis import smooth
from motes.core.estimate.upper_tail import few_had_the_largest, pareto_shape, wild

RUNS = 400


def kept(draw, truth: float) -> tuple[float, float]:
    """The share of populations that keep their bar, and how often log of the mean weight is covered where they do."""
    keep, covered = 0, 0
    for _ in range(RUNS):
        log_weight = draw()
        weight, n = log_weight.exp(), len(log_weight)
        if few_had_the_largest(log_weight):
            continue
        keep += 1
        se = float(weight.std() / weight.mean()) / math.sqrt(n)
        covered += abs(float(weight.mean().log()) - truth) < 1.96 * se
    return keep / RUNS, covered / max(keep, 1)


@pytest.mark.parametrize(("n", "light", "heavy"), [(12, 0.53, 0.0), (32, 0.97, 0.05), (128, 1.0, 0.01)])
def test_weights_that_fall_off_slowly_have_no_bar(n, light, heavy):
    rng = torch.Generator().manual_seed(7)
    near = 4.9 * math.sqrt(0.25 / RUNS)
    for s, share in ((1.0, light), (3.0, heavy)):
        keep, covered = kept(lambda s=s: s * torch.randn(n, generator=rng, dtype=torch.float64), s * s / 2)
        assert abs(keep - share) < near
        assert covered > 0.75 or keep < 0.2
    # the twin: without a look at the tail the bar of the heavy weights hardly ever covers
    heavy_weights = [3 * torch.randn(n, generator=rng, dtype=torch.float64) for _ in range(RUNS)]
    misses = sum(abs(float(w.exp().mean().log()) - 4.5) > 1.96 * float(w.exp().std() / w.exp().mean()) / math.sqrt(n)
                 for w in heavy_weights)  # fmt: skip
    assert misses > 0.4 * RUNS


def test_an_event_that_a_few_of_many_met_keeps_its_bar(monkeypatch):
    rng = torch.Generator().manual_seed(8)

    def draw():
        return 2 * (torch.rand(128, generator=rng, dtype=torch.float64) < 0.05).double()

    truth = math.log(0.95 + 0.05 * math.e**2)
    keep, covered = kept(draw, truth)
    assert keep > 0.99 and covered > 0.88
    monkeypatch.setattr(upper_tail, "HEFT", 0.0)
    assert kept(draw, truth)[0] < 0.9


def test_the_end_of_a_population():
    assert not few_had_the_largest(torch.zeros(100))
    assert not few_had_the_largest(torch.tensor([-math.inf, 0.0]))
    assert few_had_the_largest(torch.tensor([30.0, *[0.0] * 99]))


@pytest.mark.parametrize("n", [30, 100, 512, 5000])
@pytest.mark.parametrize("s", [0.1, 1.0, 3.0])
def test_the_shape_of_a_tail_is_that_of_arviz(n, s):
    """But for how many weights are the tail, where that differs by one."""
    pytest.importorskip("arviz_stats")
    w = s * motes.Rng(n).at("w").normal((n,), dtype=torch.float64)
    assert abs(pareto_shape(w) - smooth(w).k_hat) < 0.05
    assert abs(pareto_shape(w + 300) - pareto_shape(w)) < 1e-9


def test_the_shape_of_a_tail_that_is_known():
    """Weights u^-k have shape k; flat ones -inf; of few nothing is known."""
    u = motes.Rng(1).at("u").uniform((20_000,), dtype=torch.float64)
    for k in (0.3, 0.7, 1.2):
        assert abs(pareto_shape(-k * u.log()) - k) < 0.15
    assert pareto_shape(torch.zeros(100)) == -math.inf and math.isnan(pareto_shape(torch.zeros(9)))


def test_means_of_wild_values_have_no_bar(monkeypatch):
    """E exp(3 z) = e^4.5 rests on z near 3, which few draws reach; a law without a mean has none to estimate."""
    rng = torch.Generator().manual_seed(11)
    even = torch.full((512,), 1 / 512, dtype=torch.float64)
    z = torch.randn(512, 100, generator=rng, dtype=torch.float64)
    u = torch.rand(512, 100, generator=rng, dtype=torch.float64)
    for value, low, high in (
        (z, 0.0, 0.0),
        (z.square(), 0.0, 0.02),
        ((z > 1.5).double(), 0.0, 0.0),
        (z.exp(), 0.0, 0.1),
        ((3 * z).exp(), 0.65, 1.0),
        ((math.pi * (u - 0.5)).tan(), 0.65, 1.0),
    ):
        share = float((wild(value, even) > 0).double().mean())
        assert low <= share <= high, (share, low, high)
    normal = torch.distributions.Normal(torch.zeros(1, dtype=torch.float64), 1.0)
    density = motes.Density(lambda x: 1e-6 * x.sum(-1), normal, vectorised=True)
    run = motes.sample(motes.Tempering(density), 512, seed=0, progress=False)
    wide = run.mean(lambda x: (3 * x[:, 0]).exp())
    assert math.isnan(float(wide.se)) and "tail of shape" in wide.reason and math.isfinite(float(run.mean().se))
    monkeypatch.setattr(upper_tail, "WILD", math.inf)  # the twin: bars of a half of what is missing
    runs = [motes.sample(motes.Tempering(density), 512, seed=s, progress=False) for s in range(12)]
    found = [r.mean(lambda x: (3 * x[:, 0]).exp()) for r in runs]
    assert sum(float(f) < math.exp(4.5) - 2.5 * float(f.se) for f in found) >= 3
