"""The bars of a squared mixture in four dimensions: the larger of two estimates of what the steps err by."""

import math

import pytest
from benchmarks.trust.targets import diffusion_composed

from motes.diffusion.composing import step_doubling as halving

pytestmark = pytest.mark.filterwarnings("ignore::motes.errors.MotesWarning")
SQUARED = next(t for t in diffusion_composed.TARGETS if t.name == "diffusion-squared-4")


def test_the_normaliser_and_means_are_within_their_bars():
    """Ten runs of 512 with 40 steps, off by .3 nats; the twin, the estimate by paths alone, covers fewer."""
    truth, both, alone, means = SQUARED.truth(), 0, 0, 0
    for seed in range(10):
        job = SQUARED.model("transition, 40 steps", 512, seed)
        run = job.run(seed)
        error = abs(run.log_evidence - truth.log_evidence)
        both += error < 2 * run.log_evidence_se
        alone += error < 2 * math.hypot(run.particles_error.value, halving.estimate(run.particles)[0])
        for name, f in SQUARED.functions.items():
            estimate = run.mean(f)
            means += abs(float(estimate.value) - truth.means[name]) < 2.5 * float(estimate.se)
            assert float(estimate.se) > float(run.particles_mean(run.values(f)).se)
    assert both >= 9 and alone < both and means >= 18
