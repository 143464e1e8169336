"""What a test of a random source says, and a table of several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from motes.errors import MotesError, ShapeError
from motes.rng import Rng


@dataclass(frozen=True)
class SourceTest:
    """One test of a sequence.

    Attributes:
        name: what was tested.
        statistic: what was computed.
        p_value: the probability of a statistic at least as extreme under the null; at most a share alpha of random
            sequences has one of alpha or less.
        about: the statistic in words.
    """

    name: str
    statistic: float
    p_value: float
    about: str

    def __repr__(self) -> str:
        return f"{self.name}: {self.about} (p = {self.p_value:.2g})"


@dataclass(frozen=True)
class Examination:
    """Several tests of one source; `p_value` is for all together."""

    tests: tuple[SourceTest, ...]
    n: int

    @property
    def p_value(self) -> float:
        """Bonferroni's: the smallest times how many tests there are, at most 1. Valid however they depend."""
        return min(1.0, len(self.tests) * min(t.p_value for t in self.tests))

    def __getitem__(self, name: str) -> SourceTest:
        found = [t for t in self.tests if t.name == name]
        if not found:
            raise MotesError(f"no test is called {name!r}; there are: {', '.join(t.name for t in self.tests)}")
        return found[0]

    def __repr__(self) -> str:
        lines = [f"{self.n} symbols, p = {self.p_value:.2g} for all tests together", *map(repr, self.tests)]
        return "\n  ".join(lines)


def rank(rng: Rng | None, observed: float, simulated: Tensor) -> float:
    """The p-value of `observed` among B numbers that the null made: (1 + #{>= observed}) / (B + 1).

    Under the null all B + 1 are exchangeable, so P(p <= alpha) <= alpha exactly, with equality at alpha = j / (B + 1)
    without ties. With `rng` ties and the grid are broken by a uniform number, and p is exactly uniform.

    References:
        Phipson & Smyth (2010), Permutation p-values should never be zero, Stat. Appl. Genet. Mol. Biol. 9(1).
    """
    slack = 1e-9 * max(1.0, abs(observed))
    above = int((simulated > observed + slack).sum())
    ties = int((simulated >= observed - slack).sum()) - above
    if rng is None:
        return (1 + above + ties) / (len(simulated) + 1)
    return (above + float(rng.at("ties").uniform(())) * (1 + ties)) / (len(simulated) + 1)


def permuted(rng: Rng, x: Tensor, statistic: Callable[[Tensor], Tensor], rounds: int) -> tuple[float, Tensor]:
    """The statistic of x (n,) and of `rounds` random orders of it; it maps (B, n) to (B,)."""
    order = rng.at("order").uniform((rounds, len(x))).argsort(1)
    return float(statistic(x[None])[0]), statistic(x[order])


def check_symbols(x: Tensor | Sequence[int], kinds: int, least: int = 2) -> Tensor:
    """(n,) int64 in 0..kinds-1, or an error."""
    x = torch.as_tensor(x)
    if x.ndim != 1 or x.is_floating_point():
        raise ShapeError(f"symbols must be whole numbers (n,), not {tuple(x.shape)} of {x.dtype}")
    x = x.to(torch.int64)
    if kinds < 2:
        raise MotesError(f"a random source needs at least 2 kinds of symbols, not {kinds}")
    if len(x) < least:
        raise MotesError(f"{len(x)} symbols are too few to test: at least {least} are needed")
    if int(x.min()) < 0 or int(x.max()) >= kinds:
        raise MotesError(f"symbols must lie in 0..{kinds - 1}, found {int(x.min())}..{int(x.max())}")
    return x
