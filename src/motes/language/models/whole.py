"""Prefixes without a cache: every call of the model reads whole texts, which is right for any causal model."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from motes.language.models.cache import MOST_ROWS
from motes.language.models.model import check_look
from motes.language.models.texts import TextPrefixes

MOST_LOGITS = 2**27
"""Logits a call, where a model cannot be asked for the last ones only."""


class WholePrefixes(TextPrefixes):
    """The prefixes of a transformers model as token sequences; rows of one length share a call, so nothing is padded.

    Args:
        model: a transformers causal model.
        prompt: (P,) tokens.
        micro_batch: rows a call, exactly; None is as many as there are, at most `MOST_ROWS` at once.
        apart: read a text anew for the logits after each of its tokens, for models in which a longer text changes
            those after its beginning.
    """

    model: Any
    micro_batch: int | None
    apart: bool

    def __init__(self, model: Any, prompt: Tensor, *, micro_batch: int | None = None, apart: bool = False):
        self.model, self.micro_batch, self.apart = model, micro_batch, apart
        self.prompt: list[int] = prompt.tolist()
        self.texts = [()]
        self.length = torch.zeros(1, dtype=torch.int64)
        self.looked = None
        self.logits = self._evaluate([()], 1)[:, 0]

    def extend(self, parent: Tensor, token: Tensor) -> None:
        pairs = zip(parent.tolist(), token.tolist(), strict=True)
        self.texts = [self.texts[p] if v < 0 else (*self.texts[p], v) for p, v in pairs]
        self.length, self.looked = self.length[parent] + (token >= 0), None
        logits, fresh = self.logits[parent], torch.nonzero(token >= 0)[:, 0].tolist()
        if fresh:
            logits[fresh] = self._evaluate([self.texts[i] for i in fresh], 1)[:, 0]
        self.logits = logits

    def look(self, tokens: Tensor, count: Tensor) -> Tensor:
        check_look(tokens, count, len(self.texts))
        out = self.logits.new_zeros(*tokens.shape, self.logits.shape[1])
        for n in range(1, tokens.shape[1] + 1):
            which = torch.nonzero(count >= n if self.apart else count == n)[:, 0].tolist()
            if which:
                texts = [(*self.texts[i], *tokens[i, :n].tolist()) for i in which]
                last = 1 if self.apart else n
                out[which, n - last : n] = self._evaluate(texts, last)
        self.looked = (tokens, count, out)
        return out

    def _evaluate(self, texts: Sequence[tuple[int, ...]], last: int) -> Tensor:
        """(B, last, V): the logits after each of the last tokens of every text."""
        out: list[Tensor] = [torch.empty(0)] * len(texts)
        for which in by_length(texts):
            ids = torch.tensor([[*self.prompt, *texts[i]] for i in which])
            for part, rows in in_batches(len(which), self.micro_batch, self._most(ids.shape[1])):
                found = whole_logits(self.model, ids[rows], last)
                for j, k in enumerate(part):
                    out[which[k]] = found[j]
        return torch.stack(out)

    def _most(self, length: int) -> int:
        if accepts(self.model, "logits_to_keep"):
            return MOST_ROWS
        return max(1, min(MOST_ROWS, MOST_LOGITS // (length * self.model.config.get_text_config().vocab_size)))


def whole_logits(model: Any, ids: Tensor, last: int) -> Tensor:
    """(B, last, V): the logits after each of the last tokens of the rows `ids` (B, L), read at once without a cache."""
    options = {"logits_to_keep": last} if accepts(model, "logits_to_keep") else {}
    with torch.inference_mode():
        return model(input_ids=ids.to(model.device), use_cache=False, **options).logits[:, -last:]


def accepts(model: Any, name: str) -> bool:
    """Whether the model's `forward` names this argument."""
    return name in inspect.signature(model.forward).parameters


def by_length(texts: Sequence[tuple[int, ...]]) -> list[list[int]]:
    """The indices of the texts in groups of one length, shortest first."""
    groups: dict[int, list[int]] = {}
    for i, text in enumerate(texts):
        groups.setdefault(len(text), []).append(i)
    return [groups[k] for k in sorted(groups)]


def in_batches(count: int, micro_batch: int | None, most: int) -> list[tuple[list[int], list[int]]]:
    """Rows 0..count-1 in calls: those that belong to each, and these filled up with the last to `micro_batch` rows."""
    size = micro_batch or min(count, most)
    out = []
    for first in range(0, count, size):
        part = list(range(first, min(first + size, count)))
        out.append((part, part + [part[-1]] * (size - len(part) if micro_batch else 0)))
    return out
