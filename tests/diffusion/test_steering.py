"""Samplers that look further than one step: each against the normaliser of its chain, which all of them share."""

import math

import pytest
import torch

import motes
from diffusion.linear import Normal, chain
from motes.diffusion import VariancePreserving, gaussian
from motes.diffusion.sampling import iterated
from motes.diffusion.sampling.adaptive import AdaptiveReward, affordable
from motes.diffusion.sampling.best_of import best_of
from motes.diffusion.sampling.iterated import Learned, _Keeper, affine, iterated_twisting, radial, trust_power
from motes.diffusion.sampling.value_decoding import ValueDecoding

F64 = torch.float64
VP = VariancePreserving()
ONE = Normal(torch.tensor([0.4], dtype=F64), torch.tensor([[0.6]], dtype=F64))
DENOISER = gaussian(VP, ONE.mean, ONE.covariance)
CENTRE, PRECISION = torch.tensor([1.0], dtype=F64), torch.tensor([[1.5]], dtype=F64)
STEPS = 12


def reward(x):
    return -0.75 * (x[:, 0] - 1).square()


def inner(**kwargs):
    return motes.ReverseDiffusion(DENOISER, STEPS, reward=reward, shape=(1,), dtype=F64, **kwargs)


LOG_Z, LAW = chain(VP, VP.times(STEPS), ONE, "ancestral", "denoised").tilted(CENTRE, PRECISION)


def ratios(model, n, runs, ess_threshold=0.5):
    """exp(log evidence - log Z) of many runs, and their weighted means times that."""
    z, m = [], []
    for s in range(runs):
        run = motes.sample(model, n, seed=s, progress=False, ess_threshold=ess_threshold)
        z.append(math.exp(run.log_evidence - LOG_Z))
        m.append(z[-1] * float((run.weight * run.view[:, 0]).sum()))
    return torch.tensor(z, dtype=F64), torch.tensor(m, dtype=F64)


@pytest.mark.parametrize("proposals, guidance", [(1, None), (3, 0.5)])
def test_value_decoding_is_properly_weighted(proposals, guidance):
    """200 runs of 8: E[Z_hat] = Z and E[Z_hat mean] = Z mean within 4.9 standard errors, below 0.15."""
    z, m = ratios(ValueDecoding(inner(guidance=guidance), proposals=proposals), 8, 200)
    assert abs(float(z.mean()) - 1) < 4.9 * float(z.std()) / 200**0.5
    assert abs(float(m.mean()) - float(LAW.mean)) < 4.9 * float(m.std()) / 200**0.5
    assert 4.9 * float(z.std()) / 200**0.5 < 0.15


def test_value_decoding_without_its_weight_would_be_wrong():
    """The twin: the images of the kept proposals, each counted once, are not the tilted law's at M = 3."""
    run = motes.sample(ValueDecoding(inner(), proposals=3), 4000, seed=1, progress=False, ess_threshold=0)
    kept, weighted = float(run.view.mean()), float((run.weight * run.view[:, 0]).sum())
    assert abs(weighted - float(LAW.mean)) < 0.05 < abs(kept - float(LAW.mean))


def test_more_proposals_even_the_weights():
    few, many = (
        motes.sample(ValueDecoding(inner(), proposals=m), 500, seed=2, progress=False, ess_threshold=0) for m in (1, 16)
    )
    assert float(many.log_weight.std()) < 0.8 * float(few.log_weight.std())


def test_value_decoding_is_cut_and_resumed_like_others(tmp_path):
    model, path = ValueDecoding(inner(micro_batch=5), proposals=3), tmp_path / "run.safetensors"
    whole = motes.sample(model, 10, seed=3, progress=False)
    motes.sample(model, 10, seed=3, progress=False, checkpoint=path, callback=lambda s: s.particles.t == 5)
    assert torch.equal(motes.resume(path, model, progress=False).view, whole.view)
    rng, particles = motes.Rng(4), model.init(motes.Rng(4), 10)
    ids = torch.tensor([7, 2])
    part = model.step(rng.shard(ids), model.init(rng.shard(ids), 2))
    assert torch.equal(part.x["state"], model.step(rng, particles).x["state"][ids])


def test_best_of_n():
    run = motes.sample(inner(schedule="end"), 600, seed=5, progress=False, ess_threshold=0)
    best = best_of(run, 6)
    assert best.images.shape == (100, 1) and torch.equal(best.reward, run.particles.x["reward"].reshape(100, 6).amax(1))
    assert torch.equal(best.reward, reward(best.images))
    assert best.divergence == pytest.approx(math.log(6) - 5 / 6)
    # The rank of a best of 6 is Beta(6, 1), with mean 6/7; an unselected image would have 1/2.
    rank = (run.particles.x["reward"][None] <= best.reward[:, None]).double().mean(1)
    assert abs(float(rank.mean()) - 6 / 7) < 4.9 * (6 / (49 * 8)) ** 0.5 / 10
    with pytest.raises(ValueError, match="divide"):
        best_of(run, 7)
    with pytest.raises(motes.MotesError, match="resampled"):
        best_of(motes.sample(inner(), 600, seed=5, progress=False, ess_threshold=1.0), 6)
    with pytest.raises(motes.MotesError, match="guided"):
        best_of(motes.sample(inner(guidance="reward"), 60, seed=5, progress=False, ess_threshold=0), 6)
    with pytest.raises(motes.MotesError, match="no reward"):
        best_of(motes.sample(_Walk(), 6, seed=1, progress=False), 6)
    with pytest.raises(motes.MotesError, match="no reward"):
        plain = motes.ReverseDiffusion(DENOISER, STEPS, shape=(1,), dtype=F64)
        best_of(motes.sample(plain, 6, seed=1, progress=False, ess_threshold=0), 6)


class _Walk(motes.FeynmanKac):
    def init(self, rng, n):
        return motes.Particles.start(torch.zeros(n, 1), torch.zeros(n, dtype=F64))

    def step(self, rng, particles):
        return particles.step(particles.x, torch.zeros(particles.n, dtype=F64))

    def done(self, particles):
        return particles.t == 1


@pytest.mark.parametrize("guidance", [0.0, 0.5])
def test_the_adaptive_share_targets_the_tilted_law(guidance):
    model = AdaptiveReward(
        DENOISER, STEPS, reward=reward, guidance=guidance, shape=(1,), dtype=F64, conditional_ess=0.99
    )
    z, m = ratios(model, 200, 60)
    assert abs(float(z.mean()) - 1) < 4.9 * float(z.std()) / 60**0.5 + 0.01  # and a bias of the order 1 / N
    assert abs(float(m.mean()) - float(LAW.mean)) < 4.9 * float(m.std()) / 60**0.5 + 0.01
    run = motes.sample(model, 200, seed=0, progress=False)
    share = run.trace["share"]
    assert share[0] == 0 and share[-1] == 1 and float(share[1:-1].min()) < 1


def test_a_steep_reward_comes_in_slowly_and_the_run_says_when_it_was_not_in():
    steep = AdaptiveReward(DENOISER, 4, reward=lambda x: 200 * reward(x), shape=(1,), dtype=F64, conditional_ess=0.95)
    with pytest.warns(UserWarning, match="the last step, where the reward counts in full, left"):
        run = motes.sample(steep, 100, seed=1, progress=False)
    assert run.trace["share"][-2] < 0.5
    mild = AdaptiveReward(DENOISER, 4, reward=lambda x: 0.01 * reward(x), shape=(1,), dtype=F64)
    assert bool((motes.sample(mild, 100, seed=1, progress=False).trace["share"][1:] == 1).all())
    r = motes.Rng(1).normal((50_000,))
    # exp(share * r), r normal: the fraction is exp(-share^2)
    assert affordable(torch.zeros(50_000, dtype=F64), torch.zeros(50_000, dtype=F64), r, 0.9) == pytest.approx(
        (-math.log(0.9)) ** 0.5, abs=0.015
    )
    assert affordable(torch.zeros(50_000, dtype=F64), -0.6 * r, r, 0.9999) == 0.61  # the share that undoes the past
    with pytest.raises(ValueError, match="conditional_ess"):
        AdaptiveReward(DENOISER, 4, reward=reward, shape=(1,), conditional_ess=1.0)


def test_an_adaptive_run_resumes(tmp_path):
    model, path = (
        AdaptiveReward(DENOISER, 8, reward=reward, guidance=0.5, shape=(1,), dtype=F64),
        tmp_path / "run.safetensors",
    )
    whole = motes.sample(model, 20, seed=3, progress=False)
    motes.sample(model, 20, seed=3, progress=False, checkpoint=path, callback=lambda s: s.particles.t == 4)
    resumed = motes.resume(path, model, progress=False)
    assert torch.equal(resumed.view, whole.view) and resumed.log_evidence == whole.log_evidence


def linear(steps=20):
    """A linear reward, whose optimal drift is a constant at each step: the basis holds it."""
    return motes.ReverseDiffusion(
        DENOISER,
        steps,
        reward=lambda x: 3 * x[:, 0],
        shape=(1,),
        dtype=F64,
        schedule="end",
        integrator="euler-maruyama",
    )


def test_iterated_twisting_learns_the_optimal_drift():
    """Var(log w) falls by iteration to that of the start, which no drift reaches; the twin without trust is worse."""
    model = linear()
    found = iterated_twisting(model, 3000, seed=1, iterations=12)
    assert found.spread[0] > 2 and found.spread[-1] < 0.15 * found.spread[0]
    assert found.power[0] < 1 and found.power[-1] == 1
    run = motes.sample(found.model, 500, seed=2, progress=False, ess_threshold=0)
    plain = [motes.sample(model, 20_000, seed=s, progress=False, ess_threshold=0).log_evidence for s in (3, 4)]
    assert abs(run.log_evidence - sum(plain) / 2) < 0.1 and run.ess > 450
    greedy = iterated_twisting(model, 400, seed=1, iterations=1, trust=100.0)
    after = motes.sample(greedy.model, 500, seed=2, progress=False, ess_threshold=0)
    assert float(after.log_weight.std()) > 2 * float(run.log_weight.std())


def test_paths_are_kept_as_states_and_predictions_only():
    """The affine basis of d numbers has d (d + 2): kept along whole paths it would be what fills the memory."""
    model = motes.ReverseDiffusion(
        gaussian(VP, torch.zeros(20), torch.eye(20)), 3, reward=lambda x: x[:, 0], shape=(20,), schedule="end"
    )
    keeper = _Keeper(model, affine)
    for state in motes.steps(model, 5, seed=1, ess_threshold=0):
        keeper.add(state.particles)
    held = [x for x in vars(keeper).values() if isinstance(x, list)]
    assert sum(t.numel() for seen in held for x in seen for t in x.values()) == 4 * 2 * 5 * 20
    weight = torch.full((5,), 0.2, dtype=F64)
    assert keeper.fit(weight, 1e-6, 0).shape == (3, 22)


def test_shares_that_a_first_run_chose_are_a_schedule():
    first = AdaptiveReward(DENOISER, STEPS, reward=reward, shape=(1,), dtype=F64, conditional_ess=0.99)
    share = motes.sample(first, 200, seed=0, progress=False).trace["share"]
    model = inner(schedule=dict(zip(first.table.times.tolist(), share, strict=True)).get)
    assert model.strength.tolist() == share.tolist()
    z, _ = ratios(model, 50, 60)
    assert abs(float(z.mean()) - 1) < 4.9 * float(z.std()) / 60**0.5


def test_iterated_twisting_returns_the_best_that_it_tried(monkeypatch):
    """A fit that goes wrong after the first is not what comes back."""
    model, fits = linear(), []
    right = iterated._Keeper.fit

    def spoiled(self, *args):
        fits.append(right(self, *args))
        return fits[0] if len(fits) == 1 else fits[0] + 5.0

    monkeypatch.setattr(iterated._Keeper, "fit", spoiled)
    found = iterated_twisting(model, 300, seed=1, iterations=3)
    assert torch.equal(found.model.guidance.coefficients, fits[0]) and len(found.spread) == 4


def test_learned_guidance_is_only_a_proposal():
    """Whatever its coefficients: E[Z_hat] = Z."""
    theta = torch.tensor([[0.3, -0.2]] * STEPS, dtype=F64)
    z, m = ratios(inner(guidance=Learned(radial, theta)), 20, 300)
    assert abs(float(z.mean()) - 1) < 4.9 * float(z.std()) / 300**0.5 < 0.2
    assert abs(float(m.mean()) - float(LAW.mean)) < 4.9 * float(m.std()) / 300**0.5


def test_the_trust_region():
    """Normal log-weights of variance v: the divergence at alpha is alpha^2 v / 2 (a large sample)."""
    log_weight = 2 * motes.Rng(1).normal((200_000,))
    alpha = trust_power(log_weight, 0.3)
    assert alpha == pytest.approx((0.6 / 4) ** 0.5, rel=0.02)
    assert trust_power(0.01 * log_weight, 0.3) == 1.0
    assert trust_power(torch.tensor([0.0, -math.inf], dtype=F64), math.log(2) + 1e-9) == 1.0


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="proposals"):
        ValueDecoding(inner(), proposals=0)
    with pytest.raises(ValueError, match="no reward"):
        iterated_twisting(motes.ReverseDiffusion(DENOISER, 4, shape=(1,), dtype=F64), 10, seed=1)
    never = AdaptiveReward(DENOISER, 4, reward=lambda x: torch.full((len(x),), -math.inf), shape=(1,), dtype=F64)
    with pytest.raises(motes.MotesError, match=r'schedule="end" \(ReverseDiffusion'):
        motes.sample(never, 5, seed=1, progress=False)
    with pytest.raises(ValueError, match="trust"):
        iterated_twisting(linear(), 10, seed=1, trust=0.0)
    with pytest.raises(motes.MotesError, match="basis function has shape"):
        iterated_twisting(linear(), 10, seed=1, basis=lambda context: [context.x[:, :0]])
