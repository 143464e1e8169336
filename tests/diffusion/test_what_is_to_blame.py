"""Training mode, values without gradients, guidance that runs away, zeros to negative powers: each is named."""

import math

import pytest
import torch
from torch import nn

import motes
from motes.diffusion import (
    AdaptiveReward,
    Denoiser,
    Guided,
    ProbabilityFlow,
    TiltedFlow,
    VariancePreserving,
    calibrated,
    diagnostics,
    gaussian,
    log_likelihood,
    schedule,
)
from motes.diffusion.composing.composition import Composition
from motes.diffusion.corruptions import CorruptDenoise
from motes.diffusion.discrete import Masked, ReverseDiscrete, TokenComposition, TokenModel, Uniform, joint
from motes.diffusion.flows.coupling import coupling_test
from motes.diffusion.guidance import Modulation, TrainingFree
from motes.diffusion.inverse import Observation, posterior
from motes.errors import MotesError, NanLogPotential

pytestmark = pytest.mark.filterwarnings("ignore::motes.errors.MotesWarning")
VP = VariancePreserving()
EXACT = gaussian(VP, torch.zeros(2), torch.eye(2))


def network(out=2):
    return nn.Sequential(nn.Linear(2, 4), nn.Dropout(0.5), nn.Linear(4, out))


def first(x):
    return x[:, 0]


SAMPLERS = {
    "reverse": lambda d, r: motes.ReverseDiffusion(d, 4, reward=r, shape=(2,)),
    "guided": lambda d, r: Guided(d, 4, reward=r, shape=(2,)),
    "adaptive": lambda d, r: AdaptiveReward(d, 4, reward=r, shape=(2,)),
    "composition": lambda d, r: Composition([d], [1.0], 4, reward=r, shape=(2,)),
    "tilted": lambda d, r: TiltedFlow(d, 4, reward=r, shape=(2,)),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_networks_in_training_mode_are_refused_by_name(name):
    made, net, score = SAMPLERS[name], network(), network(1)
    denoiser = Denoiser(lambda x, t: net(x), VP, predicts="noise")
    with pytest.raises(MotesError, match=r"the denoiser is a network in training mode.*\.eval\(\)"):
        made(denoiser, first)
    with pytest.raises(MotesError, match="the reward is a network in training mode"):
        made(EXACT, lambda x: score(x)[:, 0])
    net.eval(), score.eval()
    made(denoiser, lambda x: score(x)[:, 0])


def test_what_has_no_reward_refuses_training_mode_too():
    net = network()
    denoiser = Denoiser(lambda x, t: net(x), VP, predicts="noise")
    with pytest.raises(MotesError, match="training mode"):
        ProbabilityFlow(denoiser, 4, shape=(2,))
    with pytest.raises(MotesError, match="training mode"):
        log_likelihood(denoiser, torch.zeros(1, 2), 4)

    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.drop = nn.Dropout(0.1)

        def forward(self, tokens, t):
            return self.drop(torch.zeros(*tokens.shape, 2))

    model = TokenModel(Tokens(), Masked(2), 3)
    for made in (lambda: TokenComposition([model], [2.0]), lambda: ReverseDiscrete(model, 4)):
        with pytest.raises(MotesError, match="training mode"):
            made()


SAMPLES = 0.1 * torch.arange(16.0).reshape(8, 2)
RNG = motes.Rng(0)
LOOKS = {
    "calibrated": lambda d: calibrated(d, SAMPLES, VP.times(2), seed=RNG),
    "coupling": lambda d: coupling_test(d, (2,), n=8, steps=2),
    "align": lambda d: schedule.align_your_steps(d, SAMPLES, 3, seed=RNG),
    "diagnose": lambda d: diagnostics.diagnose(d, SAMPLES, seed=RNG, levels=2),
    "calibration": lambda d: diagnostics.calibration(d, SAMPLES, VP.times(2), seed=RNG),
    "conservative": lambda d: diagnostics.non_conservativeness(d, SAMPLES, 0.5, seed=RNG),
    "first": lambda d: diagnostics.kl_divergence(d, EXACT, SAMPLES, seed=RNG, steps=2),
    "second": lambda d: diagnostics.kl_divergence(EXACT, d, SAMPLES, seed=RNG, steps=2),
    "conditional": lambda d: diagnostics.mutual_information(
        EXACT, lambda x, t, y: d.data(x, t), SAMPLES, SAMPLES, seed=RNG, steps=2
    ),
    "rate": lambda d: diagnostics.entropy_rate(d, SAMPLES, VP.times(2), seed=RNG),
    "bound": lambda d: diagnostics.entropy_bound(d, SAMPLES, seed=RNG, steps=2),
    "ranks": lambda d: diagnostics.posterior_ranks(d, SAMPLES, 0.5, first, seed=RNG, draws=3, steps=2),
    "stepping": lambda d: diagnostics.step_errors(d, SAMPLES, 2, seed=RNG),
    "walkback": lambda d: CorruptDenoise(d, SAMPLES, 0.5, steps=2),
    "initial": lambda d: Composition(
        [EXACT], [1.0], 4, shape=(2,), weights="transition", initial=lambda x: d.data(x, 0.5)[:, 0]
    ),
    "prior": lambda d: posterior(d, 4, Observation(lambda x: x, torch.zeros(2), 0.3), shape=(2,)),
    "operator": lambda d: posterior(EXACT, 4, Observation(lambda x: d.data(x, 0.5), torch.zeros(2), 0.3), shape=(2,)),
}


@pytest.mark.parametrize("name", LOOKS)
def test_what_looks_at_a_model_refuses_training_mode_too(name):
    """The twin: in evaluation mode none of them objects."""
    net = network()
    denoiser = Denoiser(lambda x, t: net(x), VP, predicts="noise")
    with pytest.raises(MotesError, match=r"is a network in training mode.*\.eval\(\)"):
        LOOKS[name](denoiser)
    net.eval()
    LOOKS[name](denoiser)


@torch.no_grad()
def blind(x):
    return x[:, 0]


@pytest.mark.parametrize("guidance", ["reward", TrainingFree(rho=1.0), TrainingFree(mu=1.0), Modulation(blind)])
def test_rewards_without_gradients_say_the_same_everywhere(guidance):
    model = motes.ReverseDiffusion(EXACT, 4, reward=blind, guidance=guidance, shape=(2,))
    with pytest.raises(MotesError, match="has no gradient with respect to the image: compute it with torch operations"):
        motes.sample(model, 5, seed=0, progress=False)


def steep(x):
    return -0.5 * (x - 1).square().sum(1) / 0.01**2


@pytest.mark.parametrize("name", ["reverse", "guided", "composition"])
def test_guidance_that_runs_away_is_named_and_the_reward_is_not(name):
    guided = {
        "reverse": lambda g, r: motes.ReverseDiffusion(EXACT, 60, reward=r, guidance=g, shape=(2,)),
        "guided": lambda g, r: Guided(EXACT, 60, guidance=g, reward=r, shape=(2,)),
        "composition": lambda g, r: Composition([EXACT], [1.0], 60, reward=r, guidance=g, shape=(2,)),
    }[name]
    with pytest.raises(NanLogPotential, match="look at the guidance: it is too strong"):
        motes.sample(guided(50.0, steep), 20, seed=0, progress=False)

    def broken(x):
        return torch.where(x[:, 0] > 0, math.nan, 0.0) + 0 * x[:, 0]

    with pytest.raises(NanLogPotential, match="look at the reward"):
        motes.sample(guided(0.5, broken), 20, seed=0, progress=False)


THREE = torch.tensor([[0.3, 0.2, 0.0], [0.1, 0.4, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
OTHER = torch.tensor([[0.2, 0.1, 0.0], [0.3, 0.4, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64)


@pytest.mark.parametrize("process", [Masked(3), Uniform(3)], ids=["exact", "rates"])
def test_a_token_that_both_models_exclude_counts_nothing(process):
    """q_1^-1 q_2^2 on the four pairs that both allow."""
    inside = OTHER[:2, :2] ** 2 / THREE[:2, :2]
    models = [joint(process, THREE), joint(process, OTHER)]
    run = motes.sample(TokenComposition(models, [-1.0, 2.0], steps=100), 2000, seed=0, progress=False)
    assert abs(run.log_evidence - math.log(float(inside.sum()))) < 0.1
    assert int(run.view.max()) < 2


def test_a_token_that_the_negative_model_alone_excludes_is_refused():
    models = [joint(Masked(3), THREE), joint(Masked(3), OTHER + 0.05)]
    with pytest.raises(NanLogPotential, match="negative exponent excludes a token"):
        motes.sample(TokenComposition(models, [-1.0, 2.0]), 20, seed=0, progress=False)
