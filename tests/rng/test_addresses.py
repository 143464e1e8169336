"""A number depends on its address, on every part of it, and on nothing else."""

from __future__ import annotations

import math

import pytest
import torch
import torch.distributions as td
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from motes.rng import Rng, routes
from motes.rng.generators import address_hash
from motes.rng.philox import philox4x32
from motes.rng.rng import GENERATORS

N, D = 41, 3
P = torch.linspace(0.05, 0.95, N * D, dtype=torch.float64).reshape(N, D)
LOGITS = torch.stack([torch.sin(torch.arange(6.0) * k) * 3 for k in range(N)]).double()
MIXED = td.MixtureSameFamily(td.Categorical(logits=torch.zeros(2)), td.Normal(torch.tensor([-1.0, 1.0]), 0.3))
MATRIX = torch.tensor([[1.0, 0.0, 0.0], [0.5, 2.0, 0.0], [-0.3, 0.2, 0.7]])

# every draw as a function of an Rng and the places of its particles among 0..N-1
DRAWS = {
    "bits": lambda r, i: r.bits((len(i), D)),
    "uniform": lambda r, i: r.uniform((len(i), D)),
    "uniform32": lambda r, i: r.uniform((len(i), D), torch.float32),
    "normal": lambda r, i: r.normal((len(i), D)),
    "normal of more axes": lambda r, i: r.normal((len(i), 2, 2, 2), torch.float32),
    "normal of no further axis": lambda r, i: r.normal((len(i),)),
    "exponential": lambda r, i: r.exponential((len(i), D)),
    "gumbel": lambda r, i: r.gumbel((len(i), D)),
    "gamma": lambda r, i: r.gamma((len(i), D), P[i] * 4),
    "beta": lambda r, i: r.beta((len(i), D), P[i] * 2, 0.5),
    "dirichlet": lambda r, i: r.dirichlet((len(i),), P[i]),
    "bernoulli": lambda r, i: r.bernoulli(P[i]),
    "binomial": lambda r, i: r.binomial(40, P[i]),
    "poisson": lambda r, i: r.poisson(P[i] * 30),
    "integers": lambda r, i: r.integers((len(i), D), 1000),
    "categorical by row": lambda r, i: r.categorical(LOGITS[i]),
    "categorical n": lambda r, i: r.categorical(LOGITS[0], len(i)),
    "sample student": lambda r, i: r.sample(td.StudentT(torch.tensor(3.0)), len(i)),
    "sample mixture": lambda r, i: r.sample(MIXED, len(i)),
    "sample normal": lambda r, i: r.sample(td.MultivariateNormal(torch.zeros(3), scale_tril=MATRIX), len(i)),
    "sample by particle": lambda r, i: r.sample(td.Weibull(P[i], 2 * P[i]), None),
    "sample multinomial": lambda r, i: r.sample(td.Multinomial(7, logits=LOGITS[0]), len(i)),
    "sample von Mises": lambda r, i: r.sample(td.VonMises(torch.zeros(2), torch.tensor([0.5, 4.0])), len(i)),
}
ALL = torch.arange(N)
BASE = Rng(8, route="reference").at("test", step=3, inner=1)


def same(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(a, b)


@pytest.mark.parametrize("route", routes.available("cpu"))
@pytest.mark.parametrize("kind", DRAWS)
def test_batches_shards_and_routes_change_nothing(kind: str, route: str) -> None:
    draw = DRAWS[kind]
    whole = draw(BASE, ALL)
    r = Rng(8, route=route).at("test", step=3, inner=1)
    for parts in (1, 2, 7):
        pieces = [draw(r.shard(i), i) for i in ALL.tensor_split(parts)]
        assert same(torch.cat(pieces), whole)
    order = torch.argsort((ALL * 17) % N)  # a fixed permutation
    assert same(draw(r.shard(order), order), whole[order])
    assert same(draw(r, torch.arange(9)), whole[:9])
    one = torch.tensor([23])
    assert same(draw(r.shard(one), one), whole[23:24])


@pytest.mark.parametrize("generator", [g for g in GENERATORS if g != "philox4x32-10"])
def test_the_other_generators_are_addressed_alike(generator: str) -> None:
    r = Rng(8, generator=generator).at("test", step=3, inner=1)
    for draw in DRAWS.values():
        whole = draw(r, ALL)
        assert same(torch.cat([draw(r.shard(i), i) for i in ALL.tensor_split(7)]), whole)
        assert not same(whole, draw(BASE, ALL))


def test_the_order_of_calls_changes_nothing() -> None:
    first = {k: f(BASE, ALL) for k, f in DRAWS.items()}
    again = {k: DRAWS[k](BASE, ALL) for k in reversed(DRAWS)}
    assert all(same(first[k], again[k]) for k in DRAWS)


def test_threads_change_nothing() -> None:
    shape, route = (3001, 67), routes.available("cpu")[-1]
    r = Rng(4, route=route)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append((r.normal(shape), r.bits(shape), r.gamma(shape[:1], 0.3)))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(same(a, b) for a, b in zip(results[0], other, strict=True))


def test_a_trailing_axis_is_a_prefix() -> None:
    """Draw j of a particle does not depend on how many draws there are."""
    for kind in ("bits", "uniform", "normal"):
        wide = getattr(BASE, kind)((5, 12))
        for d in range(1, 12):
            assert same(getattr(BASE, kind)((5, d)), wide[:, :d])
    assert same(BASE.gamma((5, 3), 0.7), BASE.gamma((5, 9), 0.7)[:, :3])


def test_shared_numbers_do_not_see_the_shard() -> None:
    sharded = BASE.shard(torch.tensor([7, 30]))
    for draw in (
        lambda r: r.uniform(()), lambda r: r.normal(()), lambda r: r.gamma((), 2.0), lambda r: r.integers((), 9),
        lambda r: r.categorical(LOGITS[1]), lambda r: r.permutation(10), lambda r: r.bernoulli(0.4),
        lambda r: r.poisson(50.0), lambda r: r.poisson(0.5), lambda r: r.beta((), 1.0, 2.0), lambda r: r.bits(()),
    ):  # fmt: skip
        assert same(draw(BASE), draw(sharded))
    assert BASE.uniform(()) != BASE.uniform((1,))[0]  # not the number of particle 0


def test_float32_is_float64_on_a_coarser_grid() -> None:
    u64, u32 = BASE.uniform((9999,)), BASE.uniform((9999,), torch.float32)
    assert float((u64 - u32.double()).abs().max()) <= 2**-24
    for kind in ("normal", "exponential", "gumbel"):
        assert same(getattr(BASE, kind)((999,), torch.float32), getattr(BASE, kind)((999,)).float())


@given(
    st.tuples(st.integers(0, 5), st.integers(0, 4), st.integers(0, 3)),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**32 - 1),
    st.sampled_from(sorted(GENERATORS)),
)
def test_any_shape_is_the_flat_one(shape: tuple[int, ...], seed: int, step: int, generator: str) -> None:
    r = Rng(seed, generator=generator).at("x", step=step)
    flat = r.normal((shape[0], math.prod(shape[1:])))
    assert same(r.normal(shape), flat.reshape(shape))
    assert r.uniform(shape).shape == r.bits(shape).shape == r.gamma(shape, 0.5).shape == torch.Size(shape)


# ------------------------------------------------------------------------------------------------ nesting


def test_purposes_nest_and_steps_replace() -> None:
    r = Rng(1).at("step", step=4)
    assert (r.purpose, r.step, r.inner) == ("step", 4, 0)
    below = r.at("move", inner=2).at("accept")
    assert (below.purpose, below.step, below.inner) == ("step/move/accept", 4, 2)
    assert r.at("x", step=9).step == 9 and r.step == 4
    assert same(below.normal((3,)), Rng(1).at("step/move/accept", step=4, inner=2).normal((3,)))
    assert below.seed == 1 and below.device == torch.device("cpu")
    with pytest.raises(AttributeError):
        r.step = 3  # type: ignore[misc]


def test_hashes_tell_lists_of_parts_apart() -> None:
    assert address_hash("ab", "c") != address_hash("a", "bc") != address_hash("abc")
    assert address_hash(1, "a") != address_hash("a", 1)


def correlation(a: Tensor, b: Tensor) -> float:
    return abs(float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1]))


M = 1 << 16
LIMIT = 5.0 / math.sqrt(M)  # 5 standard deviations, alpha 6e-7; a correlation of 0.04 is found


@pytest.mark.parametrize("generator", GENERATORS)
def test_neighbouring_addresses_are_uncorrelated(generator: str) -> None:
    r = Rng(77, generator=generator).at("a", step=5, inner=5)
    u = r.uniform((M + 1, 2))
    one = u[:M, 0]
    others = {
        "particle": u[1:, 0],
        "draw": u[:M, 1],
        "step": r.at("b", step=6).uniform((M, 1)),
        "seed": Rng(78, generator=generator).at("a", step=5, inner=5).uniform((M, 1)),
        "kind": r.normal((M, 1)),
        "words": r.bits((M, 1)).double(),
    }
    replace_only = Rng(77, generator=generator)
    for name, step, inner in (("next step", 6, 5), ("next inner", 5, 6), ("swapped", 6, 4)):
        others[name] = replace_only.at("a", step=step, inner=inner).uniform((M, 1))
    assert {k: c for k, v in others.items() if (c := correlation(one, v)) > LIMIT} == {}
    # the broken twin: another address by a shift of the stream
    assert correlation(one[1:], u[: M - 1, 0]) < LIMIT < correlation(one[1:], u[1:M, 0] + 0.1 * u[: M - 1, 1])


def flipped(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> float:
    """The mean number of bits of a word that differ."""
    x = torch.stack([p ^ q for p, q in zip(a, b, strict=True)])
    return sum(float(((x >> i) & 1).double().mean()) for i in range(32))


def worst_avalanche(rounds: int) -> float:
    """Over every bit of every counter word and key word: how far the flipped bits are from half, in Philox."""
    n = 512
    base = [torch.arange(n) * m % 2**32 for m in (1, 3, 5, 7)]
    key = (0x9ABCDEF0, 0x12345678)
    one = philox4x32((base[0], base[1], base[2], base[3]), key, rounds)
    worst = 0.0
    for word in range(6):
        for bit in range(32):
            counter, k = list(base), list(key)
            if word < 4:
                counter[word] = counter[word] ^ (1 << bit)
            else:
                k[word - 4] ^= 1 << bit
            two = philox4x32((counter[0], counter[1], counter[2], counter[3]), (k[0], k[1]), rounds)
            worst = max(worst, abs(flipped(one, two) - 16.0))
    return worst


def test_each_bit_of_an_address_flips_half_of_the_bits() -> None:
    # 2048 words of 32 bits: standard deviation sqrt(8 / 2048) = 0.0625 bits; 6.5 of them, 192 comparisons, alpha 2e-8
    assert worst_avalanche(10) < 0.41
    assert worst_avalanche(3) > 4.0  # the broken twin: too few rounds


@pytest.mark.parametrize("generator", [g for g in GENERATORS if g != "philox4x32-10"])
def test_each_bit_of_a_small_counter_flips_half_of_the_bits(generator: str) -> None:
    g = GENERATORS[generator]
    block, particle = torch.arange(1, 2049), torch.arange(2048) * 3 + 1
    key = g.key(5, "a", "bits", 1, 1)
    one = g.block(key, block, particle, 1, 1)
    # 6 standard deviations of 32-bit words (2048 of them at least); a bias of 0.5 bits of 32 is found
    for bit in range(31):
        assert abs(flipped(one, g.block(key, block ^ (1 << bit), particle, 1, 1)) - 16.0) < 0.5
        assert abs(flipped(one, g.block(key, block, particle ^ (1 << bit), 1, 1)) - 16.0) < 0.5
    for step, inner in ((2, 1), (1, 2), (3, 3)):
        assert abs(flipped(one, g.block(g.key(5, "a", "bits", step, inner), block, particle, step, inner)) - 16.0) < 0.5


# ------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Rng(-1), "seed must be"),
        (lambda: Rng(2**64), "seed must be"),
        (lambda: Rng(1.0), "seed must be"),  # type: ignore[arg-type]
        (lambda: Rng(0, generator="mt19937"), "unknown generator 'mt19937'; there are philox4x32-10"),
        (lambda: Rng(0, route="warp"), "unknown route 'warp'; there are auto"),
        (lambda: Rng(0, device="mps"), "device must be cpu or cuda, got mps"),
        (lambda: Rng(0, device="cuda:99"), r"device 'cuda:99' is not here, as torch sees it; there is cpu"),
        (lambda: Rng(0, device="gpu"), "got 'gpu'; there is cpu"),
        (lambda: Rng(0).at(""), "purpose must be"),
        (lambda: Rng(0).at("x", step=-1), "step must be"),
        (lambda: Rng(0).at("x", inner=2**32), "inner must be"),
        (lambda: Rng(0).at("x", step=True), "step must be"),
        (lambda: Rng(0).shard(torch.arange(3.0)), "ids must be an int64 tensor"),
        (lambda: Rng(0).shard(torch.zeros(2, 2, dtype=torch.int64)), "one axis"),
        (lambda: Rng(0).shard(torch.tensor([-1])), "0..2"),
        (lambda: Rng(0).shard(torch.tensor([2**32])), "0..2"),
        (lambda: Rng(0).shard(torch.arange(3)).normal((4,)), r"\(4,\) has 4 particles, but this shard has 3"),
        (lambda: Rng(0).shard(torch.arange(3)).categorical(torch.zeros(5), 4), "this shard has 3"),
        (lambda: Rng(0).normal((3,), torch.float16), "float32 or torch.float64"),
        (lambda: Rng(0).normal((3, 2**30 + 1)), "2.30 draws"),
        (lambda: Rng(0).gamma((3, 2), torch.ones(3)), r"does not expand to \(3, 2\)"),
        (lambda: Rng(0).gamma((3,), torch.tensor([1.0, -1.0, 2.0])), r"positive; it is not at \[\[1\]\]"),
        (lambda: Rng(0).gamma((2,), float("nan")), "must be finite"),
        (lambda: Rng(0).beta((2,), 1.0, float("inf")), "must be finite"),
        (lambda: Rng(0).dirichlet((2,), torch.tensor(1.0)), "axis of categories"),
        (lambda: Rng(0).poisson(torch.tensor([1.0, -1.0])), "not negative"),
        (lambda: Rng(0).poisson(1e12), "above 1e9"),
        (lambda: Rng(0).bernoulli(torch.tensor([0.5, 1.5])), r"not at \[\[1\]\]"),
        (lambda: Rng(0).bernoulli(float("nan")), "must lie in"),
        (lambda: Rng(0).binomial(2.5, 0.5), "be whole"),
        (lambda: Rng(0).integers((3,), 0), "high must lie"),
        (lambda: Rng(0).integers((3,), 2**32 + 1), "high must lie"),
        (lambda: Rng(0).permutation(-1), "must not be negative"),
    ],
)
def test_what_is_refused(call, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()


def test_an_inner_number_below_another_does_not_replace_it():
    rounds = [BASE.at("round", inner=i).at("sweep", inner=k).normal((4,)) for i in range(3) for k in range(3)]
    assert len({tuple(r.tolist()) for r in rounds}) == 9
    assert same(rounds[1], BASE.at("round", inner=0).at("sweep", inner=1).normal((4,)))
    fixed = [BASE.at("round", inner=i).at("shift", step=0, inner=0).normal((4,)) for i in range(3)]
    assert same(fixed[0], fixed[1]) and same(fixed[0], fixed[2])  # a step of its own is another address altogether
