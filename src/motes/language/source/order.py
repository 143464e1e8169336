"""Whether the order of symbols is random: runs, serial correlation and n-grams against random orders of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from motes.errors import MotesError, check_at_least
from motes.language.source.result import SourceTest, check_symbols, permuted, rank
from motes.rng import Rng
from motes.rng.seed import seeded


def runs(
    x: Tensor | Sequence[int], kinds: int, *, seed: int | Rng, rounds: int = 999, exact: bool = True
) -> SourceTest:
    """Test the number of runs of equal symbols: people and models alternate too much, sticky sources too little.

    Given the counts, all orders of independent symbols are equally likely, so the p-value comes from `rounds` random
    orders of the same symbols: exact whatever the bias is. The expected number is 1 + (n^2 - sum_k n_k^2) / n.

    Args:
        x: (n,) symbols.
        kinds: how many kinds there are.
        seed: for the orders and, with `exact`, for ties.
        rounds: random orders.
        exact: break ties at random, so that p is exactly uniform under the null.

    References:
        Wald & Wolfowitz (1940), On a test whether two samples are from the same population, Ann. Math. Stat. 11.
    """
    rng = seeded(seed)
    x = check_symbols(x, kinds)
    n, count = len(x), torch.bincount(x, minlength=kinds).double()
    expected = 1 + float(n**2 - count.square().sum()) / n
    seen, simulated = permuted(rng.at("runs"), x, lambda b: 1 + (b[:, 1:] != b[:, :-1]).sum(1).double(), rounds)
    p = rank(rng.at("runs") if exact else None, abs(seen - expected), (simulated - expected).abs())
    return SourceTest("runs", seen, p, f"{seen:.0f} runs, {expected:.1f} expected")


def serial_correlation(
    x: Tensor | Sequence[int], kinds: int, *, seed: int | Rng, lag: int = 1, rounds: int = 999, exact: bool = True
) -> SourceTest:
    """Test the correlation of each symbol, as a number, with the one `lag` before it (round the end to the start).

    The p-value is two-sided and from random orders of the same symbols, as for `runs`.

    Args:
        x: (n,) symbols; their numbers matter here.
        kinds: how many kinds there are.
        seed: for the orders and, with `exact`, for ties.
        lag: how far apart.
        rounds: random orders.
        exact: break ties at random.

    References:
        Wald & Wolfowitz (1943), An exact test for randomness in the non-parametric case, Ann. Math. Stat. 14.
    """
    rng = seeded(seed)
    x = check_symbols(x, kinds, least=lag + 2)
    check_at_least(1, lag=lag)
    y = x.double() - x.double().mean()
    scale = max(float(y.square().sum()), 1e-300)
    seen, simulated = permuted(rng.at(f"serial-{lag}"), y, lambda b: (b * b.roll(lag, 1)).sum(1) / scale, rounds)
    middle = -1 / (len(x) - 1)  # its mean over all orders
    ties = rng.at(f"serial-{lag}") if exact else None
    p = rank(ties, abs(seen - middle), (simulated - middle).abs())
    return SourceTest(f"serial correlation at {lag}", seen, p, f"{seen:+.3f}, {middle:+.3f} expected")


def ngrams(
    x: Tensor | Sequence[int], kinds: int, *, seed: int | Rng, length: int = 2, rounds: int = 999, exact: bool = True
) -> SourceTest:
    """Test how often each n-gram comes: Pearson's sum over all k^n of them against independence.

    The statistic is sum (seen - m prod f)^2 / (m prod f), with f the shares of the symbols and m = n - length + 1. Its
    classical law (chi-square) holds neither for few symbols nor for n-grams that overlap; random orders of the same
    symbols give an exact p-value for both.

    Args:
        x: (n,) symbols.
        kinds: how many kinds there are.
        seed: for the orders and, with `exact`, for ties.
        length: of the n-grams.
        rounds: random orders.
        exact: break ties at random.

    References:
        Good (1953), The serial test for sampling numbers and other tests for randomness, Math. Proc. Camb. 49.
    """
    rng = seeded(seed)
    x = check_symbols(x, kinds, least=length + 1)
    if length < 2 or kinds**length > 4096:
        raise MotesError(f"n-grams of {length} of {kinds} kinds: length must be at least 2, and at most 4096 n-grams")
    share = torch.bincount(x, minlength=kinds).double() / len(x)
    expected = torch.ones(1, dtype=torch.float64)
    for _ in range(length):
        expected = torch.outer(expected, share).flatten()
    m = len(x) - length + 1
    inverse = torch.where(expected > 0, 1 / (m * expected), 0.0)

    def pearson(batch: Tensor) -> Tensor:
        code = torch.zeros(len(batch), m, dtype=torch.int64)
        for j in range(length):
            code = code * kinds + batch[:, j : j + m]
        count = torch.zeros(len(batch), kinds**length, dtype=torch.float64)
        count.scatter_add_(1, code, torch.ones(len(batch), m, dtype=torch.float64))
        return ((count - m * expected).square() * inverse).sum(1)

    seen, simulated = permuted(rng.at(f"ngrams-{length}"), x, pearson, rounds)
    p = rank(rng.at(f"ngrams-{length}") if exact else None, seen, simulated)
    about = f"chi-square {seen:.1f}, {float(simulated.mean()):.1f} expected"
    return SourceTest(f"{length}-grams", seen, p, about)
