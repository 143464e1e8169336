"""Prefixes of models whose cache is a state and no list of keys: recurrent models, and hybrids of both kinds.

A state cannot be cut at a token, so a row's state is never written to: a step copies the states of the rows that go
on, lets the model move the copies, and keeps these. Rows of one length share a call, so nothing is padded; what a
shortened row had to forget is read again from its tokens.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from motes.errors import MotesError
from motes.language.models.cache import MOST_ROWS
from motes.language.models.model import Prefixes, check_keep, check_look, check_shorten, kept_logits
from motes.language.models.whole import accepts, by_length, in_batches

NAMES = ("past_key_values", "cache_params", "state")
"""What models call their cache, in what they take and in what they return."""


@dataclass(frozen=True, eq=False)
class StateSlot:
    """Where a row's state is: a row of a cache that is not written to."""

    cache: Any
    row: int


class StatePrefixes(Prefixes):
    """The prefixes of a transformers model of any cache whose tensors have the rows as their first axis.

    Args:
        model: a transformers causal model.
        prompt: (P,) tokens, evaluated at once.
        micro_batch: rows a call, exactly; None is as many as there are, at most `MOST_ROWS` at once.
        positions: whether the model must be told where in the text it is.

    Raises:
        MotesError: the model returns no cache that it takes again, or one that is not made of rows.
    """

    model: Any
    micro_batch: int | None
    prompt: Tensor
    positions: bool
    start: StateSlot

    def __init__(self, model: Any, prompt: Tensor, *, micro_batch: int | None = None, positions: bool = False):
        self.model, self.micro_batch, self.prompt, self.positions = model, micro_batch, prompt, positions
        self.name: str | None = next((name for name in NAMES if accepts(model, name)), None)
        if self.name is None or (positions and not accepts(model, "position_ids")):
            raise MotesError(
                f"{type(model).__name__} takes no cache under the names {', '.join(NAMES)}, or no positions"
            )
        self.texts: list[tuple[int, ...]] = [()]
        self.length = torch.zeros(1, dtype=torch.int64)
        self.looked: tuple[Tensor, Tensor, Tensor, list[list[StateSlot | None]]] | None = None
        logits, cache = self._call(prompt[None], None, 0)
        self.logits, self.start = logits, StateSlot(cache, 0)
        self.places: list[StateSlot | None] = [self.start]

    def extend(self, parent: Tensor, token: Tensor) -> None:
        parents, tokens = parent.tolist(), token.tolist()
        places = [self._place(p) if v >= 0 else self.places[p] for p, v in zip(parents, tokens, strict=True)]
        texts, logits = [self.texts[p] for p in parents], self.logits[parent]
        fresh = [i for i, v in enumerate(tokens) if v >= 0]
        if fresh:
            logits[fresh], moved = self._step([texts[i] for i in fresh], [places[i] for i in fresh], token[fresh])
            for i, place in zip(fresh, moved, strict=True):
                places[i], texts[i] = place, (*texts[i], tokens[i])
        self.texts, self.places, self.logits, self.looked = texts, places, logits, None
        self.length = torch.tensor([len(text) for text in texts])

    def look(self, tokens: Tensor, count: Tensor) -> Tensor:
        check_look(tokens, count, len(self.texts))
        out = self.logits.new_zeros(*tokens.shape, self.logits.shape[1])
        texts, reached = list(self.texts), [list(self.places)]
        for j in range(tokens.shape[1]):
            on, now = torch.nonzero(count > j)[:, 0].tolist(), list(reached[-1])
            if on:
                if j == 0:
                    now = [self._place(i) if i in set(on) else place for i, place in enumerate(now)]
                out[on, j], moved = self._step([texts[i] for i in on], [now[i] for i in on], tokens[on, j])
                for i, place in zip(on, moved, strict=True):
                    now[i], texts[i] = place, (*texts[i], int(tokens[i, j]))
            reached.append(now)
        self.looked = (tokens, count, out, reached)
        return out

    def keep(self, count: Tensor) -> None:
        check_keep(count, None if self.looked is None else self.looked[1])
        assert self.looked is not None
        tokens, _, out, reached = self.looked
        self.logits = kept_logits(self.logits, out, count)
        self.places = [reached[k][i] for i, k in enumerate(count.tolist())]
        self.texts = [(*text, *tokens[i, : int(count[i])].tolist()) for i, text in enumerate(self.texts)]
        self.length, self.looked = self.length + count, None

    def shorten(self, length: Tensor, logits: Tensor) -> None:
        check_shorten(length, self.length)
        for i, (text, k) in enumerate(zip(self.texts, length.tolist(), strict=True)):
            if k < len(text):
                self.places[i], self.texts[i] = (None if k else self.start), text[:k]
        self.length, self.logits, self.looked = length, logits.to(self.logits), None

    def _place(self, row: int) -> StateSlot:
        """Where the state of a row is; read again from the tokens if the row was shortened."""
        place = self.places[row]
        if place is None:
            ids = torch.cat([self.prompt, torch.tensor(self.texts[row], dtype=torch.int64)])
            place = self.places[row] = StateSlot(self._call(ids[None], None, 0)[1], 0)
        return place

    def _step(
        self, texts: Sequence[tuple[int, ...]], places: Sequence[StateSlot | None], token: Tensor
    ) -> tuple[Tensor, list[StateSlot]]:
        """One more token (B,) for rows with these texts and states: the logits (B, V) after it, and the new states."""
        logits, moved = [torch.empty(0)] * len(texts), list(places)
        for which in by_length(texts):
            for part, rows in in_batches(len(which), self.micro_batch, MOST_ROWS):
                index = [which[k] for k in rows]
                with torch.inference_mode():
                    cache = gathered([places[i] for i in index])
                    seen = len(self.prompt) + len(texts[index[0]])
                    found, cache = self._call(token[index, None], cache, seen)
                for j, k in enumerate(part):
                    logits[which[k]], moved[which[k]] = found[j], StateSlot(cache, j)
        return torch.stack(logits), [place for place in moved if place is not None]

    def _call(self, ids: Tensor, cache: Any, seen: int) -> tuple[Tensor, Any]:
        """The last logits (B, V) after the tokens (B, L) behind `seen` others, and the cache then.

        A cache that is given is used up.
        """
        options: dict[str, Any] = {"logits_to_keep": 1} if accepts(self.model, "logits_to_keep") else {}
        if self.positions:
            at = torch.arange(seen, seen + ids.shape[1], device=self.model.device)
            options["position_ids"] = at.expand(len(ids), -1)
        assert self.name is not None
        with torch.inference_mode():
            out = self.model(
                input_ids=ids.to(self.model.device), use_cache=True, return_dict=True, **{self.name: cache}, **options
            )
        found = getattr(out, self.name, None)
        if found is None:
            raise MotesError(f"{type(self.model).__name__} returns no {self.name}")
        return out.logits[:, -1], found


def gathered(places: Sequence[StateSlot | None]) -> Any:
    """A cache of its own with the states of these rows, in their order."""
    groups: dict[int, tuple[Any, list[int], list[int]]] = {}
    for i, place in enumerate(places):
        assert place is not None
        _, index, rows = groups.setdefault(id(place.cache), (place.cache, [], []))
        index.append(i)
        rows.append(place.row)
    parts = [mapped(lambda t, rows=rows: taken(t, rows), cache) for cache, _, rows in groups.values()]
    if len(parts) == 1:
        return parts[0]
    order = torch.argsort(torch.tensor([i for _, index, _ in groups.values() for i in index])).tolist()
    return mapped(lambda *ts: taken(torch.cat(ts), order) if ts[0].ndim else ts[0], *parts)


def taken(t: Tensor, rows: list[int]) -> Tensor:
    """A copy of these rows; of a number, of it."""
    return t.index_select(0, torch.tensor(rows, device=t.device)) if t.ndim else t.clone()


def mapped(f: Callable[..., Tensor], *values: Any) -> Any:
    """A copy of an object with f of the tensors at each place in it; with several objects of one shape, of all of them.

    Raises:
        MotesError: what stands beside the tensors is not the same in all objects.
    """
    first = values[0]
    if isinstance(first, Tensor):
        return f(*values)
    if any(type(v) is not type(first) for v in values):
        raise MotesError(f"caches of one length differ: {sorted({type(v).__name__ for v in values})}")
    if isinstance(first, list | tuple):
        items = [mapped(f, *several) for several in zip(*values, strict=True)]
        return type(first)(*items) if getattr(first, "_fields", None) else type(first)(items)
    if isinstance(first, dict):
        out = copy.copy(first)
        out.update({key: mapped(f, *(v[key] for v in values)) for key in first})
        return out
    if isinstance(first, nn.Module | type) or getattr(first, "__dict__", None) is None:
        if any(v != first for v in values):
            raise MotesError(f"caches of one length differ in {next(v for v in values if v != first)!r} for {first!r}")
        return first
    out = copy.copy(first)
    for key in vars(first):
        out.__dict__[key] = mapped(f, *(vars(v)[key] for v in values))
    return out
