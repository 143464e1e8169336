"""Flows of other couplings than the independent one: found out, and tilted rightly."""

import math

import pytest
import torch

import motes
from motes.diffusion import (
    AdaptiveReward,
    Denoiser,
    Guided,
    Interpolant,
    ProbabilityFlow,
    RectifiedFlow,
    TiltedFlow,
    coupling_test,
    gaussian,
    mixture,
)
from motes.diffusion.composing.composition import Composition
from motes.diffusion.flows import tilted_flow
from motes.errors import AllWeightsZero, FileError

pytestmark = pytest.mark.filterwarnings("ignore::motes.errors.MotesWarning")
F64 = torch.float64
PROCESS = RectifiedFlow()


def transport(x, s):
    """The optimal transport from N(0, 1) at s = 0 to N(.3, .25) at s = 1."""
    s = s[:, None]
    return 0.3 - 0.5 * (x - 0.3 * s) / (1 - 0.5 * s)


PAIRED = Denoiser(transport, PROCESS, predicts="backward flow", condition=lambda t: 1 - t)
SHIFTED = Denoiser(lambda x, t: torch.full_like(x, -2.0), PROCESS, predicts="flow")  # N(2, 1) of N(0, 1)


def as_flow(exact):
    """The same model, asked for its flow alone."""
    return Denoiser(lambda x, t: exact.flow(x, t), exact.process, predicts="flow")


ONE = as_flow(gaussian(PROCESS, torch.tensor([0.3]), torch.tensor([[0.25]])))
SEPARATE = torch.tensor([[-3.0, 0.0], [3.0, 1.0]])
MODES = as_flow(mixture(PROCESS, torch.tensor([0.3, 0.7]), SEPARATE, 0.003 * torch.eye(2).repeat(2, 1, 1)))
WIDE = as_flow(gaussian(Interpolant("trigonometric"), torch.zeros(16), 25 * torch.eye(16)))
INDEPENDENT = {
    "normal": (ONE, (1,)),
    "modes": (MODES, (2,)),
    "wide": (WIDE, (16,)),
}


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("name", INDEPENDENT)
def test_independent_flows_pass(name, seed):
    model, shape = INDEPENDENT[name]
    assert coupling_test(model, shape, seed=seed).independent


@pytest.mark.parametrize("model", [PAIRED, SHIFTED], ids=["scaled", "shifted"])
def test_transports_are_found_out(model):
    """The slope of data on predictions is that of the two regressions on x_t: at snr 1 it is .6 to .8."""
    found = coupling_test(model, (1,), seed=1)
    assert not found.independent and "slope" in str(found)


def tilted(x):
    return x[:, 0]


@pytest.mark.parametrize(
    "made",
    [
        lambda model: motes.ReverseDiffusion(model, 20, reward=tilted, shape=(1,)),
        lambda model: AdaptiveReward(model, 20, reward=tilted, shape=(1,)),
        lambda model: Composition([model], [1.0], 20, reward=tilted, shape=(1,)),
        lambda model: Guided(model, 20, shape=(1,)),
        lambda model: ProbabilityFlow(model, 20, churn=0.5, shape=(1,)),
    ],
    ids=["reverse", "adaptive", "composition", "guided", "churn"],
)
def test_what_steps_with_noise_says_so_of_a_transport_and_gives_no_bar(made):
    run = motes.sample(made(PAIRED), 64, seed=0, progress=False)
    assert any("drawn apart" in said for said in run.remarks) and run.doubts == {"evidence", "means"}
    assert math.isnan(run.log_evidence_se) and run.mean().reason
    healthy = motes.sample(made(ONE), 64, seed=0, progress=False)
    assert not any("drawn apart" in said for said in healthy.remarks)


def test_the_flow_without_noise_is_right_for_any_coupling_and_says_nothing():
    run = motes.sample(ProbabilityFlow(PAIRED, 20, shape=(1,)), 4000, seed=0, progress=False)
    assert not run.remarks and abs(float(run.mean().value) - 0.3) < 4.9 * 0.5 / math.sqrt(4000)


def test_weighing_a_transport_as_if_it_were_independent_is_wrong():
    """Why there is a test of the coupling: .354 instead of .425."""
    model = motes.ReverseDiffusion(PAIRED, 100, reward=tilted, shape=(1,))
    found = [motes.sample(model, 1000, seed=seed, progress=False).log_evidence for seed in range(4)]
    assert abs(sum(found) / 4 - 0.425) > 0.04


def errors(reward, truth, seeds, n=256, model=PAIRED, **options):
    """(seeds,) errors in stated standard deviations, and relative errors of the normaliser."""
    rows = []
    for seed in range(seeds):
        run = motes.sample(TiltedFlow(model, 8, reward=reward, shape=(1,), **options), n, seed=seed, progress=False)
        rows.append(((run.log_evidence - truth) / run.log_evidence_se, math.exp(run.log_evidence - truth) - 1))
    return torch.tensor(rows, dtype=F64).T


REWARDS = {
    "mild": (tilted, 0.425),
    "strong": (lambda x: 4 * x[:, 0], 4 * 0.3 + 0.5 * 16 * 0.25),
    "event": (lambda x: torch.where(x[:, 0] > 1, 0.0, -math.inf), math.log(0.5 * math.erfc(1.4 / math.sqrt(2)))),
}


@pytest.mark.parametrize("name", REWARDS)
def test_a_tilted_flow_finds_the_normaliser_of_a_transport(name):
    reward, truth = REWARDS[name]
    scaled, relative = errors(reward, truth, 12)
    assert abs(float(relative.mean())) < 4.9 * float(relative.std()) / math.sqrt(12) + 0.01
    assert float(scaled.abs().max()) < 4.9, scaled


def test_moves_that_keep_no_law_are_caught(monkeypatch):
    """The twin: every proposal is accepted, so that copies go back to the untilted noise."""
    right = motes.sample(TiltedFlow(PAIRED, 8, reward=REWARDS["strong"][0], shape=(1,)), 500, seed=0, progress=False)
    assert abs(float(right.mean().value) - 1.3) < 0.2
    real = tilted_flow.chances
    monkeypatch.setattr(tilted_flow, "chances", lambda new, old, t: torch.ones_like(real(new, old, t)))
    wrong = motes.sample(TiltedFlow(PAIRED, 8, reward=REWARDS["strong"][0], shape=(1,)), 500, seed=0, progress=False)
    assert float(wrong.mean().value) < 1.05


def test_the_error_of_the_flows_steps_is_in_the_bar():
    """An independent flow in eight steps of Euler's rule, N = 8000: the bar of the particles alone does not cover."""
    model = TiltedFlow(ONE, 8, reward=lambda x: 2 * x[:, 0], shape=(1,), integrator="euler")
    run = motes.sample(model, 8000, seed=0, progress=False)
    error = abs(run.log_evidence - (0.6 + 0.5 * 4 * 0.25))
    assert error < 2 * run.log_evidence_se and error > 4 * run.particles_error.value
    assert run.systematic is not None and "evidence" in run.doubts


def test_a_reward_that_excludes_everything_says_what_to_do():
    model = TiltedFlow(PAIRED, 8, reward=lambda x: torch.full((len(x),), -math.inf), shape=(1,))
    with pytest.raises(AllWeightsZero, match="excludes every image"):
        motes.sample(model, 20, seed=0, progress=False)


def test_an_interrupted_run_goes_on_and_refuses_another_reward(tmp_path):
    model, path = TiltedFlow(PAIRED, 4, reward=REWARDS["strong"][0], shape=(1,)), tmp_path / "run.motes"
    half = motes.sample(model, 60, seed=3, progress=False, max_steps=2)
    half.save(path)
    run = motes.resume(path, model, progress=False)
    whole = motes.sample(model, 60, seed=3, progress=False)
    assert torch.equal(run.log_weight, whole.log_weight) and torch.equal(run.view, whole.view)
    with pytest.raises(FileError, match="the model or the reward"):
        TiltedFlow(PAIRED, 4, reward=tilted, shape=(1,)).restore(whole.particles)
    with pytest.raises(ValueError, match="even"):
        TiltedFlow(PAIRED, 5, reward=tilted, shape=(1,))
