"""A model with a window of K tokens as a Markov chain: where it settles, and how fast, by temperature."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from itertools import product
from typing import ClassVar

import torch
from torch import Tensor

from motes.core.cite import Reference, cited
from motes.errors import MotesError, ShapeError
from motes.language.models.table import TableModel
from motes.rng import Rng

MOST = 1024
"""States of a chain; its transition matrix is dense."""


@dataclass(frozen=True)
class WindowChain:
    """The Markov chain that a language model is when it sees its last K tokens only.

    States are the V^K windows of K tokens. From s, token v comes with probability p(v | s)^(1/T) / sum, and leads to s
    without its first token and with v behind it. The end token is one like others: the model writes on after it.
    Texts shorter than K are left for good after K tokens, and so have no part in what is computed here.

    With all probabilities positive there is one stationary law, and K steps lead from any text s to any window u with
    at least p_min^K. Hence P^K(s, .) >= delta U with U uniform and delta = V^K p_min^K (Doeblin), and two texts can be
    coupled with probability delta every K steps: TV(P^t(s, .), pi) <= (1 - delta)^floor(t / K). A higher temperature
    raises p_min, so the bound falls faster.

    Everything is exact up to rounding; matrices are float64.

    Args:
        law: maps a window (a tuple of K tokens) to (V,) logits or log-probabilities, or a `TableModel`.
        window: K.
        vocabulary: V; taken from a `TableModel`.
        temperature: T > 0.

    Raises:
        MotesError: there are more than 1024 windows, or a value is out of range.

    References:
        Zekri, Odonnat, Benechehab, Bleistein, Boullé & Redko (2024), Large language models as Markov chains,
        arXiv 2410.02724, section 3; Levin, Peres & Wilmer (2017), Markov Chains and Mixing Times, sections 4 and 5.

    Example:
        >>> table = TableModel(["a", "b"], torch.tensor([[0.9, 0.1], [0.3, 0.7], [0.5, 0.5]]).log())
        >>> [round(float(p), 3) for p in WindowChain(table, 1).stationary]
        [0.75, 0.25]
    """

    law: TableModel | Callable[[tuple[int, ...]], Tensor]
    window: int
    _: KW_ONLY
    vocabulary: int | None = None
    temperature: float = 1.0

    references: ClassVar[tuple[Reference, ...]] = (cited("zekri2024", "a language model as a Markov chain"),)

    def __post_init__(self) -> None:
        if isinstance(self.law, TableModel):
            object.__setattr__(self, "vocabulary", self.law.vocabulary)
        if not isinstance(self.vocabulary, int) or self.vocabulary < 1:
            raise MotesError("a function of the window needs vocabulary=, the number of tokens")
        if not isinstance(self.window, int) or self.window < 1:
            raise MotesError(f"window must be a whole number of at least 1, not {self.window!r}")
        if not (self.temperature > 0 and math.isfinite(self.temperature)):
            raise MotesError(f"temperature must be positive and finite, not {self.temperature!r}")
        if self.size**self.window > MOST:
            raise MotesError(
                f"{self.size} tokens and a window of {self.window} make {self.size**self.window} states, more than "
                f"{MOST}: take a shorter window, or fewer tokens (a function that sums over classes of them)"
            )

    @property
    def size(self) -> int:
        """V, the number of tokens."""
        assert self.vocabulary is not None
        return self.vocabulary

    @cached_property
    def states(self) -> list[tuple[int, ...]]:
        """The windows, in the order of the matrices: the last token changes fastest."""
        return list(product(range(self.size), repeat=self.window))

    @cached_property
    def next_token(self) -> Tensor:
        """(V^K, V) next-token probabilities."""
        row = self.law.row if isinstance(self.law, TableModel) else self.law
        logits = [torch.as_tensor(row(s), dtype=torch.float64) for s in self.states]
        if any(r.shape != (self.size,) for r in logits):
            bad = next(s for s, r in zip(self.states, logits, strict=True) if r.shape != (self.size,))
            raise ShapeError(f"the law after {bad} must have {self.size} numbers")
        p = torch.softmax(torch.stack(logits) / self.temperature, 1)
        if torch.isnan(p).any():
            bad = self.states[int(torch.nonzero(torch.isnan(p).any(1))[0, 0])]
            raise MotesError(f"the law after {bad} is NaN, or has no token")
        return p

    @cached_property
    def transition(self) -> Tensor:
        """(V^K, V^K) transition probabilities."""
        count = len(self.states)
        out = torch.zeros(count, count, dtype=torch.float64)
        after = (torch.arange(count)[:, None] * self.size + torch.arange(self.size)) % count
        return out.scatter_(1, after, self.next_token)

    @cached_property
    def stationary(self) -> Tensor:
        """(V^K,) the stationary law, from the linear system pi P = pi, sum pi = 1.

        Raises:
            MotesError: there are several, because some windows cannot be reached from others.
        """
        count = len(self.states)
        still = self.transition.T - torch.eye(count, dtype=torch.float64)
        if (self.next_token == 0).any() and int(torch.linalg.matrix_rank(still, rtol=1e-12)) < count - 1:
            raise MotesError(
                "the chain has more than one stationary law: some windows never lead to others (probabilities of zero)"
            )
        still[-1] = 1  # the equations add up to zero, so one of them makes room for sum pi = 1
        right = torch.zeros(count, dtype=torch.float64)
        right[-1] = 1
        pi = torch.linalg.solve(still, right).clamp_min(0)
        return pi / pi.sum()

    @cached_property
    def token_law(self) -> Tensor:
        """(V,) how often each token comes in the long run."""
        return self.stationary @ self.next_token

    @cached_property
    def entropy_rate(self) -> float:
        """Nats a token in the long run."""
        entropy = torch.special.entr(self.next_token).sum(1)
        return float(self.stationary @ entropy)

    @cached_property
    def second_eigenvalue(self) -> float:
        """The second largest modulus of an eigenvalue: distances shrink by about this factor a step in the end."""
        moduli = torch.linalg.eigvals(self.transition).abs().sort(descending=True).values
        return float(moduli[1]) if len(moduli) > 1 else 0.0

    def after(self, steps: int, start: Tensor | None = None) -> Tensor:
        """(V^K,) the law after `steps` tokens, from `start` (V^K,) or the uniform law (power iteration)."""
        p = torch.full((len(self.states),), 1 / len(self.states), dtype=torch.float64) if start is None else start
        for _ in range(steps):
            p = p @ self.transition
        return p

    def distance(self, steps: int) -> float:
        """max_s TV(P^t(s, .), pi) after t = `steps` tokens, the worst window to start from."""
        return self._distance(torch.linalg.matrix_power(self.transition, steps))

    def mixing_time(self, within: float = 0.25) -> int:
        """The fewest tokens after which every start is `within` total variation of the stationary law.

        Raises:
            MotesError: the chain is not there after 2^40 tokens (it is periodic, or falls apart).
        """
        if not 0 < within < 1:
            raise MotesError(f"within must lie between 0 and 1, not {within!r}")
        powers = [self.transition]
        while self._distance(powers[-1]) > within:
            if len(powers) == 40:
                raise MotesError("the chain does not come near its stationary law: it is periodic, or falls apart")
            powers.append(powers[-1] @ powers[-1])
        if len(powers) == 1:
            return int(self._distance(torch.eye(len(self.states), dtype=torch.float64)) > within)
        reached, steps = powers[-2], 2 ** (len(powers) - 2)  # distances fall, so the first step is found by halving
        for k in range(len(powers) - 3, -1, -1):
            further = reached @ powers[k]
            if self._distance(further) > within:
                reached, steps = further, steps + 2**k
        return steps + 1

    def _distance(self, power: Tensor) -> float:
        return float(0.5 * (power - self.stationary).abs().sum(1).max())

    @property
    def doeblin(self) -> float:
        """delta = V^K p_min^K: what every window shares with the uniform law after K tokens."""
        return float((self.size * self.next_token.min()) ** self.window)

    def bound(self, steps: int) -> float:
        """(1 - delta)^floor(t / K), which `distance(t)` never exceeds."""
        return (1 - self.doeblin) ** (steps // self.window)

    def write(self, rng: Rng, n: int, steps: int, start: tuple[int, ...] | None = None) -> Tensor:
        """Tokens (n, steps) int64 that the chain writes, n independent times, from `start` or the first window."""
        at = torch.full((n,), 0 if start is None else self.states.index(start), dtype=torch.int64)
        log_law, out = self.next_token.log(), torch.empty(n, steps, dtype=torch.int64)
        for t in range(steps):
            out[:, t] = rng.at("write", step=t).categorical(log_law[at])
            at = (at * self.size + out[:, t]) % len(self.states)
        return out
