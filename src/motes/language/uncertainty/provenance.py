"""Did this model write this text? A test by its log-perplexity."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from motes.errors import MotesError
from motes.language.uncertainty.scored import Scored


@dataclass(frozen=True)
class Provenance:
    """The test's numbers for N texts.

    Attributes:
        excess: (N,) the mean over tokens of -log p(token) minus the entropy of the law there, nats a token. Positive:
            the text surprises the model more than its own do; negative: less (as greedy or low-temperature text does).
        z: (N,) the excess over its standard deviation under the hypothesis that the model drew the text.
        p_value: (N,) two-sided, by the normal law.
    """

    excess: Tensor
    z: Tensor
    p_value: Tensor


def provenance(scored: Scored) -> Provenance:
    """Tests whether texts were drawn from the model that scored them, at temperature 1 and without rules.

    For the model A and the tokens y_t of a text, d_t = -log A(y_t | before) - H(A(. | before)) has mean zero given what
    stands before if the text is A's own, so the sum is a martingale with variance sum_t V_t, V_t the variance of
    -log A under its own law. z = sum d_t / sqrt(sum V_t) is then about standard normal for long texts: a level of 5 %
    is met to about a percent point from some 100 tokens on. The prompt must be the one that the text was drawn for.

    It has no power against another model under which A's perplexity is as high as A's entropy there.

    References:
        Radvand, Abdolmaleki, Mostafavi & Madani (2025), Zero-shot statistical tests for LLM-generated text detection
        using finite sample concentration inequalities, arXiv 2501.02406.
        Hall & Heyde (1980), Martingale limit theory and its application, chapter 3.

    Args:
        scored: of the texts under the model, see `score`.

    Raises:
        MotesError: a text has no token whose law has any spread.
    """
    entropy, variance = scored.need_laws()
    variance = variance.sum(1)
    bad = torch.nonzero(variance <= 0)[:, 0].tolist()
    if bad:
        raise MotesError(f"texts {bad[:8]} have no token that the model was not certain of, so nothing can be tested")
    total = (-scored.log_prob - entropy).sum(1)
    z = total / variance.sqrt()
    return Provenance(total / scored.length, z, torch.erfc(z.abs() / math.sqrt(2)))
