"""Whether every symbol comes as often as it should."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from motes.errors import MotesError
from motes.language.source.result import SourceTest, check_symbols, rank
from motes.rng import Rng
from motes.rng.seed import seeded


def bias(
    x: Tensor | Sequence[int],
    kinds: int,
    *,
    seed: int | Rng,
    law: Tensor | None = None,
    rounds: int = 999,
    exact: bool = True,
) -> SourceTest:
    """Test how often symbols come against what they should: uniform, or `law`.

    Two kinds: the exact two-sided binomial test, p = sum of all P(count) that do not exceed that of the count seen.
    More: Pearson's chi-square, with its p-value from `rounds` simulated sequences, which is exact for any n.

    Args:
        x: (n,) symbols 0..kinds-1.
        kinds: how many there are.
        seed: for the simulation and, with `exact`, for ties.
        law: (kinds,) what they should come with; None is uniform.
        rounds: simulated sequences.
        exact: break ties at random, which makes p exactly uniform under the null; without, it is a little larger.

    Example:
        >>> bias(torch.tensor([1] * 9 + [0]), 2, seed=Rng(0), exact=False)
        bias: symbol 1 comes 9 of 10 times (p = 0.021)
    """
    rng = seeded(seed)
    x = check_symbols(x, kinds, least=1)
    p = torch.full((kinds,), 1 / kinds, dtype=torch.float64) if law is None else torch.as_tensor(law).double()
    if p.shape != (kinds,) or not (p > 0).all() or abs(float(p.sum()) - 1) > 1e-6:
        raise MotesError(f"law must be {kinds} positive probabilities that sum to 1, not {p.tolist()}")
    n, count = len(x), torch.bincount(x, minlength=kinds).double()
    ties = rng.at("bias") if exact else None
    if kinds == 2:
        p_value = binomial_p(int(count[1]), n, float(p[1]), ties)
    else:
        drawn = rng.at("bias").categorical(p.log(), rounds * n).view(rounds, n)
        simulated = torch.zeros(rounds, kinds, dtype=torch.float64).scatter_add_(
            1, drawn, torch.ones(rounds, n).double()
        )
        p_value = rank(ties, float(_pearson(count, n * p)), _pearson(simulated, n * p))
    most = int((count - n * p).argmax()) if kinds > 2 else 1
    about = f"symbol {most} comes {int(count[most])} of {n} times"
    return SourceTest("bias", float(_pearson(count, n * p)), p_value, about)


def binomial_p(successes: int, n: int, p: float, rng: Rng | None = None) -> float:
    """The exact two-sided binomial test; with `rng` the ties, the count itself included, count a uniform share."""
    k = torch.arange(n + 1, dtype=torch.float64)
    log_pmf = math.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma(n - k + 1)
    log_pmf = log_pmf + k * math.log(p) + (n - k) * math.log1p(-p)
    pmf, seen = log_pmf.exp(), log_pmf[successes]
    less = log_pmf < seen - 1e-9
    equal = (log_pmf - seen).abs() <= 1e-9
    share = 1.0 if rng is None else float(rng.at("ties").uniform(()))
    return min(1.0, float(pmf[less].sum() + share * pmf[equal].sum()))


def _pearson(count: Tensor, expected: Tensor) -> Tensor:
    return ((count - expected).square() / expected).sum(-1)
