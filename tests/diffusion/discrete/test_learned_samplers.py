"""What is fitted to a token model: the sizes of few steps, and a network to a reward."""

import itertools
import math

import pytest
import torch
from torch import nn

import motes
from motes.diffusion.discrete import MarkovLaw, Masked, Ordered, ReverseDiscrete, Uniform, first_hitting, joint
from motes.diffusion.discrete.few_steps import best_counts, cost, few_steps
from motes.diffusion.discrete.fine_tuning import fine_tune, trajectory

F64 = torch.float64
TABLE = torch.tensor([[0.35, 0.05], [0.15, 0.45]], dtype=F64)
pytestmark = pytest.mark.filterwarnings("ignore:several places")


CUBE = torch.tensor([[[0.30, 0.02], [0.05, 0.13]], [[0.03, 0.17], [0.20, 0.10]]], dtype=F64)


def exact_cost(counts):
    """The mean over all orders of the places of KL(p || product of the conditionals at each step's beginning)."""
    total, orders = 0.0, list(itertools.permutations(range(3)))

    def conditional(x, place, known):
        index = tuple(x[i] if i in known else slice(None) for i in range(3))
        wide = tuple(x[i] if i in known or i == place else slice(None) for i in range(3))
        return float(CUBE[wide].sum() / CUBE[index].sum())

    for order in orders:
        for x in itertools.product((0, 1), repeat=3):
            log_q = 0.0
            for a, b in itertools.pairwise(counts):
                log_q += sum(math.log(conditional(x, order[i], order[:a])) for i in range(a, b))
            total += float(CUBE[x]) * (math.log(float(CUBE[x])) - log_q) / len(orders)
    return total


def test_the_cost_of_a_schedule_is_that_of_the_enumeration_and_the_best_one_is_found():
    process = Masked(2)
    draws = motes.Rng(1).categorical(CUBE.flatten().log(), 40_000)
    data = torch.stack([draws // 4, draws // 2 % 2, draws % 2], 1)
    found = few_steps(motes.Rng(2), joint(process, CUBE), data, 2)
    exact = {c: exact_cost(c) for c in ((0, 1, 3), (0, 2, 3))}
    for counts, value in exact.items():
        assert cost(found.entropy, counts) == pytest.approx(value, abs=0.02)
    assert found.counts == min(exact, key=lambda c: exact[c]) and exact_cost((0, 1, 2, 3)) == pytest.approx(
        0, abs=1e-12
    )
    assert found.times.tolist() == [1 - c / 3 for c in found.counts] and float(found.entropy_se.max()) < 0.01


def test_dynamic_programming_finds_what_trying_all_finds():
    for seed in range(5):
        entropy = motes.Rng(seed).uniform((7,)).sort(descending=True).values
        for steps in (1, 3, 7):
            every = [(0, *c, 7) for c in itertools.combinations(range(1, 7), steps - 1)]
            best = min(every, key=lambda c: cost(entropy, c))
            assert cost(entropy, best_counts(entropy, steps)) == pytest.approx(cost(entropy, best), abs=1e-12)


def test_the_best_steps_beat_even_ones_on_a_chain():
    """A Markov chain whose neighbours agree: the first places can be filled many at a time, the later ones too."""
    law = MarkovLaw(torch.tensor([0.5, 0.5], dtype=F64), torch.tensor([[0.98, 0.02], [0.02, 0.98]], dtype=F64), 48)
    model = law.model(Masked(2))
    data, _ = first_hitting(motes.Rng(1), model, 300)
    found = few_steps(motes.Rng(2), model, data, 6)
    assert found.nats < 0.8 * found.even and found.counts[0] == 0 and found.counts[-1] == 48
    run = motes.sample(ReverseDiscrete(model, found.times, rule=Ordered()), 4, seed=1, progress=False)
    assert bool((run.view >= 0).all())


def test_schedules_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="Masked"):
        few_steps(motes.Rng(1), joint(Uniform(2), TABLE), torch.zeros(2, 2, dtype=torch.int64), 1)
    with pytest.raises(ValueError, match="from 1 to the 2 places"):
        few_steps(motes.Rng(1), joint(Masked(2), TABLE), torch.zeros(2, 2, dtype=torch.int64), 3)
    with pytest.raises(ValueError, match="at least 2 sequences"):
        few_steps(motes.Rng(1), joint(Masked(2), TABLE), torch.zeros(1, 2, dtype=torch.int64), 1)
    never = torch.tensor([[0.5, 0.0], [0.0, 0.5]])
    with pytest.raises(motes.MotesError, match=r"probability 0 to data for particles"):
        few_steps(motes.Rng(1), joint(Masked(2), never), torch.tensor([[0, 0], [0, 1], [0, 1], [1, 1]]), 2)
    with pytest.raises(ValueError, match="without masks"):
        few_steps(motes.Rng(1), joint(Masked(2), TABLE), torch.full((2, 2), -1), 1)


REWARD = torch.tensor([[0.0, 1.0], [0.5, -0.5]])


class Net(nn.Module):
    """A small network on soft states, zero at first: the uniform law, which is the reference too."""

    def __init__(self, rng):
        super().__init__()
        self.first, self.last = nn.Linear(6, 24), nn.Linear(24, 4)
        with torch.no_grad():
            self.first.weight.copy_(rng.normal((24, 6), dtype=torch.float32) / 2)
            self.first.bias.zero_()
            self.last.weight.zero_()
            self.last.bias.zero_()

    def forward(self, state, t):
        return self.last(torch.tanh(self.first(state.flatten(1)))).reshape(-1, 2, 2)


def law(network, steps, n=20_000):
    with torch.no_grad():
        final, divergence = trajectory(network, network, Masked(2), motes.Rng(9), n, 2, steps, 1.0)
    assert float(divergence.abs().max()) < 1e-6
    return torch.bincount(final.argmax(-1) @ torch.tensor([2, 1]), minlength=4).to(F64) / n


def test_fine_tuning_comes_near_the_reference_times_the_exponential_of_the_reward():
    """Four sequences: the optimum is softmax(reward / alpha). Eight steps, so that few places fall together."""
    network = Net(motes.Rng(1).at("net"))
    alpha, uniform = 0.5, torch.full((4,), 0.25, dtype=F64)
    found = fine_tune(
        network,
        lambda state, t: torch.zeros(len(state), 2, 2),
        Masked(2),
        lambda x: torch.einsum("na,nb,ab->n", x[:, 0], x[:, 1], REWARD),
        length=2,
        alpha=alpha,
        iterations=200,
        batch=256,
        rate=3e-2,
        seed=3,
    )
    optimum = torch.softmax(REWARD.flatten().to(F64) / alpha, 0)
    tuned = law(network, 8)
    distance = [float((p - optimum).abs().sum()) / 2 for p in (uniform, tuned)]
    assert distance[1] < 0.4 * distance[0]
    assert found.reward[-1] > found.reward[0] + 0.2 and found.divergence[-1] > 0.01


def test_fine_tuning_refuses_what_does_not_fit():
    network = Net(motes.Rng(1))

    def run(**kwargs):
        reward = kwargs.pop("reward", lambda x: x[:, 0, 0])
        return fine_tune(
            kwargs.pop("network", Net(motes.Rng(1))),
            kwargs.pop("reference", lambda state, t: torch.zeros(len(state), 2, 2)),
            Masked(2),
            reward,
            **{"length": 2, "alpha": 1.0, "iterations": 1, "batch": 4, **kwargs},
        )

    with pytest.raises(ValueError, match="positive"):
        run(alpha=0.0)
    with pytest.raises(ValueError, match="the network itself"):
        run(reference=network, network=network)
    with pytest.raises(motes.MotesError, match="the reference must return logits"):
        run(reference=lambda state, t: torch.zeros(2, 2))
    with pytest.raises(motes.MotesError, match="gradient is not finite at iteration 0"):  # sqrt(0) has none
        run(network=network, reward=lambda x: (0 * x[:, 0, 0]).sqrt())
    assert all(bool(torch.isfinite(p).all()) for p in network.parameters())
    reference = Net(motes.Rng(2))
    run(reference=reference)
    assert all(p.grad is None for p in reference.parameters())
    with pytest.raises(motes.MotesError, match="one number a sequence"):
        run(reward=lambda x: x)
    with pytest.raises(motes.MotesError, match="not finite at iteration 0"):
        run(reward=lambda x: x[:, 0, 0] * torch.nan)
