"""How often a model is right, from few questions: the posterior of a proportion, and of weighted answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import torch
from torch import Tensor

from motes.core import weights
from motes.core.cite import cited
from motes.core.estimate.beta import beta_interval, check_level
from motes.core.run import Run
from motes.errors import MotesError, ShapeError

Judge = Callable[[list[str]], Tensor]
"""Maps texts to what they are worth, (n,): true or false, or a number from 0 to 1."""

BOWYER: Final = cited("bowyer2025", "intervals and comparisons of evaluations")


class Counts(NamedTuple):
    """How many answers were right and how many wrong (not how many were asked)."""

    right: float
    wrong: float


Correct = Tensor | Sequence[bool] | Counts
"""(n,) answers, true or false, or numbers from 0 to 1; or how many were right and how many wrong."""


@dataclass(frozen=True)
class Accuracy:
    """A proportion with its posterior interval.

    Attributes:
        estimate: the share that was seen (not the posterior mean).
        mean: the posterior mean.
        low: where the interval begins.
        high: where it ends.
        level: how much of the posterior it holds.
        n: the number of questions, or what the weighted texts are worth as independent ones.
    """

    estimate: float
    mean: float
    low: float
    high: float
    level: float
    n: float

    def __repr__(self) -> str:
        return (
            f"{self.estimate:.3f} ({self.low:.3f} to {self.high:.3f} with {100 * self.level:g} %, "
            f"n = {round(self.n, 1):g})"
        )


def accuracy(
    correct: Correct,
    *,
    level: float = 0.95,
    kind: str = "equal-tailed",
    prior: tuple[float, float] = (1.0, 1.0),
) -> Accuracy:
    """The share of right answers of independent questions, with an interval that is honest for few of them.

    With s of n right and a Beta(a, b) prior, the posterior is Beta(a + s, b + n - s), exactly. The interval never
    leaves [0, 1] and never has width zero, as the one from the central limit theorem has at 0 of n.

    Args:
        correct: (n,) true or false, or numbers from 0 to 1; or `Counts(right=, wrong=)`.
        level: how much of the posterior the interval holds.
        kind: "equal-tailed" or "shortest", see `beta_interval`.
        prior: the Beta prior; (1, 1) is uniform, (0.5, 0.5) is Jeffreys'.

    Raises:
        MotesError: there are no answers, or two bare numbers, which could be right and wrong or right and asked.

    References:
        Bowyer, Aitchison & Ivanova (2025), Position: don't use the CLT in LLM evals, ICML, section 3.1.

    Example:
        >>> accuracy(Counts(right=10, wrong=0))
        1.000 (0.715 to 0.998 with 95 %, n = 10)
    """
    right, wrong = counts(correct)
    return posterior(right, wrong, level, kind, prior)


def accuracy_of_run(
    run: Run | tuple[list[str], Tensor],
    judge: Judge,
    *,
    level: float = 0.95,
    kind: str = "equal-tailed",
    prior: tuple[float, float] = (1.0, 1.0),
) -> Accuracy:
    """How probable a right answer is under the law that a weighted run targets.

    The share p is the weighted mean of what `judge` says. It is worth n = (sum w)^2 / sum w^2 independent answers, and
    the interval is that of n p successes in n. With equal weights that is `accuracy` exactly. Otherwise it is an
    approximation. Where the population was resampled, texts share ancestors, and the weights no longer know; then n is
    at most p (1 - p) / se^2 with the run's own standard error, or where it has none, what the weights of the families
    of first ancestors are worth (few, so that the interval is wide).

    Args:
        run: a run of `Generation`, or texts with their log-weights (N,), not normalised.
        judge: maps a list of texts to (N,) true or false, or numbers from 0 to 1.
        level: how much of the posterior the interval holds.
        kind: "equal-tailed" or "shortest".
        prior: the Beta prior.

    References:
        Bowyer, Aitchison & Ivanova (2025), Position: don't use the CLT in LLM evals, ICML, section 3.1; Kish (1965),
        Survey Sampling, section 11.7, for n.

    Example:
        >>> accuracy_of_run((["4", "4", "5", "4"], torch.zeros(4)), lambda t: torch.tensor([x == "4" for x in t]))
        0.750 (0.284 to 0.947 with 95 %, n = 4)
    """
    share, n = worth(run, judge)
    return posterior(share * n, (1 - share) * n, level, kind, prior)


def worth(run: Run | tuple[list[str], Tensor], judge: Judge) -> tuple[float, float]:
    """The weighted share of right answers, and how many independent answers it is worth, see `accuracy_of_run`."""
    texts, log_weight = (run.texts, run.log_weight) if isinstance(run, Run) else run
    value = check_values(judge(texts), len(texts))
    log_weight = torch.as_tensor(log_weight, dtype=torch.float64)
    if log_weight.shape != value.shape:
        raise ShapeError(f"{len(texts)} texts need log-weights ({len(texts)},), not {tuple(log_weight.shape)}")
    share = min(max(float(weights.normalise(log_weight) @ value), 0.0), 1.0)
    n = weights.ess(log_weight)
    if isinstance(run, Run) and len(torch.unique(run.particles.root)) < run.n:
        se = float(run.mean(lambda _: value).se)
        if math.isfinite(se) and se > 0 and 0 < share < 1:
            n = min(n, max(share * (1 - share) / se**2, 1.0))
        else:
            family = torch.zeros(run.n, dtype=torch.float64).index_add_(0, run.particles.root, run.weight)
            n = min(n, 1 / float(family.square().sum()))
    return share, n


def posterior(right: float, wrong: float, level: float, kind: str, prior: tuple[float, float]) -> Accuracy:
    check_level(level, kind)
    if min(prior) <= 0:
        raise MotesError(f"prior must be two positive numbers, as (1, 1), not {prior}")
    a, b = prior[0] + right, prior[1] + wrong
    n = right + wrong
    return Accuracy(right / n if n else math.nan, a / (a + b), *beta_interval(a, b, level=level, kind=kind), level, n)


def counts(correct: Correct) -> tuple[float, float]:
    """Right and wrong answers, at least one in all.

    Raises:
        MotesError: there are none, or it is not clear what the numbers are.
        ShapeError: they are no vector.
    """
    if isinstance(correct, Counts):
        right, wrong = float(correct.right), float(correct.wrong)
        if not (right >= 0 and wrong >= 0 and right + wrong > 0):
            raise MotesError(f"counts must not be negative, and there must be at least one answer, not {correct}")
        return right, wrong
    if isinstance(correct, tuple) and len(correct) == 2 and not any(isinstance(c, (bool, Tensor)) for c in correct):
        raise MotesError(
            f"{correct} may be right and wrong, right and asked, or two answers: for counts write "
            "Counts(right=..., wrong=...), and give answers as a list"
        )
    if not isinstance(correct, (Tensor, Sequence)) or isinstance(correct, str) or len(correct) == 0:
        raise MotesError(
            f"correct must hold at least one answer, true or false, or be Counts(right=..., wrong=...), not {correct!r}"
        )
    value = torch.as_tensor(correct)
    value = check_values(value, len(value) if value.ndim else 0)
    right = float(value.sum())
    return right, len(value) - right


def check_values(value: object, n: int) -> Tensor:
    """(n,) float64 numbers from 0 to 1, or an error."""
    if not isinstance(value, Tensor) or value.shape != (n,):
        what = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ShapeError(f"what {n} answers are worth must be a tensor ({n},), not {what}")
    value = value.detach().cpu().to(torch.float64)
    if not ((value >= 0) & (value <= 1)).all():
        raise MotesError(
            "what answers are worth must lie between 0 and 1 (0 wrong, 1 right), and not be NaN; for counts write "
            "Counts(right=..., wrong=...)"
        )
    return value
