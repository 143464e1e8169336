"""Guidance as it is: the sampler's own moments in closed form, and what it says of itself."""

import pytest
import torch

import motes
from diffusion.linear import expected_weight
from motes.diffusion import Guided, VarianceExploding, VariancePreserving, gaussian
from motes.diffusion.guidance import Guidance, StepContext, Twist

F64 = torch.float64
VP = VariancePreserving()
MEAN, VARIANCE = 0.4, 0.6


def made(process=VP, steps=5, **kwargs):
    denoiser = gaussian(process, torch.tensor([MEAN], dtype=F64), torch.tensor([[VARIANCE]], dtype=F64))
    return Guided(denoiser, steps, **{"shape": (1,), "dtype": F64, **kwargs})


def moments(model, push, repeats=1):
    """Mean and variance at the end, by the recursion of a linear normal chain with a constant push."""
    process, table = model.denoiser.process, model.table
    mean, variance = 0.0, process.start_std**2

    def affine(t):
        """The denoised prediction is a + b x."""
        alpha, sigma = float(process.alpha(t)), float(process.sigma(t))
        b = alpha * VARIANCE / (alpha**2 * VARIANCE + sigma**2)
        return MEAN * (1 - b * alpha), b

    for k in range(table.steps):
        t, s = table.times[k], table.times[k + 1]
        a, b = affine(t)
        keep, pull, std = float(table.keep[k]), float(table.pull[k]), float(table.std[k])
        move = pull * float(process.sigma(t) ** 2 / process.alpha(t)) * push
        back = float(process.alpha(t) / process.alpha(s))
        again = float(process.sigma(t) ** 2) - (back * float(process.sigma(s))) ** 2
        for i in range(repeats):
            mean = keep * mean + pull * (a + b * mean) + move
            variance = (keep + pull * b) ** 2 * variance + std**2
            if i + 1 < repeats:
                mean, variance = back * mean, back**2 * variance + again
    a, b = affine(table.times[-1])
    return a + b * mean, b**2 * variance


@pytest.mark.parametrize("noise", [0.0, 1.0])
@pytest.mark.parametrize("repeats", [1, 3])
@pytest.mark.parametrize("process", [VP, VarianceExploding(sigma_min=0.05, sigma_max=8.0)])
def test_the_moments_are_those_of_the_chain(process, repeats, noise):
    """20,000 particles: a mean off by 5 standard errors, 0.03 of the spread, would fail."""
    n, push = 20_000, 0.7
    model = made(process, guidance=lambda x, t: torch.full_like(x, push), noise=noise, repeats=repeats)
    with pytest.warns(UserWarning, match="not corrected"):
        run = motes.sample(model, n, seed=2, progress=False)
    mean, variance = moments(model, push, repeats)
    x = run.view[:, 0]
    assert abs(float(x.mean()) - mean) < 5 * (variance / n) ** 0.5
    assert abs(float(x.var()) / variance - 1) < 5 * (2 / n) ** 0.5
    assert abs(moments(model, 0.0, repeats)[0] - mean) > 0.1  # the twin without guidance would fail


def test_it_says_that_it_is_biased_and_has_no_normaliser():
    model = made(guidance="reward", reward=lambda x: x[:, 0])
    with pytest.warns(UserWarning, match="not corrected"):
        run = motes.sample(model, 30, seed=1, progress=False)
    assert run.standard_error.value != run.standard_error.value and "no weights" in run.standard_error.reason
    assert torch.equal(run.particles.x["reward"], run.view[:, 0]) and len(run.trace["reward"]) == 6
    assert bool((run.log_weight == 0).all())
    plain = motes.sample(made(), 30, seed=1, progress=False)
    assert plain.trace["noise_level"][0] > plain.trace["noise_level"][-1]


class Seen(Guidance):
    """Draws a number for each particle, and keeps what it was shown."""

    @property
    def graph(self):
        return False

    def __init__(self):
        self.contexts = []

    def __call__(self, context: StepContext):
        self.contexts.append(context)
        return context.shift(context.rng.normal(tuple(context.x.shape), dtype=context.x.dtype))


@pytest.mark.filterwarnings("ignore:the guidance is not corrected")
def test_guidance_sees_the_step_and_its_numbers_belong_to_the_particles():
    whole = motes.sample(made(guidance=Seen(), steps=4), 10, seed=3, progress=False)
    guidance = Seen()
    parts = motes.sample(made(guidance=guidance, steps=4, micro_batch=3), 10, seed=3, progress=False)
    assert torch.equal(whole.view, parts.view)
    context = guidance.contexts[-1]
    assert (
        context.step == 3
        and len(context.times) == 5
        and context.s == VP.t_min
        and context.t > context.s
        and len(context.x) == 3
    )
    assert context.alpha == float(VP.alpha(context.t)) and context.log_value is None


class Linear(Twist):
    """log psi = slope * x."""

    def __init__(self, slope):
        self.slope = slope

    def __call__(self, context: StepContext):
        return self.slope * context.x[:, 0]


@pytest.mark.parametrize("guidance", [None, "reward", 0.7])
@pytest.mark.parametrize("slope", [0.8, -0.5])
@pytest.mark.parametrize("potential", ["difference", "max", "sum"])
def test_any_twist_leaves_the_normaliser_as_it_is(potential, slope, guidance):
    """By quadrature over start and noise, against the sampler without twist and guidance."""
    times = VP.times(9)[[5, 7, 8]]
    denoiser = gaussian(VP, torch.tensor([MEAN], dtype=F64), torch.tensor([[VARIANCE]], dtype=F64))

    def model(**kwargs):
        return motes.ReverseDiffusion(denoiser, times, reward=lambda x: x[:, 0], shape=(1,), dtype=F64, **kwargs)

    plain = expected_weight(model(schedule="end"), 40)
    twisted = model(twist=Linear(slope), guidance=guidance, potential=potential)
    assert expected_weight(twisted, 40) == pytest.approx(plain, rel=1e-8)


def test_the_twist_is_recorded():
    denoiser = gaussian(VP, torch.zeros(1, dtype=F64), torch.eye(1, dtype=F64))
    model = motes.ReverseDiffusion(denoiser, 4, reward=lambda x: x[:, 0], shape=(1,), twist=Linear(0.5), dtype=F64)
    run = motes.sample(model, 40, seed=0, progress=False)
    assert int((run.trace["twist"] == run.trace["twist"]).sum()) == 4  # not at the end, where the reward itself counts
    assert model.settings()["twist"] == {"name": "Linear"}


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="repeats"):
        made(repeats=0)
    with pytest.raises(motes.MotesError, match="final"):
        made(final="image")
    with pytest.raises(ValueError, match="needs a reward"):
        made(guidance="reward")
    with pytest.raises(TypeError, match="guidance must be"):
        made(guidance=Seen)
    with pytest.raises(ValueError, match="give the reward too"):
        denoiser = made().denoiser
        motes.ReverseDiffusion(denoiser, 4, shape=(1,), twist=Linear(1.0))
