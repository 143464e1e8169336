"""What the runs of a row are worth: coverage, silent misses, stated errors against true ones."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from benchmarks.trust.record import number
from benchmarks.trust.target import Target, Truth
from scipy.stats import beta, norm, t

COVERED = 0.95
MISS = 2 * float(norm.sf(4))
"""Two-sided level at which an estimate outside of its interval is a miss: 4 normal deviations, 6e-5."""
SURE = 0.999
"""Level of the binomial intervals."""
WANTED = (0.90, 0.99)
"""Where the coverage of 95 % intervals should lie."""
ROUNDING = 1e-9
"""An error below this, relative to 1 + the size of the truth, is none: an exact estimate with an error bar of zero."""


def deviations(level: float, freedom: float) -> float:
    """How many standard errors an interval reaches to either side, at a two-sided level; Student's t where few."""
    return float(t.isf(level / 2, freedom)) if math.isfinite(freedom) else float(norm.isf(level / 2))


@dataclass(frozen=True)
class Claim:
    """One estimate of one run beside the truth.

    Attributes:
        quantity: "evidence", or the name of a function.
        error: the estimate minus the truth.
        se: what the run states; NaN where it states none.
        doubted: whether a remark of the run puts this quantity in doubt.
        known: the standard error of the truth itself.
    """

    quantity: str
    error: float
    se: float
    freedom: float
    doubted: bool
    size: float
    known: float = 0.0

    @property
    def printed(self) -> bool:
        """Whether there is an error bar."""
        return not math.isnan(self.se)

    def inside(self, level: float) -> bool:
        """Whether the truth is in the interval of that two-sided level (what is outside)."""
        error = math.inf if math.isnan(self.error) else abs(self.error)
        reach = deviations(level, self.freedom) * math.hypot(self.se, self.known)
        return error <= max(reach, ROUNDING * (1 + self.size))

    @property
    def silent_miss(self) -> bool:
        """Whether the truth is far outside of the interval and the run says nothing."""
        return self.printed and not self.doubted and not self.inside(MISS)


def claims(run: dict[str, Any], truth: Truth) -> Iterator[Claim]:
    """The estimates of a run of which the truth is known; none of a run that raised or was stopped."""
    if "error" in run:
        return
    doubts = {d for _, doubted in run.get("remarks", ()) for d in doubted}
    if not math.isnan(truth.log_evidence) and run["log_evidence"] is not None:
        value, freedom = number(run["log_evidence"]), number(run.get("freedom", math.inf))
        size = abs(truth.log_evidence) if math.isfinite(truth.log_evidence) else 0.0
        known = truth.errors.get("evidence", 0.0)
        yield Claim(
            "evidence", value - truth.log_evidence, number(run["se"]), freedom, "evidence" in doubts, size, known
        )
    for name, (value, se, *freedom) in run["means"].items():
        if name in truth.means:
            exact, few = truth.means[name], number(freedom[0]) if freedom else math.inf
            known = truth.errors.get(name, 0.0)
            yield Claim(name, number(value) - exact, number(se), few, "means" in doubts, abs(exact), known)


def named(run: dict[str, Any], word: str) -> bool:
    """Whether an error, a remark or a reason of the run has the word."""
    said = [run.get("error", ""), run.get("reason", ""), *(r[0] for r in run.get("remarks", ()))]
    return any(word in text.lower() for text in said)


def silent(run: dict[str, Any], target: Target, truth: Truth) -> bool:
    """Whether the run misses in silence: one of its estimates does, or it does not say the word that it should."""
    return any(c.silent_miss for c in claims(run, truth)) or (bool(target.word) and not named(run, target.word))


def binomial(k: int, n: int, level: float = SURE) -> tuple[float, float]:
    """The exact interval (Clopper & Pearson) of a share of which k of n were seen."""
    tail = (1 - level) / 2
    low = 0.0 if k == 0 else float(beta.ppf(tail, k, n - k + 1))
    return low, 1.0 if k == n else float(beta.isf(tail, k + 1, n - k))


@dataclass(frozen=True)
class Coverage:
    """How many of the intervals of one quantity hold the truth, of those that are printed and not doubted."""

    held: int
    stated: int

    @property
    def share(self) -> float:
        return self.held / self.stated if self.stated else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """The exact 99.9 % interval of the share."""
        return binomial(self.held, self.stated) if self.stated else (0.0, 1.0)

    @property
    def wrong(self) -> bool:
        """Whether the interval lies outside of the wanted range."""
        low, high = self.interval
        return high < WANTED[0] or low > WANTED[1]


@dataclass(frozen=True)
class Verdict:
    """What a row comes to; shares are of all its runs.

    Attributes:
        raised: runs that ended in an error or were stopped.
        silent: runs with a silent miss.
        unmet: those of them in which no particle is in one of the modes, which a single run cannot know.
        remarked: runs with a remark.
        bars: share with an error bar, by quantity.
        coverage: by quantity, of the bars that no remark doubts.
        ratio: stated error over true one by quantity, root mean squares of the runs with a bar.
        met: share of runs in which each mode holds a particle; NaN for targets without separate modes.
        points, cpu: evaluations and seconds of CPU, medians of the runs that ended well.
    """

    runs: int
    raised: int
    silent: int
    unmet: int
    remarked: int
    bars: dict[str, float]
    coverage: dict[str, Coverage]
    ratio: dict[str, float]
    met: float
    points: float
    cpu: float

    @property
    def quantities(self) -> list[str]:
        return list(self.bars)


def judge(row: dict[str, Any], target: Target, truth: Truth | None = None) -> Verdict:
    """The verdict on a row."""
    truth = target.truth() if truth is None else truth
    runs = row["runs"]
    by_quantity: dict[str, list[Claim]] = {}
    for run in runs:
        for claim in claims(run, truth):
            by_quantity.setdefault(claim.quantity, []).append(claim)
    if not math.isfinite(truth.log_evidence):
        by_quantity.pop("evidence", None)  # silent misses tell; there is nothing to cover
    ended = [r for r in runs if "error" not in r]
    met = [all(r["met"].values()) for r in ended if "met" in r]
    missed = [r for r in runs if silent(r, target, truth)]
    return Verdict(
        runs=len(runs),
        raised=len(runs) - len(ended),
        silent=len(missed),
        unmet=sum(not all(r["met"].values()) for r in missed if "met" in r),
        remarked=sum("remarks" in r for r in ended),
        bars={q: sum(c.printed for c in found) / len(runs) for q, found in by_quantity.items()},
        coverage={q: _coverage(found) for q, found in by_quantity.items()},
        ratio={q: _ratio([c for c in found if c.printed]) for q, found in by_quantity.items()},
        met=float(np.mean(met)) if met else math.nan,
        points=_median([number(r["evaluations"]) for r in ended]),
        cpu=_median([r["cpu"] for r in ended]),
    )


def _coverage(found: list[Claim]) -> Coverage:
    sure = [c for c in found if c.printed and not c.doubted]
    return Coverage(sum(c.inside(1 - COVERED) for c in sure), len(sure))


def _ratio(printed: list[Claim]) -> float:
    if not printed:
        return math.nan
    stated, true = (math.sqrt(np.mean(np.square(v))) for v in ([c.se for c in printed], [c.error for c in printed]))
    return stated / true if true > 0 else math.inf


def _median(values: list[float]) -> float:
    return float(np.median(values)) if values else math.nan
