"""A two-parameter logistic item-response model on simulated answers of 60 persons to 20 items, d = 102.

Birnbaum (1968), in Lord & Novick, Statistical Theories of Mental Test Scores.
"""

from __future__ import annotations

import torch
from torch.distributions import HalfNormal, Normal

from . import data
from .base import Named, Posterior, numbered, real

NAME = "simulated-item_response"


def posterior() -> Posterior:
    """An answer is right with logit slope (ability - difficulty), where difficulty = level + spread difficulty_raw."""
    answers = real(data.item_response())
    persons, items = answers.shape
    zero, one = real(0.0), real(1.0)
    prior = {
        "ability": Normal(zero.expand(persons), one),
        "log_slope": Normal(zero.expand(items), 0.5 * one),
        "difficulty_raw": Normal(zero.expand(items), one),
        "level": Normal(zero, 2 * one),
        "spread": HalfNormal(2 * one),
    }

    def difficulty(p: Named):
        return p["level"][:, None] + p["spread"][:, None] * p["difficulty_raw"]

    def log_likelihood(p: Named):
        off = p["ability"][:, :, None] - difficulty(p)[:, None]
        return torch.nn.functional.logsigmoid(answers * p["log_slope"].exp()[:, None] * off).sum((1, 2))

    return Posterior(
        NAME,
        log_likelihood,
        prior,
        lambda p: {
            **numbered("ability", p["ability"]),
            **numbered("log_slope", p["log_slope"]),
            **numbered("difficulty", difficulty(p)),
            "level": p["level"],
            "spread": p["spread"],
        },
        dict,
    )
