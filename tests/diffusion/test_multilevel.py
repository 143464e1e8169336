"""What finite steps do to a normaliser and to means: the error bar carries it, and a run says where it is large."""

import math
import warnings
from dataclasses import replace

import pytest
import torch

import motes
from diffusion.linear import F64, Normal, chain
from motes.core.estimate.systematic import Systematic
from motes.diffusion import VariancePreserving, gaussian
from motes.diffusion.guidance import Event
from motes.diffusion.inverse import Matrix, Observation, posterior
from motes.diffusion.processes.edm import EDM
from motes.diffusion.processes.interpolant import RectifiedFlow
from motes.diffusion.sampling import multilevel

pytestmark = pytest.mark.filterwarnings("ignore::motes.errors.MotesWarning")
VP = VariancePreserving()
ONE = Normal(torch.zeros(1, dtype=F64), torch.eye(1, dtype=F64))


def standard(process, d=1):
    return gaussian(process, torch.zeros(d), torch.eye(d))


def beyond(level, steps, process=VP, **knobs):
    """P(x > level) of N(0, 1)."""
    event = Event(lambda x: x[:, 0] - level)
    return motes.ReverseDiffusion(
        standard(process), steps, reward=event.reward, guidance="reward", shape=(1,), twist=event, **knobs
    )


def run(model, n=500, seed=1, **kwargs):
    return motes.sample(model, n, seed=seed, progress=False, **kwargs)


def log_tail(level):
    return float(torch.special.log_ndtr(torch.tensor(-level, dtype=F64)))


def test_the_probability_beyond_three_is_within_its_error():
    """-6.608, which 50 ancestral steps give as -7.4: the default errs by less, and both say by how much."""
    found = run(beyond(3.0, 50))
    assert abs(found.log_evidence - log_tail(3)) < 2 * found.log_evidence_se and found.log_evidence_se < 0.3
    assert "evidence" not in found.doubts and found.log_evidence_se > found.particles_error.value
    first = run(beyond(3.0, 50, integrator="ancestral"))
    assert abs(first.log_evidence - log_tail(3)) > 10 * first.particles_error.value
    assert abs(first.log_evidence - log_tail(3)) < 2 * first.log_evidence_se
    assert "evidence" in first.doubts and any("chain of 50 steps" in r for r in first.remarks)


def test_the_twin_without_coarse_paths_is_named_for_its_chain():
    found = run(beyond(3.0, 50, integrator="ancestral", coarse=0))
    assert abs(found.log_evidence - log_tail(3)) > 10 * found.log_evidence_se and not found.remarks
    assert found.setup["quantity"] == "log normaliser of the chain of 50 steps"
    assert run(beyond(1.0, 6)).setup["quantity"] == "log normaliser"


def test_coarse_paths_change_nothing_of_the_particles():
    with_them, without = run(beyond(2.0, 13), 60), run(beyond(2.0, 13, coarse=0), 60)
    assert torch.equal(with_them.log_weight, without.log_weight) and torch.equal(with_them.view, without.view)


@pytest.mark.parametrize("steps", [6, 7, 8])
def test_the_coarse_normaliser_is_that_of_the_chain_of_long_steps(steps):
    """In closed form, at numbers of steps that leave 0, 1 and 2 over: 60 runs, alpha 1e-6.

    The twin: the chain of the short steps themselves is another by far.
    """
    centre, precision = torch.tensor([2.5], dtype=F64), torch.tensor([[1.0]], dtype=F64)
    model = motes.ReverseDiffusion(
        standard(VP), steps, reward=lambda x: -0.5 * (x[:, 0] - 2.5).square(), guidance=0.7, shape=(1,), coarse=1
    )
    long = model.chain.level.table.times
    want, own = (
        math.exp(chain(VP, t, ONE, "multistep", "denoised").tilted(centre, precision)[0])
        for t in (long, model.table.times)
    )
    values = []
    for seed in range(60):
        x = run(model, 256, seed=seed, ess_threshold=0.9).particles.x["coarse"]
        values.append(torch.exp(x["log_weight"]).mean())
    z = torch.stack(values)
    error = float(z.std()) / math.sqrt(len(z))
    assert abs(float(z.mean()) - want) < 4.9 * error
    assert abs(float(z.mean()) - own) > 10 * error


@pytest.mark.parametrize("integrator", ["multistep", "ancestral", "euler-maruyama", "exponential"])
def test_paths_of_one_noise_stay_together(integrator):
    """The coarse image follows the fine one: that is what makes their difference a small number."""
    model = motes.ReverseDiffusion(standard(EDM(), 3), 60, shape=(3,), integrator=integrator, coarse=1)
    found = run(model, 400)
    both = torch.stack([found.view.flatten(), found.particles.x["coarse"]["denoised"].flatten()])
    assert float(torch.corrcoef(both)[0, 1]) > 0.95


@pytest.mark.parametrize("process", [VP, EDM(), RectifiedFlow()])
def test_a_measurement_in_four_dimensions(process):
    """log p(y) in closed form, within the stated error; the images have the right mean."""
    matrix = torch.tensor([[1.0, 0.5, 0.0, 0.0], [0.0, 0.0, 1.0, -1.0]])
    y = torch.tensor([1.2, -0.8])
    law = torch.distributions.MultivariateNormal(torch.zeros(2), matrix @ matrix.T + 0.09 * torch.eye(2))
    observation = Observation(Matrix(matrix, (4,)), y, 0.3)
    found = run(posterior(standard(process, 4), 60, observation, shape=(4,)))
    assert abs(found.log_evidence - float(law.log_prob(y))) < 4 * found.log_evidence_se
    assert found.log_evidence_se < 0.3 and "evidence" not in found.doubts


def test_noise_that_is_left_at_the_end_counts():
    """Data as narrow as the last noise: images lack half of its variance, which is worth 2.3 nats of log p(y) here.

    With the least noise that the process has by default nothing is said of it.
    """

    def measured(process):
        observation = Observation(Matrix(torch.eye(16), (16,)), torch.zeros(16), 0.05, scale=0.05)
        denoiser = gaussian(process, torch.zeros(16), 0.05**2 * torch.eye(16))
        found = run(posterior(denoiser, 60, observation, shape=(16,)), 400)
        law = torch.distributions.Normal(0.0, math.hypot(0.05, 0.05))
        return found, abs(found.log_evidence - 16 * float(law.log_prob(torch.tensor(0.0))))

    found, error = measured(EDM(t_min=0.05))
    assert 4 * found.particles_error.value < error < 3 * found.log_evidence_se
    assert any("noise that is left at the last time" in r for r in found.remarks)
    found, error = measured(EDM())
    assert error < 4 * found.log_evidence_se and not any("noise that is left" in r for r in found.remarks)


def test_images_near_the_edge_of_an_event_have_a_finite_bar():
    """Moved by what noise is left, some leave it: their reward is -inf then, and not a large number."""
    found = run(beyond(0.5, 30), 1000)
    leaf = found.particles.x["coarse"]
    assert bool((leaf["plus"] == -math.inf).any()) and math.isfinite(found.log_evidence_se)


def test_means_that_the_steps_move_are_doubted():
    """10,000 images of N(0, 1) in 10 ancestral steps lack a third of their variance; in 60 of second order nothing."""
    rough = motes.ReverseDiffusion(standard(EDM()), 10, shape=(1,), integrator="ancestral")
    assert "means" in run(rough, 10_000).doubts
    fine = motes.ReverseDiffusion(standard(VP), 60, shape=(1,))
    assert not run(fine, 1000).remarks and run(fine, 1000).log_evidence == 0


def test_where_nothing_is_known_there_is_no_bar():
    few = run(beyond(1.0, 30), 4)  # one coarse path
    assert math.isnan(few.log_evidence_se)
    model = beyond(1.0, 30)
    found = run(model)
    x = dict(found.particles.x)
    x["coarse"] = {**x["coarse"], "on": torch.zeros(500, dtype=torch.bool)}
    unknown = model.systematic(replace(found.particles, x=x))
    assert unknown is not None and math.isnan(unknown.value) and "no particle with a coarse path" in unknown.text
    x["coarse"] = {**found.particles.x["coarse"], "log_weight": torch.full((500,), -math.inf, dtype=F64)}
    unknown = model.systematic(replace(found.particles, x=x))
    assert unknown is not None and "which are too few" in unknown.text


def test_a_coarse_path_that_leaves_the_finite_numbers_ends_nothing():
    """Four Euler steps of a third of the range: the coarse paths overflow, the particles do not."""
    denoiser = motes.diffusion.Denoiser(
        lambda x, t: torch.where(x.abs() < 40 + 1e3 * (t[:, None] > 0.9), 0.5 * x, torch.nan), VP, predicts="data"
    )
    model = motes.ReverseDiffusion(denoiser, 12, reward=lambda x: x[:, 0], shape=(1,), coarse=2)
    whole = model.chain.level.evaluator
    nothing = motes.diffusion.Denoiser(lambda x, t: x * torch.nan, VP, predicts="data")
    bad = replace(whole, models=replace(whole.models, denoiser=nothing))
    level = replace(model.chain.level, evaluator=bad)
    object.__setattr__(model, "chain", replace(model.chain, level=level))
    found = run(model, 40)
    assert bool(torch.isfinite(found.log_weight).all())
    assert math.isnan(found.log_evidence_se) and "too few" in str(found)


def test_the_error_is_saved_with_the_run(tmp_path):
    found = run(beyond(1.0, 30), 100)
    again = motes.load(found.save(tmp_path / "run.safetensors"))
    assert isinstance(again.systematic, Systematic) and again.systematic == found.systematic
    assert again.log_evidence_se == found.log_evidence_se


def test_knobs():
    with pytest.raises(ValueError, match="coarse"):
        beyond(1.0, 10, coarse=-1)
    assert beyond(1.0, 1).chain.level is not None and beyond(1.0, 1, coarse=0).chain.level is None
    chain = beyond(1.0, 9).chain
    assert multilevel.Coarse.beside(0, chain.models, chain.evaluator, "multistep", 1.0) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(beyond(1.5, 60))
