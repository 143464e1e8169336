"""Many chains: their law, their error bars, what is frozen, what is told, what is resumed."""

import math

import numpy as np
import pytest
import torch
from torch.distributions import Beta, Normal

import motes
from motes.core.estimate.batch_means import chain_mean
from motes.density import Chains
from motes.density.markov.warmup import complaints, mixed, stationary
from motes.errors import FileError, MotesError, MotesWarning, UnknownName
from motes.kernels import HMC, NUTS, ChEES, Gibbs, RandomWalk, Sweep, kernels
from motes.laws import Density
from motes.laws.discrete import Discrete
from motes.rng import Rng

pytestmark = pytest.mark.filterwarnings("ignore::motes.errors.MotesWarning")
ONE = torch.ones((), dtype=torch.float64)
Z = 4.9  # two-sided level 1e-6


def gaussian(d: int = 2) -> Density:
    """Prior N(0, I), likelihood N(2 | x, 0.09 I): posterior N(2 / 1.09, 0.09 / 1.09)."""
    prior = Normal(torch.zeros(d, dtype=torch.float64), 1.0)
    return Density(lambda x: (-0.5 * ((x - 2) / 0.3).square()).sum(-1), prior, vectorised=True)


def coin() -> Density:
    """9 of 40 heads, prior Beta(2, 3): posterior Beta(11, 34)."""
    return Density(lambda v: 9 * v["p"].log() + 31 * (-v["p"]).log1p(), {"p": Beta(2 * ONE, 3 * ONE)}, vectorised=True)


@pytest.mark.parametrize(("kernel", "n"), [(None, 64), (None, 4), ("random-walk", 64), ("hmc", 40)])
def test_moments_are_those_of_the_posterior(kernel, n):
    """Would catch a mean that is off by 4 % of the posterior's standard deviation (14 % with 4 chains)."""
    run = motes.sample(Chains(coin(), kernel=kernel, draws=400), n, seed=1, progress=False)
    assert run.view["p"].shape == (n, 400)
    a, b = 11.0, 34.0
    for f, truth in ((lambda v: v["p"], a / (a + b)), (lambda v: v["p"] ** 2, a * (a + 1) / ((a + b) * (a + b + 1)))):
        mean = run.mean(f)
        assert abs(float(mean) - truth) < Z * float(mean.se) and float(mean.se) < 0.003
    assert math.isnan(run.log_evidence) and "Tempering" in run.standard_error.reason


def test_the_wrong_law_is_found_out():
    """The same test for another number of heads."""
    run = motes.sample(Chains(coin(), draws=400), 64, seed=1, progress=False)
    mean = run.mean("p")
    assert abs(float(mean) - 12 / 45) > Z * float(mean.se)


def test_error_bars_cover():
    """24 runs of 40 chains: the 95 % interval covers at least 16 times (level 1e-6), and a quarter of it does not."""
    model = Chains(gaussian(1), kernel="random-walk", draws=60, warmup=30)
    runs = [motes.sample(model, 40, seed=s, progress=False) for s in range(24)]
    error = np.array([float(r.mean() if r.mean().value.ndim == 0 else r.mean().value[0]) - 2 / 1.09 for r in runs])
    se = np.array([float(r.mean().se[0]) for r in runs])
    assert (np.abs(error) < 1.96 * se).sum() >= 16
    assert (np.abs(error) < 0.5 * se).sum() < 16


def test_batch_means_see_correlation():
    """AR(1) with coefficient 0.9: the error is sqrt(19) times that of independent draws."""
    rho, chains, t = 0.9, 64, 2000
    noise = Rng(0).normal((chains, t))
    x = [noise[:, 0]]
    for k in range(1, t):
        x.append(rho * x[-1] + math.sqrt(1 - rho**2) * noise[:, k])
    x = torch.stack(x, 1)
    exact = math.sqrt((1 + rho) / (1 - rho) / (chains * t))
    for part in (x, x[:4]):
        se = chain_mean(part[..., None]).se
        assert float(se) == pytest.approx(exact * math.sqrt(chains / len(part)), rel=0.5)
    found = chain_mean(x[:2, :40, None])
    se, reason = found.se, found.reason
    assert math.isnan(float(se)) and "too few" in reason


def test_nothing_is_learnt_after_the_warm_up():
    run = motes.sample(Chains(gaussian(), draws=40), 64, seed=0, progress=False)
    step = run.trace["step_size"]
    drawing = ~np.isnan(run.trace["divergences"])
    assert drawing.sum() == 20 and len(set(step[drawing])) == 1
    assert len(set(step[~drawing & ~np.isnan(step)])) > 1


def test_chains_are_never_resampled_after_the_warm_start():
    run = motes.sample(Chains(gaussian(), draws=40), 64, seed=0, progress=False)
    drawing = ~np.isnan(run.trace["divergences"])
    assert not run.trace["resampled"][drawing][1:].any() and run.ess == pytest.approx(64)
    few = motes.sample(Chains(gaussian(), draws=40), 8, seed=0, progress=False)
    assert not few.trace["resampled"].any() and few.trace["roots"].min() == 8


@pytest.mark.parametrize("n", [8, 40])
def test_an_interrupted_run_is_resumed_bit_for_bit(tmp_path, n):
    model = Chains(gaussian(), draws=40)
    whole = motes.sample(model, n, seed=5, progress=False)
    for stop in (2, int(whole.trace["t"][-1]) - 7):
        path = tmp_path / f"run-{stop}"
        motes.sample(model, n, seed=5, progress=False, max_steps=stop, checkpoint=path)
        again = motes.resume(path, Chains(gaussian(), draws=40), progress=False)
        assert torch.equal(again.view, whole.view)
    with pytest.raises(FileError, match="draws"):
        motes.sample(model, n, seed=5, progress=False, max_steps=2, checkpoint=tmp_path / "other")
        motes.resume(tmp_path / "other", Chains(gaussian(), draws=41), progress=False)


def test_thinning_keeps_memory_bounded():
    kept = motes.sample(Chains(gaussian(), draws=60, thin=7), 8, seed=0, progress=False)
    assert kept.view.shape == (8, 8, 2)
    whole = motes.sample(Chains(gaussian(), draws=60), 8, seed=0, progress=False)
    assert torch.equal(kept.view, whole.view[:, 6::7])
    small = motes.sample(Chains(gaussian(), draws=60, memory=8 * 2 * 8 * 10), 8, seed=0, progress=False)
    assert small.view.shape[1] == 10
    with pytest.raises(MotesError, match="memory"):
        motes.sample(Chains(gaussian(), draws=60, memory=100), 8, seed=0, progress=False)


def test_scores_are_kept_on_request():
    run = motes.sample(Chains(gaussian(), draws=10, keep_score=True), 8, seed=0, progress=False)
    z = run.view.reshape(-1, 2)
    assert torch.allclose(run.score, -z - (z - 2) / 0.09)
    with pytest.raises(MotesError, match="keep_score"):
        Chains(gaussian(), kernel="random-walk", keep_score=True)


def test_separate_modes_are_told():
    prior = Normal(torch.zeros(1, dtype=torch.float64), 10.0)
    two = Density(lambda x: torch.logaddexp(-0.5 * ((x - 8) / 0.3) ** 2, -0.5 * ((x + 8) / 0.3) ** 2).sum(-1), prior)
    with pytest.warns(MotesWarning, match="not mixed"):
        run = motes.sample(Chains(two, draws=50), 64, seed=0, progress=False)
    assert "Tempering" in run.remarks[0] and any("R-hat" in r for r in run.diagnose().remarks)
    assert math.isnan(float(run.mean().se))  # how many chains are in a mode is what the start has left there


def test_modes_in_which_groups_of_chains_are_alike_are_told():
    """As many chains of each group in each mode: groups agree, and no chain ever changes its mode."""
    rng, ones = Rng(1), torch.full((16,), 0.8, dtype=torch.float64)
    none, noise = torch.zeros(16, dtype=torch.int64), rng.normal((16, 200, 2))
    modes = noise + torch.where(torch.arange(16) % 2 == 0, -8.0, 8.0)[:, None, None]
    assert mixed(modes) < 1.05  # the broken twin: groups alone see nothing
    (said,) = complaints(modes, ones, none, 200, ChEES())
    assert "each somewhere else" in said and said.doubts == ("means",)
    assert chain_mean(modes).se.isnan().all() and chain_mean(modes.abs()).se.isfinite().all()  # |x| has one mode
    slow = torch.empty_like(noise)  # correlated over 20 draws, and well
    slow[:, 0] = noise[:, 0]
    for t in range(1, 200):
        slow[:, t] = 0.9 * slow[:, t - 1] + math.sqrt(1 - 0.81) * noise[:, t]
    assert complaints(slow, ones, none, 200, ChEES()) == []


def test_stuck_and_diverging_chains_are_told():
    draws = Rng(0).normal((32, 50, 2))
    good, none = torch.full((32,), 0.8, dtype=torch.float64), torch.zeros(32, dtype=torch.int64)

    def told(draws, acceptance, divergences, kernel=None) -> list[str]:
        return complaints(draws, acceptance, divergences, 50, kernel or ChEES())

    assert told(draws, good, none) == []
    stuck = draws.clone()
    stuck[3] = stuck[3, :1]
    assert "chain [3] of 32 never moved" in told(stuck, good, none)[0]
    diverged = none.clone()
    diverged[[5, 9]] = 2
    said = told(draws, good, diverged)[0]
    assert "4 of 1600 trajectories (0.25 %) ran off" in said and "motes.kernels.ChEES(acceptance=0.99)" in said
    assert "NUTS(acceptance=0.995)" in told(draws, good, diverged, NUTS(acceptance=0.99))[0]
    assert "which HMC cannot" in told(draws, good, diverged, HMC())[0]
    assert "accepted fewer" in told(draws, torch.where(torch.arange(32) == 7, 0.01, good), none)[0]


def test_unknown_kernels_are_told_those_that_suit_the_density():
    with pytest.raises(UnknownName, match="perhaps you meant 'nuts'") as caught:
        Chains(gaussian(), kernel="nutz")
    assert "flip" not in str(caught.value) and "slice" in str(caught.value)
    whole = Discrete(lambda x: x.double().sum(1), 3, levels=2)
    with pytest.raises(UnknownName, match="flip") as caught:
        Chains(whole, kernel="nutz")
    assert "slice" not in str(caught.value)
    with pytest.raises(MotesError, match=r"kernels for it are: .*flip"):
        Chains(whole, kernel="random-walk")
    assert Chains(gaussian(), kernel="NUTS").kernel == NUTS()


def test_the_warm_up_of_few_chains_is_short():
    """Four chains, nearly collinear coordinates: 1900 evaluations; from the prior's step they were 4900."""
    close = torch.full((10, 10), 0.95, dtype=torch.float64) + 0.05 * torch.eye(10, dtype=torch.float64)
    precision = 100 * torch.linalg.inv(close)
    prior = Normal(torch.zeros(10, dtype=torch.float64), 1.0)
    density = Density(lambda x: -0.5 * ((x @ precision) * x).sum(1), prior, vectorised=True)
    spent = []
    for seed in range(3):
        trace = motes.sample(Chains(density, draws=40), 4, seed=seed, progress=False).trace
        spent.append(sum(e for e, r in zip(trace["evaluations"], trace["r_hat"], strict=True) if r == r))
    assert sorted(spent)[1] < 3000, spent


def test_r_hat_of_few_and_many_chains():
    same = Rng(0).normal((64, 100, 2))
    assert stationary(same, same[..., 0]) < 1.02 and mixed(same[:, :4]) < 1.02 and mixed(same[:4]) < 1.05
    apart = same + 3 * (torch.arange(64) < 8)[:, None, None]
    assert stationary(apart, apart[..., 0]) > 1.2 and mixed(apart[:, :4]) > 1.2
    # two chains a half apart, by hand: half means +-1, within variance 1 => sqrt((t - 1) / t + 4 / 3)
    x = torch.tensor([1.0, -1.0] * 50, dtype=torch.float64).expand(2, 100)[..., None] * math.sqrt(49 / 50)
    x = x + torch.tensor([1.0, -1.0], dtype=torch.float64)[:, None, None]
    assert stationary(x, x[..., 0]) == pytest.approx(math.sqrt(1 + (4 / 3) / (49 / 50)), rel=1e-9)


def test_diagnosis_is_that_of_arviz():
    run = motes.sample(Chains(coin(), draws=100), 16, seed=1, progress=False)
    found = run.diagnose()
    from arviz_stats.base.array import array_stats

    x = run.view["p"].numpy()
    assert found.rows[0].ess_bulk == array_stats.ess(x, chain_axis=0, draw_axis=1, method="bulk")
    assert found.rows[0].r_hat == array_stats.rhat(x, chain_axis=0, draw_axis=1, method="rank")
    assert "ESS bulk" in str(found) and (found.chains, found.draws) == (16, 100)
    with pytest.raises(MotesError, match="no chains"):
        motes.sample(motes.Tempering(coin()), 16, seed=0, progress=False).diagnose()


def test_bad_knobs_and_hopeless_starts_are_errors():
    with pytest.raises(ValueError, match="draws"):
        Chains(coin(), draws=0)
    prior = Normal(torch.zeros(1, dtype=torch.float64), 1.0)
    nowhere = Density(lambda x: torch.where(x > 50, 0.0, -math.inf).sum(-1), prior, vectorised=True)
    with pytest.raises(MotesError, match="starting points"):
        motes.sample(Chains(nowhere, kernel="random-walk"), 16, seed=0, progress=False)
    half = Density(lambda x: torch.where(x > 0, 0.0, -math.inf).sum(-1), prior, vectorised=True)
    with pytest.raises(MotesError, match="likelihood is zero where particles"):
        motes.sample(Chains(half, kernel="random-walk", cool=False), 16, seed=0, progress=False)


def test_files_and_draws_of_chains(tmp_path):
    run = motes.sample(Chains(coin(), kernel=RandomWalk(), draws=20), 8, seed=1, progress=False)
    again = motes.load(run.save(tmp_path / "run"))
    assert torch.equal(again.view["p"], run.view["p"]) and not again.shown.weighted
    assert run.draws(30)["p"].shape == (30,) and run.flat["p"].shape == (160,)
    assert "8 chains of 20 draws" in repr(again)
    assert set(run.draws(160)["p"].tolist()) == set(run.flat["p"].tolist())


@pytest.mark.parametrize("name", [name for name, k in kernels.items() if not k.discrete])
def test_every_kernel_runs_as_chains(name):
    run = motes.sample(Chains(gaussian(), kernel=name, draws=30, warmup=40), 24, seed=0, progress=False)
    assert run.view.shape == (24, 30, 2) and float((run.mean().value - 2 / 1.09).abs().max()) < 0.25
    assert any("invariant" in r for r in run.remarks) != kernels[name].exact


@pytest.mark.parametrize("name", [name for name, k in kernels.items() if not k.exact])
def test_biased_kernels_are_refused_where_weights_would_be_wrong(name):
    with pytest.raises(MotesError, match="invariant"):
        motes.Tempering(gaussian(), kernel=name)


@pytest.mark.parametrize("name", [name for name, k in kernels.items() if k.discrete])
def test_chains_on_whole_numbers(name):
    """Four spins in a field of 1/2 each: P(up) = 1 / (1 + exp(-1/2))."""
    density = Discrete(lambda x: 0.5 * x.sum(-1), 4)
    run = motes.sample(Chains(density, kernel=name, draws=200), 40, seed=0, progress=False)
    mean = run.mean(lambda v: v.double())
    assert float(((mean.value - 1 / (1 + math.exp(-0.5))) / mean.se).abs().max()) < Z


def test_counts_choose_to_compile(monkeypatch):
    """With a threshold of no work at all the draws are compiled, unless the density says no."""
    monkeypatch.setattr("motes.laws.compiling.WORTH", 0.0)
    monkeypatch.setattr("motes.laws.compiling.LEAST", 0.0)
    monkeypatch.setattr(torch, "compile", lambda f, **_: f)
    run = motes.sample(Chains(gaussian(), draws=40), 40, seed=0, progress=False)
    assert run.particles.shared["compiled"] is True
    fixed = motes.sample(
        Chains(Density(lambda x: -0.5 * x.square().sum(-1), Normal(torch.zeros(2), 1.0), compile=False), draws=10),
        8,
        seed=0,
        progress=False,
    )
    assert fixed.particles.shared["compiled"] is False


def test_draws_that_are_exact_for_one_law_are_refused_where_laws_change():
    draw = Gibbs((((0,), lambda rng, x: 2 / 1.09 + 0.3 / 1.09**0.5 * rng.at("z").normal((len(x), 1))), ((1,), "slice")))
    with pytest.raises(MotesError, match="exact for one law"):
        motes.Tempering(gaussian(), kernel=draw)
    run = motes.sample(Chains(gaussian(), kernel=draw, draws=100), 40, seed=0, progress=False)
    assert float(((run.mean().value - 2 / 1.09) / run.mean().se).abs().max()) < Z


def test_chains_that_stay_outside_of_the_support_are_an_error():
    """One of eight starts where the likelihood is zero, on an island around 40 that no step leaves."""
    prior = Normal(torch.zeros(1, dtype=torch.float64), 1.0)
    density = Density(lambda x: torch.where(x > -0.5, 0.0, -math.inf).sum(-1), prior, vectorised=True)

    def stuck(self, rng, target, state, parameters):
        return Sweep(state, torch.zeros(len(state["position"]), dtype=torch.float64), 1)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(MotesError, match="density is zero"):
        patch.setattr(RandomWalk, "sweep", stuck)
        motes.sample(Chains(density, kernel="random-walk", draws=10, warmup=5), 20, seed=0, progress=False)


def test_few_chains_in_modes_of_different_height_do_not_wait_for_each_other():
    """Without weights 10^6 nats between two modes would make for temperatures that never rise."""
    prior = Normal(torch.zeros(1, dtype=torch.float64), 1.0)
    density = Density(lambda x: torch.where(x > 0, 0.0, -1e6).sum(-1), prior, vectorised=True)
    run = motes.sample(Chains(density, kernel="random-walk", draws=20, warmup=20), 8, seed=0, progress=False)
    assert run.particles.t < 100


def test_batches_shorter_than_the_memory_of_chains_give_no_error_bar():
    walk = Rng(0).normal((4, 400)).cumsum(1)[..., None]
    found = chain_mean(walk)
    se, reason = found.se, found.reason
    assert math.isnan(float(se)) and "memory longer than a batch" in reason
    modes = Rng(0).normal((20, 50, 1)) + 10 * (torch.arange(20) % 2)[:, None, None]
    found = chain_mean(modes)
    se, reason = found.se, found.reason
    assert math.isnan(float(se)) and "somewhere else" in reason
    assert "R-hat between them is inf" in chain_mean((modes > 5).double()).reason
    assert float(chain_mean(modes[:, :49]).se) == pytest.approx(5 / math.sqrt(20), rel=0.2)  # short: a warm-up's matter


def test_thinning_that_keeps_nothing_is_an_error():
    with pytest.raises(ValueError, match="keeps none"):
        motes.sample(Chains(gaussian(), draws=5, thin=9), 8, seed=0, progress=False)


@pytest.mark.parametrize(("n", "draws"), [(4, 3), (1, 50)])
def test_too_few_chains_or_draws_are_said_and_printed(n, draws):
    said = str(motes.sample(Chains(coin(), draws=draws, warmup=20), n, seed=0, progress=False).diagnose())
    assert "too few" in said and "nan" not in said


def test_a_mean_of_named_parameters_is_that_of_each():
    run = motes.sample(Chains(coin(), draws=20, warmup=20), 4, seed=0, progress=False)
    found = run.mean()
    assert found.keys() == run.view.keys() and all(found[k].value == run.mean(k).value for k in found)
    with pytest.raises(MotesError, match="which parameter"):
        run.values()


def test_an_event_that_few_chains_have_met_rests_on_few():
    """Its bar counts as many chains as make its spread, and not those that are all alike."""
    rng = Rng(0)
    alike = rng.normal((16, 100), dtype=torch.float64)
    assert 8 < chain_mean(alike).freedom <= 15 and chain_mean(alike[..., None].repeat(1, 1, 2)).freedom == 15
    rare = (rng.at("rare").uniform((16, 40), dtype=torch.float64) < 0.3).double()
    rare[1:] = 0.0
    found = chain_mean(rare)
    assert 1 <= found.freedom < 3
    assert float(found.value + 2.13 * found.se) < 0.08 < float(found.interval()[1])  # the twin: Student's t of 15
    run = motes.sample(motes.Chains(gaussian(), draws=100), 16, seed=0, progress=False)
    assert 3 < run.mean(lambda x: x[:, 0]).freedom <= 15
