"""Runs that have ended: they can be read whatever was sampled, and come back for the model that made them alone."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Normal

import motes
from golden.densities import spins
from motes.kernels import DiscreteLangevin, GibbsWithGradients
from motes.language import TableModel

pytestmark = pytest.mark.filterwarnings("ignore::motes.errors.MotesWarning")
TABLE = TableModel(["a", "b", "."], torch.tensor([0.4, 0.3, 0.3], dtype=torch.float64).log().expand(4, 3))


@pytest.mark.parametrize("kernel", [GibbsWithGradients(), DiscreteLangevin()])
@pytest.mark.parametrize("sampler", [motes.Tempering, motes.density.WasteFree])
def test_a_run_over_whole_numbers_is_read_again(sampler, kernel, tmp_path):
    """Their kernels' gradients, a number for each value, are no scores: a file that held them could not be read."""
    run = motes.sample(sampler(spins(), kernel=kernel), 32, seed=0, progress=False, checkpoint=tmp_path / "run")
    assert run.score is None and torch.equal(motes.load(tmp_path / "run").log_weight, run.log_weight)
    normal = motes.Density(lambda p: Normal(p["x"], 1.0).log_prob(torch.tensor(0.3)), {"x": Normal(0.0, 1.0)})
    assert motes.sample(motes.Tempering(normal), 32, seed=0, progress=False).score.shape == (32, 1)


def text(worth: float, **knobs) -> motes.Generation:
    def reward(texts: list[str]) -> torch.Tensor:
        return torch.tensor([worth * t.count("b") for t in texts])

    return motes.Generation(TABLE, "", reward=reward, **{"max_tokens": 4, **knobs})


def image(slope: float, steps: int = 20) -> motes.ReverseDiffusion:
    denoiser = motes.diffusion.gaussian(motes.diffusion.VariancePreserving(), torch.zeros(1), torch.eye(1))
    return motes.ReverseDiffusion(denoiser, steps, reward=lambda x: slope * x[:, 0], shape=(1,))


@pytest.mark.parametrize(
    ("model", "others"),
    [
        (text(0.5), [text(0.7), text(0.5, max_tokens=5), image(0.5)]),
        (image(0.5), [image(0.7), image(0.5, 30), text(0.5)]),
    ],
    ids=["texts", "images"],
)
def test_a_finished_run_does_not_come_back_for_another_model(model, others, tmp_path):
    path = tmp_path / "run"
    run = motes.sample(model, 16, seed=0, progress=False, checkpoint=path)
    for other in others:
        with pytest.raises(motes.MotesError, match=r"when the run was saved and is|not what it was when|was made by"):
            motes.resume(path, other, progress=False)
    assert torch.equal(motes.resume(path, model, progress=False).log_weight, run.log_weight)
