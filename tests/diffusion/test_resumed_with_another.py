"""A run that is resumed with another measurement, event, cost or table of steps than it began with is refused."""

from dataclasses import replace

import pytest
import torch

import motes
from motes.diffusion import Guided, VariancePreserving, gaussian, guidance, inverse
from motes.diffusion.processes.transition import transitions
from motes.diffusion.sampling.adaptive import AdaptiveReward
from motes.diffusion.sampling.few_steps import learned_steps

F64 = torch.float64
VP = VariancePreserving()
DENOISER = gaussian(VP, torch.zeros(2, dtype=F64), torch.eye(2, dtype=F64))
RNG = motes.Rng(8)
pytestmark = pytest.mark.filterwarnings("ignore:the guidance is not corrected")


def observed(y=0.5, row=1.0, plain=None):
    operator = plain or inverse.Matrix(torch.tensor([[row, 0.3]], dtype=F64), (2,))
    return inverse.Observation(operator, torch.tensor([y], dtype=F64), 0.5)


def weighed(twist, reward=None, **kwargs):
    kwargs = {"shape": (2,), "dtype": F64, "twist": twist, **kwargs}
    return motes.ReverseDiffusion(DENOISER, kwargs.pop("steps", 6), reward=reward or twist.reward, **kwargs)


def guided(rule, steps=6, **kwargs):
    return Guided(DENOISER, steps, guidance=rule, shape=(2,), dtype=F64, **kwargs)


def active(row=1.0):
    scale = torch.tensor([row, 1.0], dtype=F64)
    return inverse.ActiveDiffusion(
        DENOISER,
        6,
        measure=lambda x: (scale * x)[:, :, None],
        ask=lambda i: torch.ones(1),
        std=0.5,
        budget=1,
        shape=(2,),
        dtype=F64,
    )


def event(threshold):
    return guidance.Event(lambda x: x[:, 0] - threshold)


def cost(at):
    return guidance.Modulation(lambda x: (x - at).square().sum(1))


def zero(x):
    return torch.zeros(len(x), dtype=F64)


PAIRS = {
    "measurement": (guided("reward", twist=observed()), guided("reward", twist=observed(y=0.6))),
    "matrix": (guided("reward", twist=observed()), guided("reward", twist=observed(row=1.1))),
    "function": (
        guided("reward", twist=observed(plain=lambda x: x[:, :1].tanh())),
        guided("reward", twist=observed(plain=lambda x: x[:, :1].sinh())),
    ),
    "weighed": (weighed(observed()), weighed(observed(y=0.6))),
    "event": (weighed(event(0.1)), weighed(event(0.2))),
    "reference": (
        weighed(guidance.ReferenceControl(torch.zeros(2, dtype=F64)), zero),
        weighed(guidance.ReferenceControl(torch.ones(2, dtype=F64)), zero),
    ),
    "cost": (guided(cost(0.0)), guided(cost(0.5))),
    "drift": (guided(lambda x, t: x), guided(lambda x, t: -x)),
    "reward of a rule": (
        guided(guidance.manifold_preserving(0.1, reward=lambda x: x[:, 0])),
        guided(guidance.manifold_preserving(0.1, reward=lambda x: x[:, 1])),
    ),
    "reward": (
        guided(guidance.manifold_preserving(0.1), reward=lambda x: x[:, 0]),
        guided(guidance.manifold_preserving(0.1), reward=lambda x: x[:, 1]),
    ),
    "measure": (active(), active(1.1)),
}
TABLE = transitions(VP, 6)
for name, make in (
    ("table", lambda table: guided(None, table)),
    ("weighed table", lambda table: weighed(observed(), steps=table)),
    ("adaptive table", lambda table: AdaptiveReward(DENOISER, table, reward=zero, shape=(2,), dtype=F64)),
):
    PAIRS[name] = (make(TABLE), make(replace(TABLE, pull=1.05 * TABLE.pull)))


@pytest.mark.parametrize("name", PAIRS)
def test_another_model_is_refused_and_the_same_goes_on(name, tmp_path):
    model, other = PAIRS[name]
    path = tmp_path / "run.safetensors"
    whole = motes.sample(model, 5, seed=2, progress=False)
    motes.sample(model, 5, seed=2, progress=False, checkpoint=path, callback=lambda s: s.particles.t == 3)
    with pytest.raises(motes.MotesError, match=r"not what it was when|they differ in"):
        motes.resume(path, other, progress=False)
    assert torch.equal(motes.resume(path, model, progress=False).view, whole.view)


def test_operators_are_told_apart_by_their_numbers():
    keep = torch.tensor([[True, False], [True, True]])
    for make, a, b in (
        (inverse.Mask, keep, ~keep),
        (inverse.Fourier, keep, keep.T),
        (inverse.Blur, torch.ones(1, 3), torch.ones(3, 1)),
        (inverse.Radon, torch.zeros(2), torch.ones(2)),
    ):
        assert make(a).settings() == make(a.clone()).settings() != make(b).settings()
    few = learned_steps(DENOISER, 2, shape=(2,), n=4, fine=2, dtype=F64, seed=RNG)
    assert few.digest == replace(few, keep=few.keep.clone()).digest != replace(few, keep=2 * few.keep).digest
