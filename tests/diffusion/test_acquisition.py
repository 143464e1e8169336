"""Active measurements: the score against the exact information gain, and the posterior whatever was measured."""

import math

import pytest
import torch

import motes
from motes.diffusion import VariancePreserving, gaussian
from motes.diffusion.inverse import ActiveDiffusion, Function, Observation, acquisition, posterior
from motes.diffusion.inverse.acquisition import mixture_entropy, normal_entropy, spread_out

F64 = torch.float64
VP = VariancePreserving()
VARIANCE = torch.tensor([0.2, 2.0, 0.5, 1.5, 0.1, 1.0], dtype=F64)
DENOISER = gaussian(VP, torch.zeros(6, dtype=F64), torch.diag(VARIANCE))
TRUTH = torch.tensor([0.3, -1.2, 0.8, 1.9, 0.1, -0.7], dtype=F64)
NOISE = 0.3


def made(choice="entropy", budget=3, steps=60, asked=None, **kwargs):
    def ask(candidate):
        if asked is not None:
            asked.append(candidate)
        return TRUTH[candidate : candidate + 1]

    return ActiveDiffusion(
        DENOISER,
        steps,
        measure=lambda x: x[:, :, None],
        ask=ask,
        std=NOISE,
        budget=budget,
        **{"shape": (6,), "dtype": F64, "choice": choice, "integrator": "euler-maruyama", **kwargs},
    )


def spearman(a, b):
    a, b = a.argsort().argsort().double(), b.argsort().argsort().double()
    return float(torch.corrcoef(torch.stack([a, b]))[0, 1])


def test_the_entropy_ranks_candidates_as_the_information_gain_does():
    """Normal predictions of 20 variances, 64 and 2,000 particles: rank correlation with 1/2 log(1 + v / noise^2)."""
    variance = torch.linspace(0.1, 2, 20, dtype=F64)
    gain = 0.5 * torch.log1p(variance / NOISE**2)
    for n, least in ((64, 0.75), (2000, 0.99)):
        predicted = motes.Rng(n).normal((n, 20))[:, :, None] * variance.sqrt()[:, None]
        weight = torch.full((n,), 1 / n, dtype=F64)
        for score in (mixture_entropy, normal_entropy):
            found = score(predicted, weight, NOISE)
            assert spearman(found, gain) > least
        assert abs(spearman(found[torch.arange(20).flip(0)], gain)) > 0.7  # and not for the flipped order
    assert torch.allclose(normal_entropy(predicted, weight, NOISE), gain, rtol=0.1)


def test_the_score_by_hand():
    """Two particles, weights 1/4 and 3/4, apart by 2 noise: exp(-2) between them."""
    predicted = torch.tensor([[[0.0]], [[2 * NOISE]]], dtype=F64)
    weight = torch.tensor([0.25, 0.75], dtype=F64)
    e = math.exp(-2)
    exact = -(0.25 * math.log(0.25 + 0.75 * e) + 0.75 * math.log(0.75 + 0.25 * e))
    assert float(mixture_entropy(predicted, weight, NOISE)) == pytest.approx(exact, rel=1e-12)
    dead = torch.cat([predicted, torch.full((1, 1, 1), 9.0, dtype=F64)])
    assert float(mixture_entropy(dead, torch.tensor([0.25, 0.75, 0.0], dtype=F64), NOISE)) == pytest.approx(exact)


def test_the_score_does_not_depend_on_how_many_candidates_are_taken_at_once(monkeypatch):
    predicted = motes.Rng(1).normal((40, 9 * 2)).reshape(40, 9, 2)
    weight = torch.softmax(motes.Rng(2).normal((40,)), 0)
    whole = mixture_entropy(predicted, weight, NOISE)
    monkeypatch.setattr(acquisition, "AT_ONCE", 1)
    assert torch.allclose(mixture_entropy(predicted, weight, NOISE), whole, rtol=1e-12)
    assert whole.shape == (9,)


@pytest.mark.parametrize("choice", ["entropy", "variance", "random", "equispaced"])
def test_the_posterior_is_that_of_what_was_measured(choice):
    asked = []
    run = motes.sample(made(choice, asked=asked, steps=150), 500, seed=4, progress=False)
    assert run.particles.shared["asked"].tolist() == asked and len(set(asked)) == 3
    seen = torch.zeros(6, dtype=torch.bool)
    seen[asked] = True
    precision = 1 / VARIANCE + seen / NOISE**2
    mean = seen * TRUTH / NOISE**2 / precision
    found = (run.weight[:, None] * run.view).sum(0)
    assert float(((found - mean).abs() * (precision * run.ess).sqrt()).max()) < 5
    total = torch.distributions.Normal(0.0, (VARIANCE + NOISE**2).sqrt()).log_prob(TRUTH)[asked].sum()
    assert abs(run.log_evidence - float(total)) < 5 * run.log_evidence_se + 0.4
    assert float(((mean.abs()) * (precision * run.ess).sqrt()).max()) > 10  # the prior would fail
    if choice in ("entropy", "variance"):
        assert set(asked) == {1, 3, 5}  # the three of largest variance
    informed = torch.isfinite(run.particles.shared["entropy"])
    assert bool(informed.all()) if choice in ("entropy", "variance") else not bool(informed.any())
    if choice == "equispaced":
        assert asked == [0, 2, 4]
    assert run.trace["measurements"][-1] == 3 and run.trace["measurements"][0] == 0


def test_the_normaliser_is_that_of_the_whole_measurement_on_the_same_chain():
    """Not chosen by the particles: E[Z_hat] = Z of the sampler that has the same numbers from the start, 150 runs."""
    measured = [0, 2, 4]
    observation = Observation(Function(lambda x: x[:, measured], shape=(6,)), TRUTH[measured], NOISE)
    whole = posterior(DENOISER, 8, observation, shape=(6,), dtype=F64, guidance=0.5, coarse=0)
    active = made("equispaced", steps=8, guidance=0.5, integrator="multistep", coarse=0)
    z = [
        torch.tensor([motes.sample(m, n, seed=s, progress=False).log_evidence for s in range(runs)], dtype=F64).exp()
        for m, n, runs in ((active, 100, 150), (whole, 4000, 8))
    ]
    error = (z[0].var() / len(z[0]) + z[1].var() / len(z[1])).sqrt()
    assert abs(float(z[0].mean() - z[1].mean())) < 4.9 * float(error) < 0.5 * float(z[1].mean())


def test_measurements_come_within_the_window_and_first_ones_before():
    model = made(first=(4,), window=(0.25, 0.75), budget=4, steps=20)
    when = model.when
    assert when[0] == 1 and when[5] == 1 and when[6] > 1 and when[15] == 4 and when == sorted(when)
    run = motes.sample(model, 20, seed=1, progress=False)
    assert int(run.particles.shared["asked"][0]) == 4 and run.trace["measurements"][0] == 1
    assert math.isnan(float(run.particles.shared["entropy"][0])) and float(run.particles.shared["entropy"][1]) > 0


def test_an_interrupted_run_resumes_without_asking_again(tmp_path):
    path, asked = tmp_path / "run.safetensors", []
    whole = motes.sample(made(steps=12), 30, seed=2, progress=False)
    motes.sample(
        made(steps=12, asked=asked), 30, seed=2, progress=False, checkpoint=path, callback=lambda s: s.particles.t == 4
    )
    before = list(asked)
    resumed = motes.resume(path, made(steps=12, asked=asked), progress=False)
    assert torch.equal(resumed.view, whole.view) and resumed.log_evidence == whole.log_evidence
    assert asked == resumed.particles.shared["asked"].tolist() and len(before) < 3


def test_evenly_spaced():
    rank = spread_out(8, 4, torch.tensor([2]))
    assert rank[:7:2].tolist() == [0, 8, 1, 2] and bool((rank[1::2] == 8).all())


def test_what_does_not_fit_is_refused():
    with pytest.raises(motes.MotesError, match="choice"):
        made("greedy")
    for kwargs, what in (
        ({"budget": 7}, "budget"),
        ({"first": (1, 1)}, "different candidates"),
        ({"window": (0.5, 0.2)}, "window"),
        ({"scale": 0.0}, "scale must be positive"),
    ):
        with pytest.raises(ValueError, match=what):
            made(**kwargs)
    with pytest.raises(motes.MotesError, match="measure must return"):
        ActiveDiffusion(
            DENOISER, 5, measure=lambda x: x, ask=lambda i: TRUTH[i], std=NOISE, budget=2, shape=(6,), dtype=F64
        )
    bad = ActiveDiffusion(
        DENOISER,
        5,
        measure=lambda x: x[:, :, None],
        ask=lambda i: TRUTH[i],
        std=NOISE,
        budget=2,
        shape=(6,),
        dtype=F64,
    )
    with pytest.raises(motes.MotesError, match=r"ask\(\d\) returned shape"):
        motes.sample(bad, 4, seed=1, progress=False)
