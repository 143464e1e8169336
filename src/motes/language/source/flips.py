"""Coin flips and numbers that a language model writes, and their tests."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from motes.core import weights
from motes.core.drive import uninterrupted
from motes.core.run import Run
from motes.core.sample import sample
from motes.errors import MotesError
from motes.language.constraints.parsed import regex
from motes.language.generation.generation import Generation
from motes.language.models.model import LanguageModel, Message
from motes.language.source.bias import bias
from motes.language.source.order import ngrams, runs, serial_correlation
from motes.language.source.prediction import bet
from motes.language.source.result import Examination, check_symbols
from motes.rng import Rng


@dataclass(frozen=True)
class Flips:
    """Sequences that a model wrote.

    Attributes:
        symbols: (N, n) int64, which outcome came, one row a text.
        outcomes: what the numbers stand for.
        log_weight: (N,) float64, of each text.
        run: where they come from.
    """

    symbols: Tensor
    outcomes: tuple[str, ...]
    log_weight: Tensor
    run: Run

    @property
    def shares(self) -> Tensor:
        """(n, outcomes) the weighted share of each outcome at each place."""
        w = weights.normalise(self.log_weight)
        return torch.einsum("i,ijk->jk", w, torch.nn.functional.one_hot(self.symbols, len(self.outcomes)).double())

    def drawn(self, seed: int = 0) -> Tensor:
        """(n,) one of the sequences, drawn by its weight."""
        return self.symbols[int(Rng(seed).at("flips").categorical(self.log_weight, 1))]

    def examine(self, seed: int = 0, **knobs: Any) -> Examination:
        """`examine` of one sequence drawn by its weight: a model's sequences are examined one at a time."""
        return examine(self.drawn(seed), len(self.outcomes), seed=seed, **knobs)


def flips(
    model: LanguageModel,
    prompt: str | Sequence[Message],
    n: int,
    *,
    outcomes: Sequence[str] = ("H", "T"),
    between: str = " ",
    texts: int = 1,
    seed: int = 0,
    max_tokens: int | None = None,
    **generation: Any,
) -> Flips:
    """Let a language model write sequences of n outcomes, as coin flips or digits.

    The text is constrained to n outcomes with `between` between them, and `Generation` weights the texts so that they
    follow the model's own law of such sequences. With n = 1 and many texts the flips are independent, and only their
    bias can be tested; with one long text it is the model's memory that is tested as well.

    Args:
        model: the language model.
        prompt: what asks for the flips.
        n: outcomes a text.
        outcomes: what may come; none may be the beginning of another.
        between: what stands between two of them.
        texts: how many sequences (particles).
        seed: of the run.
        max_tokens: None is room for one token a character.
        generation: passed on to `Generation`, as rules=.

    Raises:
        MotesError: fewer than two outcomes, or one is the beginning of another.

    Example:
        >>> from motes.language import TableModel
        >>> table = TableModel(["H", "T", "."], torch.tensor([0.45, 0.45, 0.1]).log().expand(4, 3))
        >>> flips(table, "", 20, between="").symbols.shape
        torch.Size([1, 20])
    """
    outcomes = tuple(outcomes)
    if len(outcomes) < 2 or any(not a or (a != b and b.startswith(a)) for a in outcomes for b in outcomes):
        raise MotesError(f"outcomes must be at least two, none empty or the beginning of another: {outcomes}")
    if len(set(outcomes)) < len(outcomes) or n < 1:
        raise MotesError(f"outcomes must differ, and n be at least 1: {outcomes}, n={n}")
    one = "(" + "|".join(map(_quoted, outcomes)) + ")"
    pattern = one + (f"({_quoted(between)}{one}){{{n - 1}}}" if n > 1 else "")
    longest = n * max(len(o.encode()) for o in outcomes) + (n - 1) * len(between.encode()) + 1
    task = Generation(model, prompt, constraint=regex(pattern), max_tokens=max_tokens or longest, **generation)
    run = uninterrupted(sample(task, texts, seed=seed, progress=False))
    alive = torch.nonzero(~torch.isneginf(run.log_weight))[:, 0]
    rows = [_parse(run.texts[i], outcomes, between) for i in alive.tolist()]
    return Flips(torch.tensor(rows, dtype=torch.int64), outcomes, run.log_weight[alive], run)


def examine(
    x: Tensor | Sequence[int], kinds: int, *, seed: int = 0, order: int = 2, rounds: int = 999, exact: bool = True
) -> Examination:
    """All tests of one sequence against independent, uniform symbols: bias, runs, serial, n-grams, prediction.

    Bias and prediction test that symbols are uniform; runs, serial correlation and n-grams only that their order is
    random, and stay valid for a biased source.

    Args:
        x: (n,) symbols 0..kinds-1.
        kinds: how many kinds there are.
        seed: of simulations and ties.
        order: the longest context of the bettor, and one less than the longest n-grams.
        rounds: simulations a test.
        exact: break ties at random, so that p-values (but the bettor's) are exactly uniform under the null.

    Example:
        >>> examine([0, 1] * 30, 2)["runs"].p_value <= 0.002
        True
    """
    x = check_symbols(x, kinds, least=order + 2)
    rng, knobs = Rng(seed).at("examine"), {"rounds": rounds, "exact": exact}
    lengths = [m for m in range(2, order + 2) if kinds**m <= 4096]
    tests = [bias(x, kinds, seed=rng, **knobs), runs(x, kinds, seed=rng, **knobs)]
    if kinds > 2:  # for two kinds it is the number of runs, near enough
        tests.append(serial_correlation(x, kinds, seed=rng, **knobs))
    tests += [ngrams(x, kinds, seed=rng, length=m, **knobs) for m in lengths if kinds > 2 or m > 2]
    tests.append(bet(x, kinds, order=order).test())
    return Examination(tuple(tests), len(x))


def _quoted(text: str) -> str:
    return re.escape(text).replace("\\ ", " ")


def _parse(text: str, outcomes: tuple[str, ...], between: str) -> list[int]:
    out, at = [], 0
    while at < len(text):
        found = next(k for k, o in enumerate(outcomes) if text.startswith(o, at))
        out.append(found)
        at += len(outcomes[found]) + len(between)
    return out
