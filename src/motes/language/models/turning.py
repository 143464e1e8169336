"""Rotary positions that change at a length, for every token of a text, so that no cache holds across it."""

from __future__ import annotations

from typing import Any


def turning(config: Any) -> int | None:
    """The longest text in tokens that a model reads with its first set of frequencies; None: it has one set only.

    LongRoPE has one set for texts up to a length and another for all tokens of longer ones: keys that were cached
    before a text has grown beyond it are not those of the whole text.

    References:
        Ding et al. (2024), LongRoPE, ICML, arXiv 2402.13753, section 3.
    """
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    sets = [rope, *(part for part in rope.values() if isinstance(part, dict))]  # one set of all layers, or one a kind
    found = [
        part.get("original_max_position_embeddings") or getattr(config, "original_max_position_embeddings", None)
        for part in sets
        if "longrope" in (part.get("rope_type"), part.get("type"))
    ]
    return min((int(length) for length in found if length), default=None)
