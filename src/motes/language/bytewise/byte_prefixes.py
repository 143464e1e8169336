"""The strings of bytes that a run goes on from, and the token sequences that cover them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from motes.errors import NanLogPotential
from motes.language.bytewise.tokenization_covers import Branch, Cover, CoverRow, Spelling, step
from motes.language.models.model import Prefixes, check_keep, check_look, check_shorten, in_place, kept_logits


class BytePrefixes(Prefixes):
    """Strings of symbols, each with its cover; the token sequences of all covers are rows of the model beneath.

    Args:
        inner: the prefixes of the model beneath; at first its prompt.
        spelling: what its tokens write.
        beam: how many covers of a string are kept; None is all.
        name: what messages call the model beneath.

    Attributes:
        covers: (A) what is known of each row, among it the log-probability and the mass that pruning lost.
    """

    inner: Prefixes
    spelling: Spelling
    beam: int | None
    name: str

    def __init__(self, inner: Prefixes, spelling: Spelling, beam: int | None, name: str):
        self.inner, self.spelling, self.beam, self.name = inner, spelling, beam, name
        self.root: CoverRow = CoverRow(0)  # the prompt alone: kept, so that every string can be covered again
        self.covers = [self._start()]
        self.texts: list[tuple[int, ...]] = [()]
        self.logits, self.length = self._logits(self.covers), torch.zeros(1, dtype=torch.int64)
        self.looked: tuple[Tensor, Tensor, Tensor, list[list[Cover]]] | None = None

    def extend(self, parent: Tensor, token: Tensor) -> None:
        parents, symbols = parent.tolist(), token.tolist()
        logits = self.logits[parent]
        new = [i for i, s in enumerate(symbols) if s >= 0]
        covers = [self.covers[p] for p in parents]
        stay = [covers[i] for i, s in enumerate(symbols) if s < 0]
        longer = self._advance([covers[i] for i in new], [symbols[i] for i in new], stay)
        for i, cover in zip(new, longer, strict=True):
            covers[i] = cover
        if new:
            logits[new] = self._logits(longer)
        texts = [(*self.texts[p], s) if s >= 0 else self.texts[p] for p, s in zip(parents, symbols, strict=True)]
        self.covers, self.texts, self.logits, self.looked = covers, texts, logits, None
        self.length = self.length[parent] + (token >= 0)

    def look(self, tokens: Tensor, count: Tensor) -> Tensor:
        check_look(tokens, count, len(self.texts))
        out = torch.full((*tokens.shape, self.spelling.count), torch.nan, dtype=torch.float64)
        seen = [[cover] for cover in self.covers]
        for j in range(tokens.shape[1]):
            on = [i for i in range(len(seen)) if int(count[i]) > j]
            if not on:
                break
            every = [cover for covers in seen for cover in covers]
            longer = self._advance([seen[i][-1] for i in on], [int(tokens[i, j]) for i in on], every)
            out[on, j] = self._logits(longer)
            for i, cover in zip(on, longer, strict=True):
                seen[i].append(cover)
        self.looked = (tokens, count, out, seen)
        return out

    def keep(self, count: Tensor) -> None:
        check_keep(count, None if self.looked is None else self.looked[1])
        assert self.looked is not None
        tokens, _, out, seen = self.looked
        self.logits = kept_logits(self.logits, out, count)
        self.covers: list[Cover] = [covers[k] for covers, k in zip(seen, count.tolist(), strict=True)]
        self.texts = [(*text, *tokens[i, : int(count[i])].tolist()) for i, text in enumerate(self.texts)]
        self.length, self.looked = self.length + count, None

    def shorten(self, length: Tensor, logits: Tensor) -> None:
        """Row i goes back to its first `length[i]` symbols; what covers these is evaluated again from the prompt."""
        check_shorten(length, self.length)
        cut = [i for i, (a, b) in enumerate(zip(length.tolist(), self.length.tolist(), strict=True)) if a < b]
        self.texts = [text[:k] for text, k in zip(self.texts, length.tolist(), strict=True)]
        stay = [cover for i, cover in enumerate(self.covers) if i not in cut]
        again = [self._start()] * len(cut)
        for j in range(max((len(self.texts[i]) for i in cut), default=0)):
            on = [k for k, i in enumerate(cut) if len(self.texts[i]) > j]
            waits = [again[k] for k in range(len(cut)) if k not in on]
            longer = self._advance([again[k] for k in on], [self.texts[cut[k]][j] for k in on], [*stay, *waits])
            for k, cover in zip(on, longer, strict=True):
                again[k] = cover
        for i, cover in zip(cut, again, strict=True):
            self.covers[i] = cover
        self.length, self.logits, self.looked = length, logits.to(self.logits), None

    def _start(self) -> Cover:
        """The cover of the empty string."""
        return Cover((Branch(self.root, 0.0, 0, 0, self._laws([self.root.at])[0]),))

    def _advance(self, covers: list[Cover], symbols: list[int], stay: list[Cover]) -> list[Cover]:
        """The covers with one more symbol each; the rows of `stay` are kept too, all others are given up."""
        moved = [step(self.spelling, c, s, self.beam) for c, s in zip(covers, symbols, strict=True)]
        born = [child for _, children in moved for child in children]
        if not born:  # nothing to evaluate, and nothing moves
            return [cover for cover, _ in moved]
        alive = {id(b.row): b.row for c in (*stay, *(cover for cover, _ in moved)) for b in c.branches}
        rows = [self.root, *(row for row in alive.values() if row is not self.root)]
        slot = [row.at for row in rows] + [child.branch.row.at for child in born]
        token = [-1] * len(rows) + [child.token for child in born]
        layout = in_place(torch.tensor(slot), torch.tensor(token), len(self.spelling.order))
        self.inner.extend(layout[0], layout[1])
        place = layout[2].tolist()
        for row, at in zip(rows, place, strict=False):
            row.at = at
        fresh = sorted(set(place[len(rows) :]))
        laws = dict(zip(fresh, self._laws(fresh), strict=True))
        handles = {at: CoverRow(at) for at in fresh}
        born_at = iter(place[len(rows) :])
        out = []
        for cover, children in moved:
            own = [(child.log_mass, next(born_at)) for child in children]
            more = tuple(Branch(handles[at], log_prob, 0, 0, laws[at]) for log_prob, at in own)
            out.append(replace(cover, branches=cover.branches + more))
        return out

    def _laws(self, rows: list[int]) -> Any:
        """(len(rows), V) the next-token probabilities of rows of the model beneath, in the order of the spelling."""
        logits = self.inner.logits[rows].detach().cpu().to(torch.float64)
        most = logits.amax(1)
        if bool((torch.isnan(most) | torch.isinf(most)).any()):
            raise NanLogPotential(
                f"{self.name} returned NaN or infinite logits beneath its bytes: look at its weights and "
                "its number type (float16 overflows; bfloat16 or float32 do not)"
            )
        return torch.softmax(logits, 1).numpy()[:, self.spelling.order]

    def _logits(self, covers: list[Cover]) -> Tensor:
        """(len(covers), S) float64: normalised log-probabilities of the next symbol."""
        out = np.zeros((len(covers), self.spelling.count))
        for i, cover in enumerate(covers):
            if cover.branches:
                out[i] = cover.next_log_mass(self.spelling) - cover.log_prob
            else:
                out[i] = -np.log(self.spelling.count)
        return torch.from_numpy(out)
