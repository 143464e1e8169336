"""The same text behind another prompt: what rules that compare two contexts share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from motes.errors import MotesError
from motes.language.models.model import LanguageModel, Message
from motes.language.rule import Rule, SeenTokens


def paired(
    context: str | Sequence[Message], other: LanguageModel | None, model: LanguageModel
) -> tuple[LanguageModel, Tensor]:
    """The model that reads the other context, and the context's tokens."""
    reads = model if other is None else other
    return reads, reads.encode(context)


def other_law(rule: Rule, log_prob: Tensor, seen: SeenTokens | None) -> Tensor:
    """The law (A, V) of the other context, where the given one has mass.

    Raises:
        MotesError: the rule was called without its companion, or the other law lacks a token that is left.
    """
    if seen is None or not seen.others:
        raise MotesError(f"{type(rule).__name__} compares two contexts: it needs a run, and cannot be called alone")
    other = seen.others[0]
    lacking = torch.isneginf(other) & ~torch.isneginf(log_prob)
    if bool(lacking.any()):
        raise MotesError(
            f"the other context of {type(rule).__name__} gives probability zero to tokens that are left, e.g. "
            f"{int(torch.nonzero(lacking)[0, 1])}: their ratio is infinite. Put a rule before it that drops them"
        )
    return other
