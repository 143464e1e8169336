"""A fitted drift calms the weights and leaves the law alone; without its divergence it does not."""

import math

import pytest
import torch

import motes
from diffusion.two_modes import F64, A, made, moments, truth
from motes.diffusion import VariancePreserving, gaussian
from motes.diffusion.composing import driftlite
from motes.diffusion.composing.composition import Composition
from motes.diffusion.composing.driftlite import DriftLite, divergence
from motes.errors import MotesError, ShapeError, UnknownName

pytestmark = pytest.mark.filterwarnings("ignore::motes.errors.MotesWarning")
VP = VariancePreserving()


@pytest.mark.parametrize("exponents", [(2.0, 0.5), (-0.4, 1.4)])
def test_linear_maps_leave_no_variance_for_normal_laws(exponents):
    """Two dimensions, correlated, other means: the variance of the log-weights falls below 1e-25, from above 0.01."""
    means = torch.tensor([[0.3, -0.2], [-0.5, 0.4]], dtype=F64)
    spreads = torch.tensor([[[1.0, 0.3], [0.3, 0.6]], [[0.7, -0.2], [-0.2, 0.5]]], dtype=F64)
    models = [gaussian(VP, m, c) for m, c in zip(means, spreads, strict=True)]
    options = {"shape": (2,), "dtype": F64, "weights": "rate"}
    calm = Composition(models, exponents, 40, control=DriftLite(("affine",)), **options)
    raw = Composition(models, exponents, 40, **options)
    assert float(motes.sample(calm, 100, seed=0, ess_threshold=0, progress=False).log_weight.var()) < 1e-25
    assert float(motes.sample(raw, 100, seed=0, ess_threshold=0, progress=False).log_weight.var()) > 0.01


def gradient(x, t):
    """A curved function to add to the basis."""
    return torch.sin(x)


BASES = {
    "scale": DriftLite(("scale",)),
    "diagonal": DriftLite(("diagonal",)),
    "scores": DriftLite(("diagonal", "scores")),
    "function": DriftLite(("diagonal",), functions=(gradient,)),
}


def found(case, control, seeds, n=1000, steps=150):
    """(seeds, 4): the log normaliser and the moments of runs."""
    rows = []
    for seed in range(seeds):
        run = motes.sample(made(case, steps, weights="rate", control=control), n, seed=seed, progress=False)
        rest = moments(run.view[:, 0], torch.softmax(run.log_weight, 0))[1:]
        rows.append(torch.cat([torch.tensor([run.log_evidence], dtype=F64), rest]))
    return torch.stack(rows)


def off(rows, case):
    """How far means are from the truth, in units of what may be: discretisation and 5 standard errors."""
    log_z, right = truth(case)
    gap = (rows.mean(0) - torch.cat([torch.tensor([log_z], dtype=F64), right])).abs()
    return float((gap / (torch.tensor([0.03, 0.06, 0.1, 0.02]) + 5 * rows.std(0) / math.sqrt(len(rows)))).max())


@pytest.mark.parametrize("basis", BASES)
def test_the_law_stays_and_the_weights_vary_less(basis):
    rows = found("cold", BASES[basis], 4)
    assert off(rows, "cold") < 1, rows.mean(0)
    assert float(rows[:, 0].std()) < 0.05


def test_a_drift_without_its_divergence_is_caught(monkeypatch):
    """The twin: divergences of zero."""
    right = DriftLite._features

    def wrong(self, *args):
        features, spread = right(self, *args)
        return features, 0 * spread

    monkeypatch.setattr(driftlite.DriftLite, "_features", wrong)
    assert off(found("cold", BASES["diagonal"], 2), "cold") > 1


def test_divergences_are_exact_in_few_dimensions_and_right_on_average_in_many():
    x = motes.Rng(0).at("x").normal((5, 3), dtype=F64).requires_grad_(True)
    weight = torch.tensor([1.0, -2.0, 0.5], dtype=F64)
    value = torch.sin(x) * weight + x.sum(1, keepdim=True) ** 2
    exact = (torch.cos(x) * weight).sum(1) + 6 * x.sum(1)
    assert torch.allclose(divergence(value, x, motes.Rng(0)), exact, atol=1e-13)
    many = motes.Rng(1).at("x").normal((1, 40), dtype=F64).expand(4000, 40).clone().requires_grad_(True)
    value = torch.sin(many) + 0.1 * many.roll(1, 1)
    found = divergence(value, many, motes.Rng(2)).detach()
    z = (found.mean() - torch.cos(many[0].detach()).sum()) / (found.std() / math.sqrt(4000))
    assert abs(float(z)) < 4.9 and float(found.std()) > 0.1
    assert float(divergence(torch.ones(2, 3), x, motes.Rng(0)).abs().sum()) == 0


def test_many_dimensions_and_a_resumed_run(tmp_path):
    model = gaussian(VP, torch.zeros(20), torch.eye(20))
    options = {"shape": (20,), "control": DriftLite(("scale", "scores"))}
    made = Composition([model], [1.5], 12, **options)
    run = motes.sample(made, 40, seed=1, progress=False, checkpoint=tmp_path / "run.motes")
    assert made.rule == "rate" and math.isfinite(run.log_evidence)
    assert made.settings()["control"]["basis"] == ["scale", "scores"]
    assert "Ren" in motes.cite(run, style="text")


def test_what_does_not_fit_is_refused():
    with pytest.raises(UnknownName, match="basis"):
        DriftLite(("linear",))
    with pytest.raises(ValueError, match="at least one"):
        DriftLite(())
    with pytest.raises(ValueError, match="ridge"):
        DriftLite(ridge=-1)
    with pytest.raises(MotesError, match="control is for"):
        Composition([A], [2.0], 5, shape=(1,), weights="energy", control=DriftLite())
    with pytest.raises(ShapeError, match="basis function"):
        broken = DriftLite((), functions=(lambda x, t: x[:, :0],))
        motes.sample(Composition([A], [2.0], 5, shape=(1,), control=broken), 4, seed=0, progress=False)
