"""Speculation that leaves every number alone: likely next tokens are evaluated before they are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from motes.errors import MotesError, check_whole
from motes.language.models.model import LanguageModel, Message, Prefixes, check_keep
from motes.language.speculation.adaptive_draft_length import AdaptiveDrafter
from motes.language.speculation.drafts import Draft, Drafter, PromptLookup


def speculating(model: LanguageModel, *, draft: Draft | None = None, tokens: int = 4) -> Speculating:
    """The same language model, which reads guesses of the next tokens along and saves the calls that they foresee.

    Where a row needs its next law, the model reads the row's new token and up to `tokens` guesses behind it in one
    call. When the token that is then drawn is the guessed one, its law is already there. Nothing else changes: each
    next-token law is the model's own, so rules, constraints, rewards, resampling, weights and random numbers are what
    they are without it, for any number of particles; only the last bits of logits may differ, since a call with
    several tokens rounds differently. A guess g is right with probability p(g), and no scheme that keeps the law can
    do better with a guess that is not itself random: max-coupling accepts it with min(1, p(g) / 1).

    Worth it where a call costs much the same for several tokens as for one: few particles, guesses that are often
    right (texts that repeat their prompt, forms). With many particles the guesses are paid for each of them. Where
    guesses keep failing, they become short and rare (`motes.language.speculation.adaptive_draft_length`).

    Args:
        model: from `motes.language.load`, or any other.
        draft: `PromptLookup()` (None), or `ModelDraft(smaller_model)`.
        tokens: the most guesses a row, at least 1.

    Returns:
        A language model; its `counts` say how many calls were made, tokens guessed and guesses right.

    Raises:
        MotesError: `tokens` is no such number, the draft is none, or it has another vocabulary.

    References:
        Leviathan, Kalman & Matias (2023), ICML, section 2, for verifying several tokens in one call.

    Example:
        >>> import motes
        >>> law = torch.tensor([[0.1, 8.0, 0.1], [8.0, 0.1, 0.1], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]).double()
        >>> table = motes.language.TableModel(["a", "b", "."], law)
        >>> quick = speculating(table)
        >>> same = [motes.sample(motes.Generation(m, "", max_tokens=30), 1, seed=1, progress=False).texts
        ...         for m in (table, quick)]
        >>> same[0] == same[1], quick.counts["calls"] < 20
        (True, True)
    """
    if not isinstance(model, LanguageModel):
        raise MotesError(f"model must come from motes.language.load, or be a TableModel, not {model!r}")
    draft = PromptLookup() if draft is None else draft
    check_whole(1, tokens=tokens)
    if not isinstance(draft, Draft):
        raise MotesError(f"a draft is PromptLookup(...) or ModelDraft(...), not a {type(draft).__name__}")
    draft.check(model)
    return Speculating(model, draft, tokens)


class Speculating(LanguageModel):
    """A language model that reads guesses along; made by `speculating`."""

    model: LanguageModel
    draft: Draft
    tokens: int

    def __init__(self, model: LanguageModel, draft: Draft, tokens: int):
        self.model, self.draft, self.tokens = model, draft, tokens
        self.name, self.vocabulary, self.end, self.longest = model.name, model.vocabulary, model.end, model.longest
        self.counts: dict[str, int] = {"calls": 0, "guessed": 0, "right": 0}

    def encode(self, prompt: str | Sequence[Message], chat: bool | str = "auto") -> Tensor:
        return self.model.encode(prompt, chat)

    def decode(self, tokens: Sequence[int]) -> str:
        return self.model.decode(tokens)

    def spell(self, text: str) -> list[int]:
        return self.model.spell(text)

    def prefixes(self, prompt: Tensor, max_tokens: int) -> Prefixes:
        drafter = AdaptiveDrafter(self.draft.open(self.model, prompt, max_tokens), self.tokens)
        inner = self.model.prefixes(prompt, max_tokens)
        return PrefetchedPrefixes(inner, drafter, self.tokens, max_tokens, self.end, self.counts)

    def recogniser_tokenizer(self) -> Any:
        return self.model.recogniser_tokenizer()

    def settings(self) -> dict[str, Any]:
        return {**self.model.settings(), "speculation": {**self.draft.settings(), "tokens": self.tokens}}


class PrefetchedPrefixes(Prefixes):
    """Rows that point into inner rows, which may be longer than they are: by guesses whose laws are known, or because
    several rows are beginnings of one text. Inner rows are copied only where texts part.

    Args:
        inner: the model's own prefixes, at the prompt.
        drafter: what is read along behind a token.
        most: the most guesses a row.
        max_tokens: the most tokens of a text.
        end: the tokens behind which nothing is read.
        counts: where calls, guesses and right guesses are counted.
    """

    inner: Prefixes
    drafter: Drafter
    most: int
    max_tokens: int
    end: tuple[int, ...]
    counts: dict[str, int]
    tokens: Tensor

    def __init__(
        self,
        inner: Prefixes,
        drafter: Drafter,
        most: int,
        max_tokens: int,
        end: tuple[int, ...],
        counts: dict[str, int],
    ):
        self.inner, self.drafter, self.most, self.max_tokens = inner, drafter, most, max_tokens
        self.end, self.counts = end, counts
        self.logits, self.length = inner.logits, inner.length
        self.at: list[int] = [0]
        """The inner row of each row."""
        self.guesses: list[list[int]] = [[]]
        self.known: list[Tensor] = [inner.logits[:0]]
        """(g, V): the logits after each guess."""
        self.seen: Tensor | None = None

    def extend(self, parent: Tensor, token: Tensor) -> None:
        pairs = list(zip(parent.tolist(), token.tolist(), strict=True))
        rows = self.logits[parent]
        guesses, known, ask = [], [], []
        for i, (p, v) in enumerate(pairs):
            guess, laws = self.guesses[p], self.known[p]
            if v >= 0 and guess and guess[0] == v:  # foreseen
                rows[i], guess, laws = laws[0], guess[1:], laws[1:]
                self.counts["right"] += 1
            elif v >= 0:
                guess, laws = [], laws[:0]
                ask.append(i)
            guesses.append(guess)
            known.append(laws)
        self.drafter.extend(parent, token)
        self.at, self.guesses, self.known, self.seen = [self.at[p] for p, _ in pairs], guesses, known, None
        self.length = self.length[parent] + (token >= 0)
        self.logits = self._read(ask, token, rows) if ask else rows

    def _read(self, ask: list[int], token: Tensor, rows: Tensor) -> Tensor:
        """The logits of all rows, of which those in `ask` read their new token and guesses behind it."""
        room = (self.max_tokens - self.length[ask]).clamp(max=self.most).tolist()
        new = self.drafter.guess(ask, room)
        ends = set(self.end)
        self._part(ask)
        count = torch.zeros(len(self.inner.length), dtype=torch.int64)
        block = torch.zeros(len(count), 1 + max(map(len, new), default=0), dtype=torch.int64)
        for i, guess in zip(ask, new, strict=True):
            stop = next((j for j, v in enumerate(guess) if v in ends), len(guess))  # nothing follows an end
            self.guesses[i] = guess[:stop]
            count[self.at[i]] = 1 + stop
            block[self.at[i], : 1 + stop] = torch.tensor([int(token[i]), *guess[:stop]])
            self.counts["guessed"] += stop
        self.counts["calls"] += 1
        looked = self.inner.look(block[:, : int(count.max())], count)
        self.inner.keep(count)
        for i in ask:
            rows[i] = looked[self.at[i], 0]
            self.known[i] = looked[self.at[i], 1 : 1 + len(self.guesses[i])].clone()
        return rows

    def _part(self, ask: list[int]) -> None:
        """Give each row in `ask` an inner row that ends before its new token; the others keep what they point to.

        The first to ask goes on in the inner row itself if nothing behind its place is needed any more.
        """
        length, asks = self.length.tolist(), set(ask)
        needed: dict[int, int] = {}
        """How long the inner rows must stay for the rows that read nothing."""
        for i, r in enumerate(self.at):
            if i not in asks:
                needed[r] = max(needed.get(r, 0), length[i] + len(self.guesses[i]))
        kept, more = dict(needed), []
        owner: dict[int, int] = {}
        for i in ask:
            r, before = self.at[i], length[i] - 1
            if r not in owner and needed.get(r, 0) <= before:
                owner[r], kept[r] = i, before
            else:
                more.append((i, r, before))
        size = len(kept) + len(more)
        free = iter([k for k in range(size) if k not in kept])
        place = {r: r if r < size else next(free) for r in kept}  # as few as possible move
        parent, cut, at = [0] * size, [0] * size, [place.get(r, 0) for r in self.at]
        for r, k in place.items():
            parent[k], cut[k] = r, kept[r]
        for i, r, before in more:
            k = next(free)
            parent[k], cut[k], at[i] = r, before, k
        self.at = at
        self.inner.extend(torch.tensor(parent), torch.full((size,), -1))
        self.inner.shorten(torch.tensor(cut), self.inner.logits)

    def _drop(self) -> None:
        """Without guesses, and with an inner row for each row."""
        self.inner.extend(torch.tensor(self.at), torch.full_like(self.length, -1))
        self.inner.shorten(self.length, self.logits)
        self.at = list(range(len(self.at)))
        self.guesses = [[] for _ in self.guesses]
        self.known = [laws[:0] for laws in self.known]

    def look(self, tokens: Tensor, count: Tensor) -> Tensor:
        self._drop()
        self.counts["calls"] += 1
        self.seen, self.tokens = count, tokens
        return self.inner.look(tokens, count)

    def keep(self, count: Tensor) -> None:
        check_keep(count, self.seen)
        self.inner.keep(count)
        for j in range(int(count.max())):
            step = torch.where(count > j, self.tokens[:, j], -1)
            self.drafter.extend(torch.arange(len(count)), step)
        self.logits, self.length, self.seen = self.inner.logits, self.inner.length, None

    def shorten(self, length: Tensor, logits: Tensor) -> None:
        raise MotesError("rows that are read ahead cannot be shortened: shorten those of the model itself")
