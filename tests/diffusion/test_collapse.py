"""Images of a measurement that are copies of one start say so, and name a scale that is not the data's."""

import pytest
import torch

import motes
from motes.diffusion import VariancePreserving, gaussian
from motes.diffusion.inverse import Observation, posterior
from motes.diffusion.processes.edm import EDM
from motes.diffusion.processes.interpolant import RectifiedFlow

pytestmark = pytest.mark.filterwarnings("ignore::motes.errors.MotesWarning")
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


def test_a_scale_that_is_too_small_is_named():
    """The twin: with the right scale, or one that is too large, nothing is said of it."""
    said = measured(64, 3.0, 1.0, 0.05)
    assert "scale=1 was given" in said and "nearly copies" in said
    for scale in (3.0, 9.0):
        assert "was given" not in measured(64, 3.0, scale, 0.05)


def test_a_scale_that_shifts_the_evidence_without_a_collapse_is_named():
    """Half of 16 numbers of deviation 3 with noise 1: log p(y) is off by more than 1 nat at a stated .3."""
    prior, y = gaussian(VP, torch.zeros(16), 9 * torch.eye(16)), 3 * motes.Rng(0).at("y").normal((1, 16))[0, :8]
    exact = float(torch.distributions.Normal(0.0, 10**0.5).log_prob(y).sum())

    def run(scale):
        model = posterior(prior, 50, Observation(lambda x: x[:, :8], y, 1.0, scale=scale), shape=(16,))
        return motes.sample(model, 256, seed=0, progress=False)

    wrong, right = run(1.0), run(3.0)
    assert abs(wrong.log_evidence - exact) > 1 and any("scale=1 was given" in r for r in wrong.remarks)
    assert wrong.doubts == {"evidence", "means"}
    assert abs(right.log_evidence - exact) < 4 * right.log_evidence_se and not right.remarks


@pytest.mark.parametrize("process", [VP, EDM(), RectifiedFlow()])
@pytest.mark.parametrize("spread", [0.2, 1.0, 5.0])
def test_the_spread_of_the_data_is_found_under_guidance(process, spread):
    prior = gaussian(process, torch.ones(8), spread**2 * torch.eye(8))
    observation = Observation(lambda x: x[:, :4], torch.ones(4), 0.5 * spread, scale=spread)
    found = motes.sample(posterior(prior, 20, observation, shape=(8,)), 64, seed=0, progress=False)
    assert abs(float(found.particles.shared["data_scale"]) / spread - 1) < 0.1
