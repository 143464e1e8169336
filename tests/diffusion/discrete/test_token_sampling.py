"""Samplers of tokens: the law of each chain by enumeration, weights against it, and the cost of drawing in parallel."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from motes import Rng
from motes.core.resampling import find_scheme
from motes.diffusion.discrete import (
    LocalReward,
    MarkovLaw,
    Masked,
    Ordered,
    Posterior,
    Rates,
    Remask,
    ReverseDiscrete,
    RewardGradient,
    Routed,
    TauLeap,
    TokenModel,
    Uniform,
    chain_law,
    first_hitting,
    joint,
    parallel_cost,
    total_correlation,
    uniformised,
)
from motes.diffusion.discrete.total_correlation import divergence

F64 = torch.float64
V, L = 2, 3
TABLE = torch.exp(1.2 * Rng(2).at("table").normal((V, V, V)))
TABLE = TABLE / TABLE.sum()
BIAS = torch.tensor([[0.0, 1.0], [0.4, -0.3], [0.0, 0.8]], dtype=F64)
RING = torch.tensor([[0, 1.0, 0.2], [0.3, 0, 1.0], [1.0, 0.5, 0]])


def reward(x):
    """Additive, and a term for the first and the last place together."""
    return BIAS[torch.arange(x.shape[1]), x].sum(1) + 0.7 * (x[:, 0] == x[:, -1])


def relaxed(p):
    return (BIAS * p).sum((1, 2)) + 0.7 * (p[:, 0] * p[:, -1]).sum(1)


def value(table, f=reward):
    """E[exp(f)] under a law given by its table."""
    x = torch.cartesian_prod(*[torch.arange(len(table))] * table.ndim)
    return float(table.flatten() @ torch.exp(f(x)))


def counts(x, v):
    """The share of each sequence."""
    code = (x * v ** torch.arange(x.shape[1] - 1, -1, -1)).sum(1)
    return torch.bincount(code, minlength=v ** x.shape[1]) / len(x)


def assert_law(x, table, z=4.9):
    p = table.flatten()
    error = (p * (1 - p) / len(x)).sqrt()
    worst = ((counts(x, len(table)) - p).abs() / error.clamp(min=1e-12)).max()
    assert float(worst) < z


def through(model, n, seed=0):
    """n paths that are never resampled: the end, weights, and weights at every time."""
    rng, history = Rng(seed), []
    particles = model.init(rng.at("init", step=0), n)
    while not model.done(particles):
        history.append(particles.log_weight)
        particles = model.step(rng.at("step", step=particles.t + 1), particles)
    return particles, [*history, particles.log_weight]


def by_sets(table, weights):
    """The law of unmasking in K parallel steps, summed over the step of each place; a second way to `chain_law`."""
    out = torch.zeros_like(table)
    for at in itertools.product(range(len(weights)), repeat=table.ndim):
        probability = math.prod(float(weights[k]) for k in at)
        for x in itertools.product(range(table.shape[0]), repeat=table.ndim):
            p = 1.0
            for i, k in enumerate(at):
                known = tuple(x[j] if at[j] < k else slice(None) for j in range(table.ndim))
                with_i = tuple(x[j] if at[j] < k or j == i else slice(None) for j in range(table.ndim))
                p *= float(table[with_i].sum() / table[known].sum())
            out[x] += probability * p
    return out


def path_cost(table, weights):
    """The expected total correlation of the places of each step given what is there, by enumeration."""
    total = torch.zeros(len(weights), dtype=F64)
    for at in itertools.product(range(len(weights)), repeat=table.ndim):
        probability = math.prod(float(weights[k]) for k in at)
        for x in itertools.product(range(table.shape[0]), repeat=table.ndim):
            for k in set(at):
                known = table[tuple(x[j] if at[j] < k else slice(None) for j in range(table.ndim))].sum()
                both = table[tuple(x[j] if at[j] <= k else slice(None) for j in range(table.ndim))].sum()
                gain = math.log(both / known)
                for i in (i for i in range(table.ndim) if at[i] == k):
                    one = table[tuple(x[j] if at[j] < k or j == i else slice(None) for j in range(table.ndim))].sum()
                    gain -= math.log(one / known)
                total[k] += probability * float(table[x]) * gain
    return total


# ------------------------------------------------------------------------------------------------ parallel unmasking


def test_the_law_of_parallel_unmasking_and_its_cost():
    """Twice by enumeration; one step costs the total correlation, and the cost falls with the steps."""
    process, found = Masked(V), []
    for steps in (1, 2, 4, 16):
        law = chain_law(joint(process, TABLE), steps)
        if steps <= 4:
            assert torch.allclose(law, by_sets(TABLE, torch.full((steps,), 1 / steps)), atol=1e-12)
        found.append(divergence(TABLE, law))
    assert found[0] == pytest.approx(total_correlation(TABLE), abs=1e-12)
    assert found == sorted(found, reverse=True) and found[-1] < found[0] / 50
    cosine = Masked(V, schedule="cosine")
    weights = cosine.alpha(cosine.times(5)).diff()
    assert torch.allclose(chain_law(joint(cosine, TABLE), 5), by_sets(TABLE, weights), atol=1e-12)


def test_two_places_in_closed_form():
    """In K equal steps both places fall into one step with probability 1 / K: the law is a mixture with the product."""
    table = torch.tensor([[0.4, 0.1], [0.1, 0.4]], dtype=F64)
    for steps in (1, 2, 4, 16):
        mixture = (1 - 1 / steps) * table + 1 / steps * torch.full((2, 2), 0.25, dtype=F64)
        assert torch.allclose(chain_law(joint(Masked(2), table), steps), mixture, atol=1e-12)
    assert total_correlation(table) == pytest.approx(0.8 * math.log(1.6) + 0.2 * math.log(0.4), abs=1e-12)


def test_the_cost_is_estimated_without_bias():
    """Against enumeration, by step; an error of 0.004 nats is 4.9 standard errors."""
    model, n = joint(Masked(V), TABLE), 40_000
    code = Rng(1).at("data").categorical(torch.log(TABLE.flatten()), n)
    data = torch.stack([code // 4, code // 2 % 2, code % 2], 1)
    for steps in (1, 3):
        exact = path_cost(TABLE, torch.full((steps,), 1 / steps))
        cost = parallel_cost(Rng(3), model, data, steps)
        by_step = cost.parts["by step"]
        assert abs(cost.value - float(exact.sum())) < 4.9 * cost.se and cost.se < 0.01
        assert bool(((by_step.value - exact).abs() < 4.9 * by_step.se + 1e-12).all())
        assert float(exact.sum()) >= divergence(TABLE, chain_law(model, steps)) - 1e-12
    assert parallel_cost(Rng(3), joint(Masked(V), torch.ones(V, V, V)), data[:9], 2).value == pytest.approx(
        0, abs=1e-12
    )


def test_the_cost_of_long_sequences():
    """Two hundred places of a Markov chain: one step costs the sum of the mutual informations of neighbours."""
    flip = 0.2
    law = MarkovLaw(torch.tensor([0.5, 0.5]), torch.tensor([[1 - flip, flip], [flip, 1 - flip]]), 60)
    model = law.model(Masked(2))
    data, _ = first_hitting(Rng(0), model, 600)
    cost = parallel_cost(Rng(0), model, data, 1)
    exact = 59 * (math.log(2) + flip * math.log(flip) + (1 - flip) * math.log(1 - flip))
    assert abs(cost.value - exact) < 4.9 * cost.se < 6


# ------------------------------------------------------------------------------------------------ laws of the chains


@pytest.mark.parametrize(
    "process",
    [Masked(V), Masked(V, schedule="cosine"), Uniform(V), Rates(RING)],
    ids=["masked", "cosine", "uniform", "rates"],
)
def test_posterior_steps_end_in_the_law_that_is_enumerated(process):
    """30,000 sequences: a deviation of 0.014 would be seen."""
    table = TABLE
    if process.vocabulary == 3:
        table = torch.softmax(1.5 * Rng(4).at("three").normal((9,)), 0).reshape(3, 3)
    model = joint(process, table)
    particles, _ = through(ReverseDiscrete(model, 3), 30_000)
    assert_law(particles.x["filled"], chain_law(model, 3))
    with pytest.raises(AssertionError):
        assert_law(particles.x["filled"], table)  # three steps are not exact, and 30,000 sequences show it


@pytest.mark.parametrize("by", ["random", "left", "confidence", "margin", "entropy"])
@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_one_place_a_step_is_exact_in_any_order(by, noise):
    process = Masked(V)
    model = ReverseDiscrete(joint(process, TABLE), L, rule=Ordered(by, temperature=noise))
    particles, _ = through(model, 30_000, seed=len(by))
    assert_law(particles.x["filled"], TABLE)
    assert (
        model.remarks(particles) == []
        and "at once" in ReverseDiscrete(model.model, 2, rule=Ordered()).remarks(particles)[0]
    )


def test_keeping_the_likelier_draws_is_not_exact():
    """What the rule says of itself; one place a step, and still far from the law."""
    process = Masked(V)
    for rule in (Routed(), Routed(again=True), Routed(temperature=0.5)):
        model = ReverseDiscrete(joint(process, TABLE), L, rule=rule)
        particles, _ = through(model, 30_000)
        assert int(particles.x["tokens"].min()) >= 0 and "sharper" in model.remarks(particles)[0]
        with pytest.raises(AssertionError):
            assert_law(particles.x["filled"], TABLE)


def test_orders_choose_what_they_say():
    process, table = Masked(2), torch.tensor([0.3, 0.7])[:, None, None] * torch.tensor([0.05, 0.95])[:, None]
    table = table * torch.tensor([0.4, 0.6])
    for by, expected in (("left", 0), ("confidence", 1), ("margin", 1), ("entropy", 1)):
        model = ReverseDiscrete(joint(process, table), 3, rule=Ordered(by))  # type: ignore[arg-type]
        particles = model.step(Rng(0).at("step", step=1), model.init(Rng(0), 5))
        assert (particles.x["tokens"] >= 0).nonzero()[:, 1].tolist() == [expected] * 5


def remask_law(model, steps, rule):
    """The law of remasking by enumeration: each place by its own two probabilities."""
    process, length = model.process, model.length
    state = torch.cartesian_prod(*[torch.arange(process.states)] * length)
    tokens, law = process.tokens(state), process.stationary[state].prod(1)
    for t, s in itertools.pairwise(process.times(steps).tolist()):
        fill, sigma = rule.probabilities(process, t, s)
        p0 = model(tokens, t).exp()
        masked = torch.cat([fill * p0, torch.full((*tokens.shape, 1), 1 - fill, dtype=F64)], -1)
        there = (1 - sigma) * torch.nn.functional.one_hot(state, process.states).to(F64)
        there[..., -1] += sigma
        move = torch.where(tokens[..., None] < 0, masked, there)
        path = torch.stack([move[:, i, state[:, i]] for i in range(length)]).prod(0)
        law = law @ path
    return law.reshape((process.states,) * length)[(slice(0, process.vocabulary),) * length]


@pytest.mark.parametrize("how", ["rescale", "cap"])
def test_remasking(how):
    """As many masks as without it, the enumerated law, and with many steps that of the model."""
    process, steps = Masked(V), 8
    model, rule = joint(process, TABLE), Remask(0.4, how=how)
    for t, s in itertools.pairwise(process.times(steps).tolist()):
        fill, sigma = rule.probabilities(process, t, s)
        assert 0 <= fill <= 1 and (1 - fill) * t + sigma * (1 - t) == pytest.approx(s, abs=1e-12)
    law = remask_law(model, steps, rule)
    assert torch.allclose(remask_law(model, steps, Remask(0.0, how=how)), chain_law(model, steps), atol=1e-12)
    particles, _ = through(ReverseDiscrete(model, steps, rule=rule), 30_000)
    assert_law(particles.x["filled"], law)
    found = [divergence(TABLE, remask_law(model, k, rule)) for k in (steps, 64, 256)]
    assert found == sorted(found, reverse=True) and found[-1] < 1e-3
    assert found[0] > divergence(TABLE, chain_law(model, steps))  # a perfect model has nothing to mend


def test_tau_leaping_is_first_order():
    """One place: the error of its law halves as the steps double, where the posterior has none."""
    process, table = Uniform(3, t_min=0.05), torch.tensor([0.6, 0.3, 0.1], dtype=F64)
    model, found = joint(process, table), []
    state = torch.arange(3)[:, None]
    for rule in (TauLeap(), Posterior()):
        for steps in (40, 80, 160):
            sampler = ReverseDiscrete(model, steps, rule=rule)
            law = process.stationary
            for t, s in itertools.pairwise(sampler.times.tolist()):
                x = sampler._context({**sampler._observe(Rng(0), state, state.double(), 0)}, 0)
                context = replace(x, log_p0=model(state, t), t=t, s=s)
                law = law @ rule.plan(Rng(0), context).log_law[:, 0].exp()
            exact = table @ process.kernel(0.0, 0.05)
            found.append(float((law - exact).abs().sum()))
    assert found[0] / found[1] == pytest.approx(2, abs=0.3) and found[1] / found[2] == pytest.approx(2, abs=0.2)
    assert max(found[3:]) < 2e-3  # what the start leaves: a thousandth of the data


def test_given_tokens_stay_and_the_rest_follows():
    process = Masked(V)
    given = torch.tensor([1, -1, -1])
    conditional = TABLE[1] / TABLE[1].sum()
    for rule, steps in ((Ordered("entropy"), 2), (Remask(0.3), 60), (Posterior(), 60)):
        model = ReverseDiscrete(joint(process, TABLE), steps, rule=rule, given=given)
        particles, _ = through(model, 10_000)
        x = particles.x["filled"]
        assert bool((x[:, 0] == 1).all())
        if steps == 2:
            assert_law(x[:, 1:], conditional)
        else:
            assert float((counts(x[:, 1:], V) - conditional.flatten()).abs().max()) < 0.03
    tokens, times = first_hitting(Rng(0), joint(process, TABLE), 20_000, given=given)
    assert_law(tokens[:, 1:], conditional)
    assert bool(times[:, 0].isnan().all()) and bool((tokens[:, 0] == 1).all())


# ------------------------------------------------------------------------------------------------ exact simulation


@pytest.mark.parametrize("schedule", ["linear", "cosine", "loglinear"])
def test_first_hitting_has_the_law_of_the_data_and_of_the_times(schedule):
    process = Masked(V, schedule=schedule)
    tokens, times = first_hitting(Rng(6), joint(process, TABLE), 30_000)
    assert_law(tokens, TABLE)
    alpha = process.alpha(times.flatten())
    for height in (0.2, 0.5, 0.9):  # uniform, and independent of the tokens
        share = (alpha < height).double()
        assert abs(float(share.mean()) - height) < 4.9 * math.sqrt(height * (1 - height) / len(alpha)) + 1e-3
    late = process.alpha(times[:, 0]) > process.alpha(times[:, 1])
    assert_law(tokens[late], TABLE)


@pytest.mark.parametrize("process", [Uniform(3), Rates(RING, stretch=0.5)], ids=["uniform", "rates"])
def test_uniformisation_has_the_law_at_its_time(process):
    """No error of steps: 20,000 sequences against the exact law of x_t; 0.017 would be seen."""
    table = torch.softmax(1.5 * Rng(4).at("three").normal((9,)), 0).reshape(3, 3)
    x = uniformised(Rng(0), joint(process, table), 20_000, until=0.2)
    kernel = process.kernel(0.0, 0.2)
    assert_law(x, kernel.T @ table @ kernel)
    with pytest.raises(AssertionError):
        assert_law(x, table)


def test_uniformisation_by_shards():
    process = Uniform(3)
    model = joint(process, torch.softmax(Rng(4).at("three").normal((9,)), 0).reshape(3, 3))
    whole, ids = uniformised(Rng(0), model, 9), torch.tensor([7, 2, 4])
    assert torch.equal(uniformised(Rng(0).shard(ids), model, 3), whole[ids])
    with pytest.raises(ValueError, match="first_hitting"):
        uniformised(Rng(0), joint(Masked(V), TABLE), 3)


# ------------------------------------------------------------------------------------------------ weights

WAYS = [
    ("masked", Masked(V), Posterior(), 3),
    ("uniform", Uniform(V), Posterior(), 3),
    ("ordered", Masked(V), Ordered("entropy"), 3),
    ("two a step", Masked(V), Ordered(), 2),
    ("remask", Masked(V), Remask(0.5), 4),
    ("routed", Masked(V), Routed(again=True), 3),
    ("tau", Uniform(V), TauLeap(), 4),
    ("tau masked", Masked(V), TauLeap(), 4),
]
GUIDES = {
    "none": None,
    "local": LocalReward(1.3),
    "gradient": RewardGradient(relaxed),
    "mean": RewardGradient(relaxed, at="mean"),
    "given": lambda x, t: torch.stack([0.5 * (x < 0), 0.4 * (x != 0) * t], -1).double(),
}


@pytest.mark.parametrize(("process", "rule", "steps"), [w[1:] for w in WAYS], ids=[w[0] for w in WAYS])
def test_weights_are_exact_for_the_chain_whatever_guides_it(process, rule, steps):
    """E[exp(log-weight)] is E[exp(reward)] under the chain's law, which is seen in plain runs of the chain.

    The chain's own value comes from 60,000 plain sequences; guided paths agree with it to 4.9 standard errors, about
    1.5 %. Without the ratio of the transitions they are off by 10 % and more.
    """
    model = joint(process, TABLE)
    plain, _ = through(ReverseDiscrete(model, steps, rule=rule), 60_000, seed=1)
    worth = torch.exp(reward(plain.x["filled"]))
    exact, error = float(worth.mean()), float(worth.std()) / math.sqrt(60_000)
    if isinstance(rule, Posterior):
        assert abs(exact - value(chain_law(model, steps))) < 4.9 * error
    for k, (name, guide) in enumerate(GUIDES.items()):
        potential = ("difference", "max", "sum")[k % 3]
        knobs = {"potential": potential, "schedule": "linear", "completions": 1 + k % 2}
        sampler = ReverseDiscrete(model, steps, reward=reward, guidance=guide, rule=rule, **knobs)
        particles, _ = through(sampler, 20_000, seed=2)
        weight = torch.exp(particles.log_weight)
        spread = math.hypot(error, float(weight.std()) / math.sqrt(20_000))
        assert abs(float(weight.mean()) - exact) < 4.9 * spread, name
        if name in ("local", "gradient"):
            raw = torch.exp(reward(particles.x["filled"]))
            assert abs(float(raw.mean()) - exact) > 4.9 * spread, "without the ratio the weights are wrong"


QUARTERS = torch.tensor([[0.25, 0.75], [0.5, 0.5], [0.75, 0.25]], dtype=F64)


def quarters(x, t):
    """Laws in quarters that belong to no joint law: a network's."""
    code = 3 * (x[:, 0] + 1) + x[:, 1] + 1
    return torch.log(torch.stack([QUARTERS[code % 3], QUARTERS[(code // 2) % 3]], 1))


def to_quarters(x, t):
    """The tilts that turn these laws into others in quarters."""
    return torch.log(QUARTERS[(x + 2) % 3]) - quarters(x, t)


@dataclass(frozen=True)
class Quarters:
    """Stands in for an Rng: particle i is point i of a grid on all the uniform numbers that a run asks for.

    On laws in quarters, the middles of the quarters have exactly their probabilities.
    """

    addresses: list
    purpose: str = ""
    step: int = 0

    def at(self, purpose, *, step=None, inner=None):
        return replace(self, purpose=f"{self.purpose}/{purpose}", step=self.step if step is None else step)

    def uniform(self, shape):
        address = (self.purpose, self.step)
        if address == ("/step/places", 2):  # the last step draws all places
            return torch.full(shape, 0.5, dtype=F64)
        if address not in self.addresses:
            self.addresses.append(address)
        first = 2 * self.addresses.index(address)
        digits = torch.arange(shape[0])[:, None] // 4 ** torch.arange(first, first + 2) % 4
        return (digits + 0.5).double() / 4


def test_the_normaliser_by_enumeration():
    """Every number that one particle can draw: E[weight f] is E[exp(reward) f] under the chain, to 1e-12."""
    model = TokenModel(quarters, Masked(2), 2)
    law = chain_law(model, 2)
    x = torch.cartesian_prod(torch.arange(2), torch.arange(2))
    z = law.flatten() * torch.exp(reward_of_two(x))
    for potential, guide in itertools.product(("difference", "max", "sum"), (None, to_quarters)):
        sampler = ReverseDiscrete(
            model, 2, reward=reward_of_two, guidance=guide, potential=potential, schedule="linear"
        )
        rng: Any = Quarters([])
        particles = sampler.init(rng.at("init", step=0), 4**8)
        for t in (1, 2):
            particles = sampler.step(rng.at("step", step=t), particles)
        assert len(rng.addresses) == 4
        weight = torch.exp(particles.log_weight)
        for k in range(4):
            here = (particles.x["filled"] == x[k]).all(1)
            assert float((weight * here).mean()) == pytest.approx(float(z[k]), rel=1e-12)


def reward_of_two(x):
    return 0.9 * x[:, 0].double() - 0.4 * x[:, 1].double() + 0.8 * (x[:, 0] == x[:, 1]).double()


def test_runs_with_resampling_estimate_the_normaliser_without_bias():
    """80 runs of 20 particles on the linear scale; an error of 5 % would be seen."""
    process, scheme = Masked(V), find_scheme("systematic")
    law = chain_law(joint(process, TABLE), 3)
    for potential, guide in (("difference", LocalReward()), ("max", None), ("sum", LocalReward(0.5))):
        sampler = ReverseDiscrete(
            joint(process, TABLE), 3, reward=reward, guidance=guide, potential=potential, schedule="linear"
        )
        z = []
        for seed in range(80):
            rng = Rng(seed)
            particles = sampler.init(rng.at("init", step=0), 20)
            while not sampler.done(particles):
                index = scheme(rng.at("resample", step=particles.t), particles.log_weight)
                particles = particles.resampled(index)
                particles = sampler.step(rng.at("step", step=particles.t + 1), particles)
            z.append(math.exp(particles.log_evidence))
        z = torch.tensor(z)
        assert abs(float(z.mean()) - value(law)) < 4.9 * float(z.std()) / math.sqrt(80), potential


def test_local_rewards_are_optimal_for_sums_over_independent_places():
    """Weights are equal to the last bits: each is the product of the places' own normalisers."""
    p = torch.softmax(Rng(3).at("p").normal((3, 2)), -1)
    table = p[0, :, None, None] * p[1, :, None] * p[2]
    process = Masked(2)

    def additive(x):
        return BIAS[torch.arange(3), x].sum(1)

    sampler = ReverseDiscrete(
        joint(process, table), 3, reward=additive, guidance="reward", rule=Ordered(), schedule="constant"
    )
    particles, _ = through(sampler, 50)
    exact = float(torch.log((p * torch.exp(BIAS)).sum(1)).sum())
    assert torch.allclose(particles.log_weight, torch.full((50,), exact, dtype=F64), atol=1e-10)
    gradient = ReverseDiscrete(
        joint(process, table),
        3,
        reward=additive,
        guidance=RewardGradient(lambda q: (BIAS * q).sum((1, 2))),
        rule=Ordered(),
        schedule="constant",
    )
    assert torch.allclose(through(gradient, 50)[0].log_weight, torch.full((50,), exact, dtype=F64), atol=1e-10)


def ahead(x):
    """log E[exp(reward) | the tokens that are there], by enumeration."""
    data = torch.cartesian_prod(*[torch.arange(V)] * L)
    fits = ((x[:, None] == data) | (x[:, None] < 0)).all(-1).double() * TABLE.flatten()
    return torch.log((fits @ torch.exp(reward(data))) / fits.sum(1))


def tilts(x, t):
    out = torch.zeros(*x.shape, V, dtype=F64)
    for i, v in itertools.product(range(L), range(V)):
        changed = x.clone()
        changed[:, i] = v
        out[:, i, v] = ahead(changed)
    return out


@pytest.mark.parametrize("by", ["random", "entropy"])
def test_the_optimal_twist_and_tilt_have_no_variance(by):
    """Every weight at every time is the normaliser."""
    process = Masked(V)
    sampler = ReverseDiscrete(
        joint(process, TABLE), L, reward=reward, guidance=tilts, rule=Ordered(by), twist=lambda x, t: ahead(x)
    )
    particles, history = through(sampler, 200)
    exact = math.log(value(TABLE))
    for log_weight in history:
        assert torch.allclose(log_weight, torch.full((200,), exact, dtype=F64), atol=1e-10)
    tilted = TABLE.flatten() * torch.exp(reward(torch.cartesian_prod(*[torch.arange(V)] * L)))
    particles, _ = through(sampler, 20_000)
    assert_law(particles.x["filled"], (tilted / tilted.sum()).reshape(V, V, V))
