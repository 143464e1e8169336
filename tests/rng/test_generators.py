"""The generators against printed vectors, an independent library and a second implementation in plain Python."""

from __future__ import annotations

import itertools
from hashlib import blake2b

import mpmath
import numpy as np
import pytest
import torch

from motes.rng import Rng, check, routes, self_test
from motes.rng.philox import philox4x32
from motes.rng.rng import GENERATORS
from motes.rng.squares import squares32, squares64, squares_key

MASK = 0xFFFFFFFF
ANSWERS = check.known_answers()
ROUTES = routes.available("cpu")


@pytest.mark.parametrize("name", GENERATORS)
def test_published_vectors(name: str) -> None:
    assert len(ANSWERS["published"][name]) >= 1
    assert list(check.published(name, ANSWERS["published"][name])) == []


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("name", GENERATORS)
def test_known_answers_by_address(name: str, route: str) -> None:
    cases = [c for c in ANSWERS["address"] if c["generator"] == name]
    assert len(cases) == 2
    assert list(check.addressed(Rng(0, generator=name, route=route), cases)) == []


def test_self_test_covers_every_route_and_finds_a_changed_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    result = self_test()
    assert set(result) == {
        *(f"{g} (published)" for g in GENERATORS), *(f"{g} ({r}, cpu)" for g in GENERATORS for r in ROUTES)
    }  # fmt: skip
    assert not any(result.values())
    wrong = check.known_answers()
    wrong["published"]["squares32"][0]["out"][2] = "c8a8f4e1"
    wrong["address"][0]["draws"]["normal"]["float64"][1][3] = (1.0).hex()
    monkeypatch.setattr(check, "known_answers", lambda: wrong)
    broken = {name for name, fault in self_test().items() if fault}
    assert broken == {"squares32 (published)", *(f"philox4x32-10 ({r}, cpu)" for r in ROUTES)}


# ------------------------------------------------------------------------------------------------ a second opinion


def python_philox(counter: list[int], key: int, rounds: int = 10) -> list[int]:
    c, k = list(counter), [key & MASK, key >> 32]
    for _ in range(rounds):
        p, q = c[0] * 0xD2511F53, c[2] * 0xCD9E8D57
        c = [(q >> 32) ^ c[1] ^ k[0], q & MASK, (p >> 32) ^ c[3] ^ k[1], p & MASK]
        k = [(k[0] + 0x9E3779B9) & MASK, (k[1] + 0xBB67AE85) & MASK]
    return c


def python_key(seed: int, *texts: str) -> int:
    h = blake2b(digest_size=8, person=b"motes.rng")
    for data in (seed.to_bytes(8, "little"), *(t.encode() for t in texts)):
        h.update(len(data).to_bytes(4, "little") + data)
    return int.from_bytes(h.digest(), "little")


@pytest.mark.parametrize("kind", ["bits", "uniform", "normal", "exponential", "gumbel"])
def test_an_address_by_the_documented_rule(kind: str) -> None:
    """Key, counter and numbers of the normative generator, computed again with Python integers and mpmath."""
    seed, step, inner = 20260101, 17, 5
    rng = Rng(seed).at("move").at("proposal", step=step, inner=inner)
    found = getattr(rng, kind)((3, 7)).tolist()
    key = python_key(seed, "philox4x32-10", "move/proposal", kind)
    mpmath.mp.dps = 30
    for particle in range(3):
        words = [w for b in range(4) for w in python_philox([b, particle, step, inner], key)]
        for draw in range(7):
            if kind == "bits":
                assert found[particle][draw] == words[draw]
                continue
            u = mpmath.mpf((words[2 * draw] << 20 | words[2 * draw + 1] >> 12) * 2 + 1) / 2**53
            must = {
                "uniform": lambda u: u,
                "normal": lambda u: mpmath.sqrt(2) * mpmath.erfinv(2 * u - 1),
                "exponential": lambda u: -mpmath.log(u),
                "gumbel": lambda u: -mpmath.log(-mpmath.log(u)),
            }[kind](u)
            # a Gumbel number near 0 comes from a logarithm near 1, so its error is absolute
            size = {"uniform": 0, "gumbel": max(1, abs(must))}.get(kind, abs(must))
            assert abs(found[particle][draw] - must) <= 2e-15 * size


def test_philox_and_threefry_against_randomgen() -> None:
    randomgen = pytest.importorskip("randomgen")
    counter, key = 0x0123456789ABCDEF_FEDCBA9876543210, 0xA4093822299F31D0
    # it steps before it draws, so the first block is that of the counter plus one
    oracle = randomgen.Philox(counter=counter - 1, key=key, number=4, width=32).random_raw(64 * 4)
    block = torch.arange(64) + (counter & MASK)
    rest = [torch.full_like(block, (counter >> s) & MASK) for s in (32, 64, 96)]
    ours = torch.stack(philox4x32((block, *rest), (key & MASK, key >> 32)), -1).flatten()
    assert ours.tolist() == [int(w) for w in oracle]

    oracle = randomgen.ThreeFry(counter=99, key=key, number=2, width=32).random_raw(64 * 2)
    block, zero = torch.arange(64) + 100, torch.zeros((), dtype=torch.int64)
    found = GENERATORS["threefry2x32-20"].block((key & MASK, key >> 32), block, zero, 0, 0)
    assert torch.stack(found, -1).flatten().tolist() == [int(w) for w in oracle]


def test_squares_against_randomgen() -> None:
    randomgen = pytest.importorskip("randomgen")
    keys = randomgen.squares.generate_keys(5, 4)
    for key in map(int, keys):
        halved = (key & MASK, key >> 32)
        counter = torch.arange(200)
        oracle = randomgen.Squares(key=key, counter=0, variant=64).random_raw(200)
        high, low = squares64(counter, halved)
        assert [(h << 32) | w for h, w in zip(high.tolist(), low.tolist(), strict=True)] == [int(w) for w in oracle]
        # two words at a time, the lower half first
        oracle = randomgen.Squares(key=key, counter=0, variant=32).random_raw(100)
        assert squares32(counter, halved).tolist() == [(int(w) >> s) & MASK for w in oracle for s in (0, 32)]


# ------------------------------------------------------------------------------------------------ the key rule


def follows_the_rule(key: int) -> bool:
    digits = [(key >> (4 * i)) & 15 for i in range(16)]
    return (
        digits[0] % 2 == 1
        and all(digits)
        and len(set(digits[:8])) == 8
        and all(a != b for a, b in itertools.pairwise(digits[7:]))
    )


def test_squares_keys_follow_the_rule() -> None:
    generator = GENERATORS["squares64"]
    halved = [generator.key(seed, "a", "bits", step, 0) for seed in range(60) for step in range(9)]
    keys = [low | high << 32 for low, high in halved]
    assert len(set(keys)) == len(keys)
    assert all(map(follows_the_rule, keys))
    assert follows_the_rule(0x548C9DECBCE65297) and not follows_the_rule(0x548C9DECBCE65296)
    # the first and the last number of the mixed radix, and that digits above the lowest eight may come again
    total = 8 * (14 * 13 * 12 * 11 * 10 * 9 * 8) * 14**8
    assert squares_key(0) == squares_key(total) and squares_key(total - 1) != squares_key(0)
    assert follows_the_rule(squares_key(0)) and follows_the_rule(squares_key(total - 1))
    used = np.bincount([(k >> (4 * i)) & 15 for k in keys for i in range(8, 16)], minlength=16)
    assert used[0] == 0 and used[1:].min() > 0.7 * used[1:].mean()
