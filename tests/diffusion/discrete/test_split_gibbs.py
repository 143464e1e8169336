"""Split Gibbs against the augmented law, enumerated: what the chains should have at any tightness."""

import pytest
import torch

import motes
from motes.diffusion.discrete import Masked, Uniform, joint, split_gibbs
from motes.diffusion.discrete.split_gibbs import SplitGibbs

F64 = torch.float64
RNG = motes.Rng(3)
TABLE = RNG.at("table").gamma((27,), 0.5).reshape(3, 3, 3) + 0.01
TABLE = TABLE / TABLE.sum()
SEQUENCES = torch.cartesian_prod(*[torch.arange(3)] * 3)
LOG_LIKELIHOOD = 1.5 * RNG.at("likelihood").normal((27,))
CODE = torch.tensor([9, 3, 1])
PRIOR = joint(Uniform(3), TABLE)
pytestmark = pytest.mark.filterwarnings("ignore:the law of these chains")


def likelihood(tokens):
    return LOG_LIKELIHOOD[tokens @ CODE]


def augmented(b):
    """(27,) the law of x at flips b: exp(log-likelihood) sum_z p(z) K(x | z)."""
    far = (SEQUENCES[:, None] != SEQUENCES[None]).sum(-1).to(F64)
    kernel = (b / 2) ** far * (1 - b) ** (3 - far)
    law = LOG_LIKELIHOOD.exp() * (TABLE.flatten() @ kernel)
    return law / law.sum()


def distance(run, law):
    found = torch.bincount(run.view @ CODE, minlength=27).to(F64) / run.particles.n
    return float((found - law).abs().sum()) / 2


def sampled(b, n=4000, loosest=None, **kwargs):
    kwargs = {"sweeps": 6, "reverse": 10, "flips": 15, **kwargs}
    return motes.sample(
        SplitGibbs(PRIOR, likelihood, loosest=b if loosest is None else loosest, tightest=b, **kwargs),
        n,
        seed=1,
        progress=False,
    )


def test_the_chains_have_the_augmented_law():
    """At flips of 0.2: the distance of 4,000 exact draws from a law of 27 is about 0.03."""
    assert distance(sampled(0.2), augmented(0.2)) < 0.05
    posterior = TABLE.flatten() * LOG_LIKELIHOOD.exp()
    assert distance(sampled(0.2), posterior / posterior.sum()) > 0.08  # the bias at this tightness


def test_the_total_flip_probability_in_the_ratio_would_be_wrong(monkeypatch):
    """The published slip: b for each place that differs in the place of b / (V - 1)."""
    right = split_gibbs.log_kernel_cost
    monkeypatch.setattr(split_gibbs, "log_kernel_cost", lambda b, v: right(b, v) + torch.tensor(float(v - 1)).log())
    assert distance(sampled(0.2), augmented(0.2)) > 0.06


def test_tightening_leads_to_the_posterior():
    posterior = TABLE.flatten() * LOG_LIKELIHOOD.exp()
    run = sampled(0.01, n=2000, loosest=0.5, sweeps=40)
    assert distance(run, posterior / posterior.sum()) < 0.1
    assert run.trace["noise_level"][1] > run.trace["noise_level"][-1] and 0 < run.trace["acceptance"][-1] < 1


def test_it_is_cut_and_resumed_like_others_and_says_its_bias(tmp_path):
    model, path = (
        SplitGibbs(PRIOR, likelihood, sweeps=4, reverse=3, flips=5, micro_batch=4),
        tmp_path / "run.safetensors",
    )
    whole = motes.sample(model, 10, seed=2, progress=False)
    motes.sample(model, 10, seed=2, progress=False, checkpoint=path, callback=lambda s: s.particles.t == 2)
    assert torch.equal(motes.resume(path, model, progress=False).view, whole.view)
    assert "flips vanish" in model.remarks(whole.particles)[0] and "no weights" in whole.standard_error.reason
    ids = torch.tensor([7, 1])
    part = model.step(RNG.shard(ids), model.init(RNG.shard(ids), 2))
    assert torch.equal(part.x["tokens"], model.step(RNG, model.init(RNG, 10)).x["tokens"][ids])


@pytest.mark.filterwarnings("ignore:[0-9]+ of 50 chains")
def test_chains_find_where_the_likelihood_is_not_zero_and_the_run_says_how_many_did_not():
    """One of 27 sequences is allowed; chains that stayed where they began would leave 43 of 50 outside."""
    allowed = torch.tensor([1, 2, 1])

    def hard(tokens):
        return torch.where((tokens == allowed).all(1), 0.0, -torch.inf)

    prior = joint(Uniform(3), torch.ones(3, 3, 3))
    run = motes.sample(SplitGibbs(prior, hard, sweeps=20, reverse=4, flips=20), 50, seed=1, progress=False)
    lost = int((run.view != allowed).any(1).sum())
    assert lost < 5 and lost == int((run.particles.x["log_likelihood"] == -torch.inf).sum())
    model = SplitGibbs(prior, lambda x: torch.full((len(x),), -torch.inf), sweeps=1, reverse=2, flips=2)
    with pytest.warns(UserWarning, match="50 of 50 chains ended where the likelihood is zero"):
        motes.sample(model, 50, seed=1, progress=False)


def test_another_likelihood_is_refused_on_resume(tmp_path):
    path = tmp_path / "run.safetensors"
    model = SplitGibbs(PRIOR, likelihood, sweeps=4, reverse=3, flips=5)
    motes.sample(model, 10, seed=2, progress=False, checkpoint=path, callback=lambda s: s.particles.t == 2)
    with pytest.raises(motes.MotesError, match="the log-likelihood of particle 0 was"):
        motes.resume(path, SplitGibbs(PRIOR, lambda x: likelihood(x) + 1, sweeps=4, reverse=3, flips=5), progress=False)


def test_the_last_turn_is_at_the_tightest():
    for sweeps, annealed in ((1, 0.8), (4, 0.0), (5, 0.8), (5, 1.0), (2, 0.5)):
        coupling = SplitGibbs(PRIOR, likelihood, sweeps=sweeps, annealed=annealed).coupling
        assert float(coupling[-1]) == pytest.approx(0.01) and bool((coupling.diff() <= 0).all())
        if round(annealed * sweeps) > 1:
            assert float(coupling[0]) == pytest.approx(0.5)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="Uniform"):
        SplitGibbs(joint(Masked(3), TABLE), likelihood)
    for kwargs, what in (({"tightest": 0.6}, "tightest"), ({"flips": 0}, "flips"), ({"annealed": 2.0}, "annealed")):
        with pytest.raises(ValueError, match=what):
            SplitGibbs(PRIOR, likelihood, **kwargs)
    with pytest.raises(motes.MotesError, match="NaN"):
        motes.sample(SplitGibbs(PRIOR, lambda x: x[:, 0] * torch.nan, sweeps=1), 3, seed=1, progress=False)
