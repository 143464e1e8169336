"""The key-value cache of a run: a prompt that is held once, and the rows of the distinct texts behind it.

When the population is resampled nothing moves: particles only point to rows. Rows move when texts branch, and then
`model.in_place` leaves the first continuation where its parent is, so that a step copies what the branching adds and
fills the gaps, and never the prompt. Generating 24 tokens for 32 particles with SmolLM2-135M on one core this takes
about half the time of transformers' `generate`, mostly because equal beginnings are evaluated once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache

from motes.errors import MotesError
from motes.language.models.attention import MASK, PROMPT
from motes.language.models.model import Prefixes, check_keep, check_look, check_shorten, kept_logits

MOST_ROWS = 64
"""Rows a call of the model where the caller fixes nothing."""


@dataclass(frozen=True)
class CacheBlock:
    """Where a call of the model writes B rows' L new tokens, and what they see.

    Attributes:
        rows: which rows, (B,) or a slice.
        longest: T, the most tokens that one of the rows has so far behind the prompt.
        place: (B, L) where the new tokens go if the rows differ in length; None puts them all at T.
        padded: (B, P + T) where each row's tokens so far stand when they are moved to the right end; else None.
    """

    rows: Tensor | slice
    longest: int
    place: Tensor | None = None
    padded: Tensor | None = None


class RowLayer(CacheLayerMixin):
    """One layer's keys and values (rows, H, length, D), behind its prompt (1, H, P, D)."""

    prompt: tuple[Tensor, Tensor]
    shares: bool

    def __init__(self, keys: Tensor, values: Tensor, shares: bool):
        super().__init__()
        self.prompt, self.shares = (keys, values), shares
        self.rows = tuple(t.new_zeros(0, t.shape[1], 0, t.shape[3]) for t in self.prompt)
        self.block: CacheBlock = CacheBlock(slice(0, 0), 0)

    def reserve(self, rows: int, length: int) -> None:
        """Make room for `rows` rows of `length` tokens."""
        old_rows, old_length = self.rows[0].shape[0], self.rows[0].shape[2]
        if rows <= old_rows and length <= old_length:
            return
        new_rows = rows if rows > old_rows else old_rows
        new_length = max(length, 2 * old_length, 16) if length > old_length else old_length
        grown = []
        for old in self.rows:
            new = old.new_zeros(new_rows, old.shape[1], new_length, old.shape[3])
            new[:old_rows, :, :old_length] = old
            grown.append(new)
        self.rows: tuple[Tensor, ...] = tuple(grown)

    def move(self, source: Tensor, target: Tensor, length: int) -> None:
        for rows in self.rows:
            rows[target, :, :length] = rows[source, :, :length]

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        block, new_tokens = self.block, key_states.shape[2]
        old, whole = block.longest, block.longest + new_tokens
        out = []
        for new, rows, prompt in zip((key_states, value_states), self.rows, self.prompt, strict=True):
            if block.place is None:
                rows[block.rows, :, old:whole] = new
            elif isinstance(block.rows, slice):
                index = torch.arange(block.rows.start, block.rows.stop, device=rows.device)
                rows[index[:, None], :, block.place] = new.transpose(1, 2)
            else:
                rows[block.rows[:, None], :, block.place] = new.transpose(1, 2)
            if self.shares:
                out.append(rows[block.rows, :, :whole])
            elif block.padded is None:
                own = rows[block.rows, :, :whole]
                out.append(torch.cat([prompt.expand(len(own), -1, -1, -1), own], 2))
            else:  # the padding goes in front, where a mask hides it from windows and biases too
                own = rows[block.rows, :, :old]
                joined = torch.cat([prompt.expand(len(own), -1, -1, -1), own], 2)
                index = block.padded[:, None, :, None].expand(-1, joined.shape[1], -1, joined.shape[3])
                out.append(torch.cat([joined.gather(2, index), new], 2))
        return out[0], out[1]

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.is_initialized = True

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.get_seq_length() + query_length, 0

    def get_seq_length(self) -> int:
        return self.prompt[0].shape[2] + self.block.longest

    def get_max_length(self) -> int:
        return -1


class CachedPrefixes(Prefixes):
    """The prefixes of a transformers model.

    Args:
        model: a transformers causal model.
        prompt: (P,) tokens, evaluated at once.
        shares: attention reads the prompt's one copy, see `motes.language.models.attention`.
        micro_batch: rows a call, exactly; None is as many as there are, at most `MOST_ROWS` at once.
    """

    model: Any
    shares: bool
    micro_batch: int | None
    n_prompt: int

    def __init__(self, model: Any, prompt: Tensor, *, shares: bool, micro_batch: int | None):
        self.model, self.shares, self.micro_batch = model, shares, micro_batch
        self.n_prompt, self.length = len(prompt), torch.zeros(1, dtype=torch.int64)
        self.looked: tuple[Tensor, Tensor] | None = None
        cache = DynamicCache()
        with torch.inference_mode():
            ids = prompt[None].to(model.device)
            out = model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        self.logits = out.logits[:, -1]
        self.layers = []
        for at, layer in enumerate(cache.layers):
            keys, values = (layer.keys, layer.values) if isinstance(layer, CacheLayerMixin) else (None, None)
            if keys is None or values is None or keys.shape[2] != len(prompt):
                raise MotesError(
                    f"layer {at} of {type(model).__name__} keeps no keys and values of every token (it is recurrent or "
                    "slides): such models cannot branch here; use one with plain attention"
                )
            self.layers.append(RowLayer(keys, values, shares))
        self.cache: Cache = Cache(layers=self.layers)

    def extend(self, parent: Tensor, token: Tensor) -> None:
        count = len(parent)
        length, fresh = self.length[parent], token >= 0
        longest = int(length.max())
        moved = torch.nonzero(parent != torch.arange(count))[:, 0] if longest else parent[:0]
        if len(moved):
            with torch.inference_mode():
                for layer in self.layers:
                    layer.reserve(count, longest)
                    layer.move(parent[moved], moved, longest)
        self.length, self.looked = length + fresh, None
        if fresh.all():
            self.logits = self._evaluate(token[:, None], length, None, None)[:, 0]
        else:
            kept, which = self.logits[parent], torch.nonzero(fresh)[:, 0]
            if len(which):
                kept[which] = self._evaluate(token[which, None], length[which], which, None)[:, 0]
            self.logits = kept

    def look(self, tokens: Tensor, count: Tensor) -> Tensor:
        check_look(tokens, count, len(self.length))
        which = torch.nonzero(count > 0)[:, 0]
        if len(which) == len(count):
            out = self._evaluate(tokens, self.length, None, count)
        else:
            out = self.logits.new_zeros(*tokens.shape, self.logits.shape[1])
            if len(which):
                out[which] = self._evaluate(tokens[which], self.length[which], which, count[which])
        self.looked = (count, out)
        return out

    def keep(self, count: Tensor) -> None:
        check_keep(count, None if self.looked is None else self.looked[0])
        assert self.looked is not None
        self.logits = kept_logits(self.logits, self.looked[1], count)
        self.length, self.looked = self.length + count, None

    def shorten(self, length: Tensor, logits: Tensor) -> None:
        check_shorten(length, self.length)
        self.length, self.logits, self.looked = length, logits.to(self.logits), None

    def _evaluate(self, tokens: Tensor, length: Tensor, rows: Tensor | None, count: Tensor | None) -> Tensor:
        """The logits (B, L, V) after each new token, whose keys and values are written behind their rows.

        Args:
            tokens: (B, L).
            length: (B,) how many tokens the rows have so far.
            rows: (B,) which they are; None is the first B.
            count: (B,) how many of the tokens count; None is all.
        """
        B, L = tokens.shape
        part = self.micro_batch or min(B, MOST_ROWS)
        missing = -B % part if self.micro_batch else 0
        used = B if rows is None else int(rows.max()) + 1
        last = torch.full((B,), L) if count is None else count
        if missing:  # they repeat the last row, in rows that hold nothing
            spare = len(self.length) + torch.arange(missing)
            rows = None if rows is None else torch.cat([rows, spare])
            used = B + missing if rows is None else int(spare[-1]) + 1
            tokens, length, last = (
                torch.cat([x, x[-1:].expand(missing, *x.shape[1:])]) for x in (tokens, length, last)
            )
        if count is not None:
            tokens = torch.where(torch.arange(L) < last[:, None], tokens, 0)
        with torch.inference_mode():
            for layer in self.layers:
                layer.reserve(used, int(length.max()) + L)
            outs = []
            for first in range(0, B, part):
                now = slice(first, first + part)
                index = slice(first, min(first + part, len(tokens))) if rows is None else rows[now]
                outs.append(self._call(tokens[now], length[now], index, last[now]))
        return torch.cat(outs)[:B]

    def _call(self, tokens: Tensor, length: Tensor, rows: Tensor | slice, last: Tensor) -> Tensor:
        L, longest = tokens.shape[1], int(length.max())
        uneven = int(length.min()) != longest
        device, mask, seen = self.model.device, None, None
        step = torch.arange(L)
        place, padded = (length[:, None] + step if uneven else None), None
        if self.shares and (uneven or L > 1):
            hidden = torch.arange(longest + L) > (length[:, None, None] + step[:, None])
            mask = torch.zeros(hidden.shape).masked_fill(hidden, -torch.inf).to(device, self.logits.dtype)
        elif uneven:
            from_right = torch.arange(self.n_prompt + longest) - (longest - length)[:, None]
            seen = torch.cat([from_right >= 0, torch.ones_like(tokens, dtype=torch.bool)], 1).to(device)
            padded = from_right.clamp(min=0).to(device)
        block = CacheBlock(
            rows if isinstance(rows, slice) else rows.to(device),
            longest,
            None if place is None else place.to(device),
            padded,
        )
        for layer in self.layers:
            layer.block = block
        # tokens that do not count must not run over the positions that a model knows
        position = self.n_prompt + length[:, None] + torch.minimum(step, last[:, None] - 1)
        options = {} if seen is None else {"attention_mask": seen}
        marks = PROMPT.set([layer.prompt for layer in self.layers] if self.shares else None), MASK.set(mask)
        try:
            out = self.model(
                input_ids=tokens.to(device),
                position_ids=position.to(device),
                past_key_values=self.cache,
                use_cache=True,
                **options,
            )
        finally:
            PROMPT.reset(marks[0])
            MASK.reset(marks[1])
        return out.logits
