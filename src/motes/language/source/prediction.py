"""Whether the next symbol can be predicted: a bettor that learns as it goes, and whose capital is the evidence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from motes.errors import MotesError
from motes.language.source.result import SourceTest, check_symbols


@dataclass(frozen=True)
class Bet:
    """What a bettor made of a sequence.

    Attributes:
        log_capital: (n + 1,) float64, the log of its capital after each symbol, nats; it begins with 0.
        log_capital_by_order: (orders, n + 1) the same of each of its parts, which start with capital 1 each.
    """

    log_capital: Tensor
    log_capital_by_order: Tensor

    @property
    def e_value(self) -> float:
        """The final capital: its mean over random sequences is 1, so a large one is evidence against them."""
        return math.exp(min(float(self.log_capital[-1]), 700.0))

    @property
    def p_value(self) -> float:
        """One over the highest capital: valid whenever one stops, also because of what was seen (Ville)."""
        return math.exp(-max(float(self.log_capital.max()), 0.0))

    def test(self) -> SourceTest:
        """The bet as a test."""
        best = int(self.log_capital_by_order[:, -1].argmax())
        gain = float(self.log_capital[-1]) / (len(self.log_capital) - 1)
        about = f"capital grows by {gain:+.3f} nats a symbol, best with a context of {best}"
        return SourceTest("prediction", float(self.log_capital[-1]), self.p_value, about)


def bet(x: Tensor | Sequence[int], kinds: int, *, order: int = 2, law: Tensor | None = None) -> Bet:
    """Bet on each next symbol at the odds that the null claims to be fair.

    A predictor of order m estimates q(v | last m symbols) = (count_v + 1/2) / (count + k/2) from what it has seen
    (Krichevsky & Trofimov), and stakes its capital in these shares: after symbol v it has q(v) / p(v) times as much,
    where p is the null's probability. One unit is shared equally among the orders 0, 1, ..., `order`. Under the null,

        E[capital after t | the past] = capital before * sum_v p(v) q(v) / p(v) = capital before,

    a martingale with mean 1, so P(capital ever reaches 1 / alpha) <= alpha. Order 0 finds a bias, higher ones find
    patterns; the true order costs about (k - 1) k^m log(n) / 2 nats to learn.

    Args:
        x: (n,) symbols 0..kinds-1.
        kinds: how many there are, k.
        order: the longest context.
        law: (kinds,) the null's probabilities; None is uniform.

    References:
        Krichevsky & Trofimov (1981), The performance of universal encoding, IEEE Trans. Inf. Theory 27; Shafer (2021),
        Testing by betting, JRSS A 184; Ville (1939), Étude critique de la notion de collectif.

    Example:
        >>> bet([0, 1] * 20, 2).p_value < 1e-4
        True
    """
    symbols = check_symbols(x, kinds, least=1).tolist()
    if not isinstance(order, int) or order < 0:
        raise MotesError(f"order must be a whole number of at least 0, not {order!r}")
    p = [1 / kinds] * kinds if law is None else torch.as_tensor(law).double().tolist()
    if len(p) != kinds or min(p) <= 0 or abs(sum(p) - 1) > 1e-6:
        raise MotesError(f"law must be {kinds} positive probabilities that sum to 1, not {p}")
    parts = torch.zeros(order + 1, len(symbols) + 1, dtype=torch.float64)
    for m in range(order + 1):
        counts: dict[tuple[int, ...], list[int]] = {}
        for t, v in enumerate(symbols):
            seen = counts.setdefault(tuple(symbols[t - m : t]), [0] * kinds) if t >= m else [0] * kinds
            parts[m, t + 1] = parts[m, t] + math.log((seen[v] + 0.5) / (sum(seen) + kinds / 2) / p[v])
            seen[v] += 1
    return Bet(torch.logsumexp(parts, 0) - math.log(order + 1), parts)
