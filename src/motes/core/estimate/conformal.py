"""The threshold of split conformal prediction: quantiles that cover with a promise, whatever the law."""

from __future__ import annotations

import math
from fractions import Fraction

import torch
from torch import Tensor

from motes.errors import MotesError, ShapeError


def conformal_quantile(score: Tensor, alpha: float) -> float:
    """The threshold below which a new score falls with probability at least 1 - alpha; +inf if n is too small.

    The ceil((n + 1)(1 - alpha))-th smallest of n calibration scores. The plain (1 - alpha) quantile covers too little:
    interpolated between 9 scores, that for alpha = 0.1 covers 0.82. For n + 1 < 1 / alpha nothing finite covers.
    The rank is computed in exact arithmetic, since
    (n + 1)(1 - alpha) can exceed a whole number by a rounding error.

    Exactly: if the n + 1 scores are exchangeable without ties, coverage is ceil((n + 1)(1 - alpha)) / (n + 1).

    References:
        Vovk, Gammerman & Shafer (2005), Algorithmic learning in a random world; Angelopoulos & Bates (2023), Conformal
        prediction: a gentle introduction, section 1.

    Args:
        score: (n,) calibration scores, large where the truth is strange.
        alpha: the share of misses that is allowed, in (0, 1).

    Raises:
        ShapeError: there is no score.
        MotesError: alpha is outside (0, 1), or a score is NaN.
    """
    check_share("alpha", alpha)
    score = torch.as_tensor(score, dtype=torch.float64)
    if score.ndim != 1 or len(score) == 0:
        raise ShapeError(f"calibration scores must be a tensor (n,) with n >= 1, not {tuple(score.shape)}")
    if torch.isnan(score).any():
        raise MotesError("a calibration score is NaN")
    rank = math.ceil((len(score) + 1) * (1 - Fraction(str(alpha))))
    return math.inf if rank > len(score) else float(score.sort()[0][rank - 1])


def check_share(name: str, value: object) -> None:
    """A number strictly between 0 and 1."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1:
        raise MotesError(f"{name} must lie strictly between 0 and 1, not {value!r}")
