"""Images of a measurement that are copies of one start say so, and name a scale that is not the data's."""

import pytest
import torch

import motes
from motes.diffusion import VariancePreserving, gaussian
from motes.diffusion.collapse import data_scale
from motes.diffusion.inverse import Observation, posterior

pytestmark = pytest.mark.filterwarnings("ignore::motes.core.errors.MotesWarning")
VP = VariancePreserving()


def measured(d, spread, scale, noise):
    """Remarks of a run on all of the d numbers of an image, 50 steps and 32 particles."""
    prior = gaussian(VP, torch.zeros(d), spread**2 * torch.eye(d))
    y = spread * motes.Rng(0).at("y").normal((1, d))[0]
    model = posterior(prior, 50, Observation(lambda x: x, y, noise, scale=scale), shape=(d,))
    return " ".join(motes.sample(model, 32, seed=0, progress=False).remarks)


def test_copies_of_one_start_are_remarked_on():
    assert "nearly copies" in measured(64, 1.0, 1.0, 0.05)
    assert "nearly copies" not in measured(2, 1.0, 1.0, 0.5)


def test_a_scale_that_is_not_the_datas_is_named():
    said = measured(64, 3.0, 1.0, 0.05)
    assert "scale=1 was given" in said and "nearly copies" in said
    assert "was given" not in measured(64, 3.0, 3.0, 0.05)


@pytest.mark.parametrize("spread", [0.2, 1.0, 5.0])
def test_the_spread_of_the_data_is_found(spread):
    found = data_scale(gaussian(VP, torch.ones(40), spread**2 * torch.eye(40)), torch.zeros(1, 40))
    assert abs(found / spread - 1) < 0.15
