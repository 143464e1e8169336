"""Each rule of guidance against what it comes to for normal data; under the weights none of them changes the target."""

import math

import pytest
import torch

import motes
from diffusion.linear import expected_weight
from motes.diffusion import Denoiser, Guided, VarianceExploding, VariancePreserving, gaussian, guidance
from motes.diffusion.guidance import (
    Event,
    Minority,
    Modulation,
    ReferenceControl,
    StepContext,
    TrainingFree,
    rarity,
    tune,
)
from motes.diffusion.guidance import training_free as rules
from motes.errors import MotesError

F64 = torch.float64
VP = VariancePreserving()
TIMES = VP.times(9)[[5, 7, 8]]
MEAN, VARIANCE = 0.4, 0.6
DENOISER = gaussian(VP, torch.tensor([MEAN], dtype=F64), torch.tensor([[VARIANCE]], dtype=F64))
pytestmark = pytest.mark.filterwarnings("ignore:the guidance is not corrected")


def gradient_of_the_prediction(t):
    alpha, sigma = float(VP.alpha(t)), float(VP.sigma(t))
    return alpha * VARIANCE / (alpha**2 * VARIANCE + sigma**2)


def first_shift(rule, reward=lambda x: 1.7 * x[:, 0], n=3, process=VP, denoiser=DENOISER, k=0, **kwargs):
    """The shift of step k + 1 at fixed states, and the states of its context."""
    model = Guided(denoiser, 4, guidance=rule, reward=reward, shape=(1,), dtype=F64, **kwargs)
    x = torch.linspace(-1, 2, n, dtype=F64)[:, None]
    return model.evaluator(motes.Rng(1), x, k)["shift"], model


RULES = {
    "posterior": guidance.diffusion_posterior(0.6),
    "manifold": guidance.manifold_preserving(0.4),
    "cloud": guidance.loss_guided(0.5, smooth=0.3),
    "universal": guidance.universal(0.3, mu=0.2, iterations=2),
    "modulation": Modulation(lambda x: (x - 1).square().sum(1), rate=0.2, iterations=3),
    "minority": Minority(0.2),
}
"""Knobs with which there is something to see."""
KNOWN = {
    "diffusion_posterior",
    "event",
    "freedom",
    "function_guidance",
    "loss_guided",
    "manifold_preserving",
    "minority",
}
KNOWN |= {"modulation", "reference_control", "training_free", "universal", "value_gradient"}
RULES |= {name: make() for name, make in guidance.guidances.items() if name not in KNOWN}


def worth(rule, reward=lambda x: x[:, 0]):
    model = motes.ReverseDiffusion(DENOISER, 40, reward=reward, guidance=rule, shape=(1,), dtype=F64)
    return motes.sample(model, 500, seed=1, progress=False, ess_threshold=0).ess / 500


def peak(x):
    return -3 * (x[:, 0] - 1.5).square()


def test_weighed_modulation_shrinks_with_the_step():
    """As a drift it is a help; with the published move of the prediction no weight would be left."""
    for reward in (lambda x: 2 * x[:, 0], peak):
        assert worth(Modulation(lambda x, r=reward: -r(x), rate=0.05), reward) > 1.5 * worth(None, reward)


def test_weighed_the_published_rule_shrinks_with_the_step():
    """The default keeps nine tenths of the particles' worth; the published shape, which does not shrink, keeps none."""

    assert worth(guidance.diffusion_posterior(0.8)) > 0.9
    assert worth(guidance.diffusion_posterior(0.8, shapes=rules.PUBLISHED)) < 0.1


@pytest.mark.parametrize("rule", RULES)
def test_under_the_weights_no_rule_changes_the_normaliser(rule):
    """By quadrature over start and noise. Rules that draw numbers of their own have them fixed by the seed."""

    def model(guide=None, schedule="end"):
        return motes.ReverseDiffusion(
            DENOISER,
            TIMES,
            reward=lambda x: 0.8 * x[:, 0],
            guidance=guide,
            shape=(1,),
            dtype=F64,
            schedule=schedule,
        )

    if rule in ("cloud", "minority"):  # quadrature replaces the random numbers by nodes, so these are sampled
        z = [motes.sample(model(RULES[rule]), 400, seed=s, progress=False).log_evidence for s in range(20)]
        exact = [motes.sample(model(), 4000, seed=s, progress=False).log_evidence for s in range(4)]
        assert abs(torch.tensor(z).exp().mean() / torch.tensor(exact).exp().mean() - 1) < 0.05
        return
    plain = expected_weight(model(), 40)
    assert expected_weight(model(RULES[rule], "linear"), 40) == pytest.approx(plain, rel=1e-7)


def test_the_gradient_through_the_denoiser():
    """Linear reward c x: the shift is (a_s / a_t) rho_t c dD/dx at every x, where alpha^2 + sigma^2 = 1."""
    shift, model = first_shift(guidance.diffusion_posterior(0.6))
    times, alpha = model.table.times, VP.alpha(model.table.times)
    ratio = (alpha[:-1] / alpha[1:]) ** 2
    rho = 0.6 * float(ratio[0] / ratio.mean())
    expected = float(alpha[1] / alpha[0]) * rho * 1.7 * gradient_of_the_prediction(times[0])
    assert torch.allclose(shift, torch.full_like(shift, expected), rtol=1e-12, atol=0)


def test_the_ascent_at_the_prediction_needs_no_gradient_of_the_denoiser():
    """Linear reward: the shift is alpha_s mu_t c times the iterations; a model without gradients will do."""
    blunt = Denoiser(lambda x, t: DENOISER.data(x, t[0]).detach(), VP, predicts="data")
    for iterations in (1, 3):
        rule = guidance.manifold_preserving(0.4, iterations=iterations)
        assert not rule.graph
        shift, model = first_shift(rule, denoiser=blunt)
        ratio = (VP.alpha(model.table.times)[:-1] / VP.alpha(model.table.times)[1:]) ** 2
        expected = float(VP.alpha(model.table.times[1])) * 0.4 * float(ratio[0] / ratio.mean()) * 1.7 * iterations
        assert torch.allclose(shift, torch.full_like(shift, expected), rtol=1e-12, atol=0)


def test_the_cloud_smooths_the_reward():
    """log E exp(c (z + e)) = c z + c^2 s^2 / 2 has the gradient c: for a linear reward the cloud changes nothing."""
    sharp, _ = first_shift(guidance.diffusion_posterior(0.6))
    cloudy, _ = first_shift(guidance.loss_guided(0.6, smooth=0.4))
    assert torch.allclose(sharp, cloudy, rtol=1e-10)
    square, model = first_shift(guidance.loss_guided(0.6, smooth=0.4, samples=4000), lambda x: -x[:, 0].square())
    spread = (0.4 * rules.strength(torch.sigmoid(2 * VP.log_snr(model.table.times)), "decrease", 0)) ** 2
    plain, _ = first_shift(guidance.diffusion_posterior(0.6), lambda x: -x[:, 0].square())
    assert torch.allclose(square, plain / (1 + 2 * spread), rtol=0.1)  # E exp(-(z + e)^2), the normal integral
    assert not torch.allclose(square, plain, rtol=0.1)


def test_one_rule_for_every_process():
    """A process in other units gives the same images: the rule is stated where alpha^2 + sigma^2 = 1."""
    ve = VarianceExploding(sigma_min=1e-3, sigma_max=1e3)
    times = VP.times(6)
    matched = ve.time(VP.log_snr(times)).clamp(0, 1)
    others = gaussian(ve, torch.tensor([MEAN], dtype=F64), torch.tensor([[VARIANCE]], dtype=F64))
    rule = guidance.universal(0.3, mu=0.2)
    images = []
    for denoiser, process, grid in ((DENOISER, VP, times), (others, ve, matched)):
        model = Guided(denoiser, grid, guidance=rule, reward=lambda x: x[:, 0], shape=(1,), dtype=F64, repeats=2)
        start = 0.7 * (process.alpha(grid[0]) ** 2 + process.sigma(grid[0]) ** 2).sqrt() * torch.ones(5, 1, dtype=F64)
        particles = model.init(motes.Rng(3), 5)
        x = model.evaluator(motes.Rng(3), start, 0)
        particles = motes.core.particles.Particles.start(x, particles.log_weight)
        while not model.done(particles):
            particles = model.step(motes.Rng(3).at("step", step=particles.t + 1), particles)
        images.append(model.view(particles))
    assert torch.allclose(*images, atol=1e-9)


@pytest.mark.parametrize("shape", ["increase", "decrease", "constant"])
def test_strengths_have_mean_one_and_go_the_way_they_say(shape):
    share = torch.sigmoid(2 * VP.log_snr(VP.times(10)))
    values = torch.tensor([rules.strength(share, shape, k) for k in range(10)])
    assert float(values.mean()) == pytest.approx(1, rel=1e-6)
    change = float(values[-1] - values[0])
    assert {"increase": change > 0.05, "decrease": change < -0.05, "constant": change == 0}[shape]


def test_tuning_finds_the_top_by_doubling_and_asks_once():
    asked = []

    def score(rule):
        asked.append(rule)
        return -((math.log2(rule.rho) - 1) ** 2) - (math.log2(rule.mu) + 1) ** 2 - 10 * rule.smooth

    found = tune(score)
    assert (found.best.rho, found.best.mu, found.best.smooth) == (2.0, 0.5, 0.1)
    assert len(asked) == len(set(asked)) == len(found.tried) and found.score == max(v for _, v in found.tried)
    only = tune(score, start=TrainingFree(rho=0.25, mu=0.5, smooth=0.0), beam=1, rounds=2)
    assert only.best.rho == 1.0 and only.best.smooth == 0.0
    with pytest.raises(ValueError, match="NaN"):
        tune(lambda rule: math.nan)
    with pytest.raises(ValueError, match="beam"):
        tune(score, beam=0)


def test_the_optimal_control_leaves_weights_without_variance():
    """Normal data: with the exact value as twist and its gradient as guidance, what is left falls as steps shrink."""
    target, strength = 1.5, 4.0
    reference = ReferenceControl(torch.tensor([target], dtype=F64), strength=strength, scale=VARIANCE**0.5)
    spread = []
    for steps in (50, 200):
        model = motes.ReverseDiffusion(
            DENOISER,
            steps,
            reward=reference.reward,
            guidance="reward",
            shape=(1,),
            twist=reference,
            dtype=F64,
            integrator="euler-maruyama",
        )
        states = list(motes.steps(model, 400, seed=2, ess_threshold=0))
        start, end = states[0].particles, states[-1].particles
        spread.append(float((end.log_weight - start.log_weight).std()))
    left = 1 + strength * VARIANCE
    log_z = -0.5 * strength * (MEAN - target) ** 2 / left - 0.5 * math.log(left)
    run = motes.sample(model, 2000, seed=5, progress=False)
    mean = (MEAN / VARIANCE + strength * target) / (1 / VARIANCE + strength)
    assert abs(run.log_evidence - log_z) < 0.1 and abs(float(run.mean().value) - mean) < 0.08
    assert spread[1] < 0.6 * spread[0] and spread[1] < 0.12
    plain = motes.ReverseDiffusion(DENOISER, 200, reward=reference.reward, shape=(1,), dtype=F64, schedule="end")
    assert float(motes.sample(plain, 400, seed=2, ess_threshold=0, progress=False).log_weight.std()) > 1


def test_modulation_pulls_the_prediction_to_the_minimum():
    """cost (z - 1)^2 and |z - D|^2 / 2: the minimum is (2 + D) / 3; the mean moves by pull times the way there."""
    rule = Modulation(lambda x: (x - 1).square().sum(1), rate=0.3, iterations=100)
    shift, model = first_shift(rule)
    x = torch.linspace(-1, 2, 3, dtype=F64)[:, None]
    denoised = DENOISER.data(x, model.table.times[0])
    assert torch.allclose(shift, float(model.table.pull[0]) * ((2 + denoised) / 3 - denoised), atol=1e-10)
    with pytest.raises(MotesError, match="cost has no gradient"):
        first_shift(Modulation(lambda x: x.detach().sum(1)))


def test_minority_pushes_away_from_the_mean():
    """Normal data: E|D - D(noised D)|^2 = (1 - alpha b)^2 (D - mean)^2 + const, b the slope of the prediction."""
    samples = 4000
    x = torch.full((samples, 1), 1.3, dtype=F64)
    model = Guided(DENOISER, 4, guidance=Minority(1.0), shape=(1,), dtype=F64)
    t0, t = model.table.times[0], float(VP.time(0.0))
    shift = model.evaluator(motes.Rng(1), x, 0)["shift"]
    denoised, b0 = float(DENOISER.data(x[:1], t0)), gradient_of_the_prediction(t0)
    lost = 1 - float(VP.alpha(t)) * gradient_of_the_prediction(t)
    # The second prediction is held fixed: the gradient is 2 (D - D') b0, and E D' - mean = (1 - lost) (D - mean).
    expected = float(model.evaluator.models.gain[0]) * 2 * lost * (denoised - MEAN) * b0
    error = float(shift.std()) / samples**0.5
    assert abs(float(shift.mean()) - expected) < 5 * error
    images = torch.tensor([[MEAN], [MEAN + 1], [MEAN + 2]], dtype=F64).repeat_interleave(samples, 0)
    found = rarity(DENOISER, images, seed=motes.Rng(2)).reshape(3, samples).mean(1)
    assert torch.allclose(found[1:] - found[0], lost**2 * torch.tensor([1.0, 4.0], dtype=F64), rtol=0.2)
    late = Guided(DENOISER, 4, guidance=Minority(1.0, every=2, until=0.5), shape=(1,), dtype=F64)
    assert [bool(late.evaluator(motes.Rng(1), x, k)["shift"].any()) for k in range(4)] == [True, False, False, False]


def test_rarity_as_a_reward_belongs_to_the_image_and_not_to_its_place():
    images = motes.Rng(4).normal((6, 1))
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    alone = rarity(DENOISER, images, seed=motes.Rng(2), shared=True)
    assert torch.equal(rarity(DENOISER, images[order], seed=motes.Rng(2), shared=True), alone[order])
    assert not torch.allclose(
        rarity(DENOISER, images[order], seed=motes.Rng(2)), rarity(DENOISER, images, seed=motes.Rng(2))[order]
    )

    def run(micro_batch):
        model = motes.ReverseDiffusion(
            DENOISER,
            5,
            reward=lambda x: rarity(DENOISER, x, seed=motes.Rng(2), shared=True),
            shape=(1,),
            dtype=F64,
            micro_batch=micro_batch,
        )
        return motes.sample(model, 10, seed=1, progress=False)

    assert torch.allclose(run(3).log_weight, run(7).log_weight, rtol=1e-12)


def test_the_probability_of_an_event():
    """P(x > 1.5) under N(0, 1), and the moments of the rest; the twin that leaves the weights out fails."""
    denoiser = gaussian(VP, torch.zeros(1, dtype=F64), torch.eye(1, dtype=F64))
    event = Event(lambda x: x[:, 0] - 1.5)
    model = motes.ReverseDiffusion(
        denoiser,
        60,
        reward=event.reward,
        guidance="reward",
        shape=(1,),
        twist=event,
        dtype=F64,
        integrator="euler-maruyama",
    )
    runs = [motes.sample(model, 500, seed=s, progress=False) for s in range(12)]
    z = torch.tensor([r.log_evidence for r in runs], dtype=F64).exp()
    mean = torch.tensor([float(r.mean().value) for r in runs], dtype=F64)
    assert abs(float(z.mean()) - 0.066807) < 5 * float(z.std()) / 12**0.5 + 0.003  # the chain's own error at 60 steps
    assert abs(float(mean.mean()) - 1.93868) < 0.04
    assert bool((runs[0].view[runs[0].log_weight > -math.inf] > 1.5).all())
    twist = Guided(denoiser, 60, guidance="reward", shape=(1,), twist=event, dtype=F64, noise=1.0)
    raw = motes.sample(twist, 2000, seed=1, progress=False).view
    assert not bool((raw > 1.5).all())  # guidance alone misses the event at times


def test_a_statistic_that_is_nan_is_not_taken_for_a_miss():
    event = Event(lambda x: torch.where(x[:, 0] > 0, x[:, 0], torch.nan))
    assert event.reward(torch.tensor([[1.0], [-1.0]])).isnan().tolist() == [False, True]
    model = motes.ReverseDiffusion(DENOISER, 4, reward=event.reward, shape=(1,), dtype=F64, schedule="end")
    with pytest.raises(motes.MotesError, match="the reward is NaN"):
        motes.sample(model, 20, seed=1, progress=False)


def test_the_probability_given_a_state_is_exact_for_normal_data_and_a_linear_statistic():
    event = Event(lambda x: 2 * x[:, 0] - 1)
    model = Guided(DENOISER, 6, guidance="reward", shape=(1,), twist=event, dtype=F64)
    x = torch.linspace(-2, 2, 5, dtype=F64)[:, None]
    for k in range(6):
        t = model.table.times[k]
        alpha, sigma = float(VP.alpha(t)), float(VP.sigma(t))
        left = VARIANCE * sigma**2 / (alpha**2 * VARIANCE + sigma**2)
        exact = torch.special.log_ndtr((2 * DENOISER.data(x, t)[:, 0] - 1) / (2 * left**0.5))
        assert torch.allclose(model.evaluator(motes.Rng(0), x, k)["twist"], exact, atol=1e-9)


def test_what_does_not_fit_is_refused():
    for make, what in (
        (lambda: TrainingFree(rho=-1), "rho"),
        (lambda: TrainingFree(samples=0), "samples"),
        (lambda: ReferenceControl(torch.zeros(1), strength=0.0), "strength"),
        (lambda: Modulation(lambda x: x.sum(1), rate=0), "rate"),
        (lambda: Minority(every=0), "every"),
        (lambda: Event(lambda x: x[:, 0], floor=0), "floor"),
    ):
        with pytest.raises(ValueError, match=what):
            make()
    with pytest.raises(motes.MotesError, match="shape"):
        TrainingFree(shapes=("up", "increase", "decrease"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="needs a reward"):
        first_shift(guidance.manifold_preserving(), reward=None)
    with pytest.raises(motes.MotesError, match="the reference is"):
        ReferenceControl(torch.zeros(2)).reward(torch.zeros(3, 1))
    other = ReferenceControl(
        torch.zeros(2, dtype=F64)
    )  # as the twist of another reward it would spread over the images
    with pytest.raises(motes.MotesError, match="the reference is"):
        first_shift("reward", twist=other)
    for rule in (
        Modulation(lambda x: x.square().mean()),
        guidance.manifold_preserving(reward=lambda x: x.sum()),
        guidance.loss_guided(reward=lambda x: x),
    ):
        with pytest.raises(motes.MotesError, match="must return one number a particle"):
            first_shift(rule)
    step = Event(lambda x: (x[:, 0] > 0).to(F64) - 0.5)
    with pytest.raises(MotesError, match="statistic has no gradient"):
        first_shift("reward", twist=step)
    with pytest.raises(motes.MotesError, match="one number an image"):
        Event(lambda x: x).reward(torch.zeros(3, 1))
    with pytest.raises(MotesError, match="no gradient"):
        first_shift(guidance.manifold_preserving(), reward=lambda x: x.detach().sum(1))


def test_settings_are_json():
    import json

    from motes.core.files.settings import described

    for rule in [*RULES.values(), ReferenceControl(torch.zeros(1)), Event(lambda x: x[:, 0])]:
        assert json.loads(json.dumps(described(rule)))["name"] == type(rule).__name__


def test_a_context_says_its_levels():
    seen = []

    class Keep(guidance.Guidance):
        def __call__(self, context: StepContext):
            seen.append(context)
            return torch.zeros_like(context.x)

    first_shift(Keep(), k=2)
    assert seen[0].alpha == float(VP.alpha(seen[0].t)) and seen[0].sigma == float(VP.sigma(seen[0].t))
    assert seen[0].step == 2 and float(seen[0].times[2]) == seen[0].t and float(seen[0].times[3]) == seen[0].s
