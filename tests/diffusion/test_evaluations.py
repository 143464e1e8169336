"""How the denoiser is asked: once at each point, in calls of bounded size, and with gradients only where needed."""

import weakref

import pytest
import torch

import motes
from motes.diffusion import (
    AdaptiveReward,
    Composition,
    Denoiser,
    Guided,
    ValueDecoding,
    VariancePreserving,
    gaussian,
    guidance,
)  # fmt: skip
from motes.diffusion.inverse import ActiveDiffusion, Observation

pytestmark = pytest.mark.filterwarnings("ignore::motes.errors.MotesWarning")  # of bias and discretisation
VP = VariancePreserving()
D, K, N = 3, 7, 11
EXACT = gaussian(VP, torch.zeros(D), torch.eye(D))


def reward(x):
    return 2 * x[:, 0] - x[:, 1].square()


class Counted:
    """A denoiser of data N(0, I) that keeps every row it was asked about, and the size and grad mode of each call."""

    def __init__(self):
        self.rows, self.sizes, self.modes = [], [], []
        self.denoiser = Denoiser(self, VP, predicts="data")

    def __call__(self, x, t):
        self.rows += [(*row, time) for row, time in zip(x.detach().tolist(), t.tolist(), strict=True)]
        self.sizes.append(len(x))
        self.modes.append(torch.is_grad_enabled())
        alpha = VP.alpha(t.double()).to(x)[:, None]
        return alpha * x  # alpha^2 + sigma^2 = 1

    def twice(self):
        return len(self.rows) - len(set(self.rows))


def reverse(denoiser, guide=None, **knobs):
    return motes.ReverseDiffusion(denoiser, K, reward=reward, guidance=guide, **{"shape": (D,), "coarse": 0, **knobs})


def observed():
    return Observation(lambda x: x[:, :1], torch.ones(1), 0.5)


def active(denoiser):
    return ActiveDiffusion(
        denoiser,
        K,
        measure=lambda x: x[:, :, None],
        ask=lambda i: torch.ones(1),
        std=0.5,
        budget=2,
        shape=(D,),
        coarse=0,
    )


def composed(denoiser, **knobs):
    return Composition([denoiser, EXACT], [0.7, 0.6], K, shape=(D,), **knobs)


EACH = (K + 1) * N
CASES = {
    "plain": (lambda d: motes.ReverseDiffusion(d, K, shape=(D,), coarse=0), EACH),
    "weights": (reverse, EACH),
    "coarse paths": (lambda d: motes.ReverseDiffusion(d, K, shape=(D,), coarse=4), EACH + 3 * 3),
    "weights at the end": (lambda d: reverse(d, schedule="end"), EACH),
    "the state is final": (lambda d: reverse(d, final="state"), K * N),
    "reward": (lambda d: reverse(d, "reward"), EACH),
    "drift": (lambda d: reverse(d, lambda x, t: -x), EACH),
    "diffusion posterior": (lambda d: reverse(d, guidance.diffusion_posterior(0.5)), EACH),
    "loss guided": (lambda d: reverse(d, guidance.loss_guided(0.5, smooth=0.2, samples=4)), EACH),
    "manifold preserving": (lambda d: reverse(d, guidance.manifold_preserving(0.5)), EACH),
    "guided": (lambda d: Guided(d, K, guidance="reward", reward=reward, shape=(D,)), EACH),
    "guided twice": (lambda d: Guided(d, K, guidance="reward", reward=reward, shape=(D,), repeats=2), EACH + K * N),
    "three proposals": (lambda d: ValueDecoding(reverse(d), proposals=3), N + 3 * K * N),
    "adaptive": (lambda d: AdaptiveReward(d, K, reward=reward, shape=(D,), coarse=0), EACH),
    "adaptive and guided": (lambda d: AdaptiveReward(d, K, reward=reward, guidance=0.5, shape=(D,), coarse=0), EACH),
    "active": (active, EACH),
    "composition by transitions": (lambda d: composed(d, weights="transition"), EACH),
    "composition by rates": (lambda d: composed(d, weights="rate"), EACH),
    "composition and reward": (lambda d: composed(d, weights="rate", reward=reward, guidance="reward"), EACH),
}


@pytest.mark.parametrize("case", CASES)
def test_no_point_is_asked_about_twice(case):
    """As many rows as there are particles and times, all of them different."""
    make, rows = CASES[case]
    counted = Counted()
    motes.sample(make(counted.denoiser), N, seed=1, progress=False)
    assert len(counted.rows) == rows
    assert counted.twice() == 0


def test_a_sampler_that_asks_again_is_found_out():
    """Guidance that asks the denoiser where it was asked already."""
    counted = Counted()
    again = reverse(counted.denoiser, lambda x, t: counted.denoiser.data(x, t) - x)
    motes.sample(again, N, seed=1, progress=False)
    assert counted.twice() == K * N


@pytest.mark.parametrize("guide", [None, "reward"])
def test_calls_have_one_size(guide):
    """1,000 particles by 64: the last part is filled up, so that each call has the same rows."""
    counted = Counted()
    motes.sample(reverse(counted.denoiser, guide, micro_batch=64), 1000, seed=1, progress=False)
    assert set(counted.sizes) == {64} and len(counted.sizes) == (K + 1) * 16


class Held:
    """What a backward pass keeps."""


class Double(torch.autograd.Function):
    """2 x, with something that lives as long as the graph."""

    @staticmethod
    def forward(ctx, x, held):
        ctx.held = held
        return 2 * x

    @staticmethod
    def backward(ctx, grad):
        return 2 * grad, None


@pytest.mark.parametrize(
    ("guide", "twist"),
    [("reward", None), (guidance.loss_guided(0.5, smooth=0.2), None), (None, observed()), ("reward", observed())],
)
def test_one_part_is_held_at_a_time(guide, twist):
    """When the next part is asked about, the graph of the one before is gone: memory is that of a part."""
    alive, most = [], 0

    def model(x, t):
        nonlocal most
        held = Held()
        alive[:] = [h for h in alive if h() is not None] + [weakref.ref(held)]
        most = max(most, len(alive))
        return Double.apply(x, held) * VP.alpha(t.double()).to(x)[:, None] / 2

    sampler = reverse(Denoiser(model, VP, predicts="data"), guide, twist=twist, micro_batch=4)
    motes.sample(sampler, 40, seed=1, progress=False)
    assert most == 1


def test_graphs_that_are_held_are_counted():
    """A model whose outputs are kept holds them all."""
    kept, held = [], [Held() for _ in range(3)]
    refs = [weakref.ref(h) for h in held]
    for i in range(3):
        kept.append(Double.apply(torch.ones(2, requires_grad=True), held[i]))
    del held
    assert sum(r() is not None for r in refs) == 3


FREE = (
    "plain", "coarse paths", "weights", "weights at the end", "the state is final", "drift", "manifold preserving",
    "adaptive", "three proposals", "composition by transitions", "composition by rates",
)  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_gradients_are_kept_only_where_a_method_needs_them(case):
    """Grad mode is off at every call of the samplers that need no gradient, and at the last call of the others."""
    counted = Counted()
    motes.sample(CASES[case][0](counted.denoiser), N, seed=1, progress=False)
    assert any(counted.modes) == (case not in FREE) and not counted.modes[-1]
