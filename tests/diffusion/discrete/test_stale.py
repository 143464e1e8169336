"""What half as many steps would change of a chain of tokens or counts, told by the paths of the run itself."""

import math
from dataclasses import replace

import pytest
import torch

import motes
from motes.diffusion.discrete import Blackout, Masked, Ordered, ReverseBlackout, ReverseDiscrete, joint

pytestmark = pytest.mark.filterwarnings("ignore::motes.errors.MotesWarning")
F64 = torch.float64
TABLE = torch.tensor([[[0.25, 0.03], [0.02, 0.2]], [[0.05, 0.1], [0.05, 0.3]]], dtype=F64)  # 3 places of 2 tokens
PROCESS = Masked(2)
EXACT = joint(PROCESS, TABLE)


def reward(x):
    return 1.5 * (x[:, 0] == x[:, 1]).to(F64) + (x[:, 1] == x[:, 2]).to(F64)


def truth():
    cells = torch.cartesian_prod(*[torch.arange(2)] * 3)
    return float((TABLE.flatten().log() + reward(cells)).logsumexp(0))


def made(steps, **knobs):
    return ReverseDiscrete(EXACT, steps, reward=reward, **knobs)


def run(model, n=1000, seed=1, **kwargs):
    return motes.sample(model, n, seed=seed, progress=False, **kwargs)


@pytest.mark.parametrize("guidance", [None, "reward"])
def test_the_mean_of_the_reweighted_paths_is_the_normaliser_of_half_as_many_steps(guidance):
    """4 and 2 steps: 40 runs each way, alpha 1e-6. The twin: the normaliser of the run itself is another."""

    def ratio(found):
        return (found.log_weight + found.particles.x["gap"]).exp().mean()

    four = [run(made(4, guidance=guidance), seed=s) for s in range(40)]
    two = torch.stack([run(made(2, guidance=guidance), seed=s).log_weight.exp().mean() for s in range(40)])
    other = torch.stack([ratio(found) for found in four])
    own = torch.stack([found.log_weight.exp().mean() for found in four])
    error = float((other.var() + two.var()).div(40).sqrt())
    assert abs(float(other.mean() - two.mean())) < 4.9 * error
    assert abs(float(own.mean() - two.mean())) > 10 * error


def test_few_steps_have_a_bar_that_covers_and_are_doubted():
    few = run(made(4))
    assert abs(few.log_evidence - truth()) > 4 * few.particles_error.value
    assert abs(few.log_evidence - truth()) < 3 * few.log_evidence_se
    assert few.doubts == {"evidence", "means"} and any("chain of 4 steps" in r for r in few.remarks)
    assert math.isnan(run(made(3)).log_evidence_se)  # too few to know
    many = run(made(300))
    assert abs(many.log_evidence - truth()) < 3 * many.log_evidence_se < 0.2 and "evidence" not in many.doubts


def test_one_place_a_step_is_exact_and_says_nothing():
    found = run(made(3, rule=Ordered()))
    assert not found.remarks and found.systematic is None
    assert abs(found.log_evidence - truth()) < 4 * found.log_evidence_se
    assert found.setup["quantity"] == "log normaliser"


def test_other_rules_are_named_for_their_chain():
    found = run(made(2, rule=Ordered()), 50)
    assert found.doubts == {"evidence", "means"} and "chain of 2 steps" in found.setup["quantity"]
    one = run(made(1), 50)
    assert one.setup["quantity"] == "log normaliser of the chain of 1 step" and one.doubts == {"evidence", "means"}


@pytest.mark.parametrize("stop", [1, 2])
def test_an_interrupted_run_resumes_to_the_same_bits(tmp_path, stop):
    path, whole = tmp_path / "run.safetensors", run(made(5), 40)
    run(made(5), 40, checkpoint=path, callback=lambda state: state.particles.t == stop)
    resumed = motes.resume(path, made(5), progress=False)
    assert torch.equal(resumed.particles.x["gap"], whole.particles.x["gap"])
    assert resumed.systematic == whole.systematic


def poisson(x, t):
    return x + 6.0 * (1 - torch.exp(-t))[:, None]


def two_rates(x, t):
    """Exact for an equal mixture of Poisson(3) and Poisson(12)."""
    rates = torch.tensor([3.0, 12.0], dtype=F64)
    alive = torch.exp(-t)[:, None]
    share = torch.softmax(x.to(F64) * rates.log() - rates * alive, 1)
    return x + (share * rates).sum(1, keepdim=True) * (1 - alive)


def counted(model, steps, **knobs):
    return ReverseBlackout(model, Blackout(), steps, reward=lambda x: -0.2 * x[:, 0].to(F64), shape=(1,), **knobs)


def test_counts_of_poisson_data_are_exact_at_any_number_of_steps():
    found = run(counted(poisson, 4))
    assert not found.remarks and found.systematic is not None and found.systematic.value < 1e-9
    assert abs(found.log_evidence - 6 * math.expm1(-0.2)) < 4 * found.log_evidence_se


def test_counts_of_a_mixture_say_by_how_much_they_err():
    right = math.log(0.5 * math.exp(3 * math.expm1(-0.2)) + 0.5 * math.exp(12 * math.expm1(-0.2)))
    few = run(counted(two_rates, 6), 2000)
    assert abs(few.log_evidence - right) > 4 * few.particles_error.value
    assert abs(few.log_evidence - right) < 3 * few.log_evidence_se and "evidence" in few.doubts
    whole = [run(counted(two_rates, 6), 2000, seed=s) for s in range(30)]
    other = torch.stack([(r.log_weight + r.particles.x["gap"]).exp().mean() for r in whole])
    times = Blackout().times(6)[[0, 2, 4, 6]]
    half = torch.stack([run(counted(two_rates, times), 2000, seed=s).log_weight.exp().mean() for s in range(30)])
    assert abs(float(other.mean() - half.mean())) < 4.9 * float((other.var() + half.var()).div(30).sqrt())
    named = run(counted(two_rates, 6, births="binomial"), 50)
    assert "evidence" in named.doubts and "chain of 6 steps" in named.setup["quantity"]
    assert run(replace(counted(two_rates, 6, births="binomial"), reward=None), 50).doubts == {"means"}
