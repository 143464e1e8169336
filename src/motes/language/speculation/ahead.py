"""Speculation that leaves every number alone: likely next tokens are evaluated before they are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from motes.core.errors import MotesError
from motes.language.model import LanguageModel, Message, Prefixes, check_keep
from motes.language.speculation.guesses import Draft, Guesser, PromptLookup


def speculating(model: LanguageModel, draft: Draft | None = None, *, tokens: int = 4) -> Speculating:
    """The same language model, which reads guesses of the next tokens along and saves the calls that they foresee.

    Where a row needs its next law, the model reads the row's new token and up to `tokens` guesses behind it in one
    call. When the token that is then drawn is the guessed one, its law is already there. Nothing else changes: each
    next-token law is the model's own, so rules, constraints, rewards, resampling, weights and random numbers are what
    they are without it, for any number of particles; only the last bits of logits may differ, since a call with
    several tokens rounds differently. A guess g is right with probability p(g), and no scheme that keeps the law can
    do better with a guess that is not itself random: max-coupling accepts it with min(1, p(g) / 1).

    Worth it where a call costs much the same for several tokens as for one: few particles, guesses that are often
    right (texts that repeat their prompt, forms). With many particles the guesses are paid for each of them.

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
    draft = PromptLookup() if draft is None else draft
    if isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < 1:
        raise MotesError(f"tokens must be a whole number of at least 1, not {tokens!r}")
    if not isinstance(draft, Draft):
        raise MotesError(f"a draft is PromptLookup(...) or ModelDraft(...), not a {type(draft).__name__}")
    return Speculating(model, draft, tokens)


class Speculating(LanguageModel):
    """A language model that reads guesses along; made by `speculating`."""

    def __init__(self, model: LanguageModel, draft: Draft, tokens: int):
        self.model, self.draft, self.tokens = model, draft, tokens
        self.name, self.vocabulary, self.end, self.longest = model.name, model.vocabulary, model.end, model.longest
        self.counts = {"calls": 0, "guessed": 0, "right": 0}

    def encode(self, prompt: str | Sequence[Message], chat: bool | str = "auto") -> Tensor:
        return self.model.encode(prompt, chat)

    def decode(self, tokens: Sequence[int]) -> str:
        return self.model.decode(tokens)

    def prefixes(self, prompt: Tensor, max_tokens: int) -> Prefixes:
        guesser = self.draft.open(self.model, prompt, max_tokens)
        return _Ahead(self, self.model.prefixes(prompt, max_tokens), guesser, max_tokens)

    def recogniser_tokenizer(self) -> Any:
        return self.model.recogniser_tokenizer()

    def settings(self) -> dict[str, Any]:
        return {**self.model.settings(), "speculation": {**self.draft.settings(), "tokens": self.tokens}}


class _Ahead(Prefixes):
    """Rows whose inner rows may be longer than they are, by guesses whose laws are known."""

    def __init__(self, owner: Speculating, inner: Prefixes, guesser: Guesser, max_tokens: int):
        self.owner, self.inner, self.guesser, self.max_tokens = owner, inner, guesser, max_tokens
        self.logits, self.length = inner.logits, inner.length
        self.guesses: list[list[int]] = [[]]
        self.known: list[Tensor] = [inner.logits[:0]]
        """(g, V): the logits after each guess."""
        self.seen: Tensor | None = None

    def extend(self, parent: Tensor, token: Tensor) -> None:
        pairs = list(zip(parent.tolist(), token.tolist(), strict=True))
        before, rows = self.length[parent], self.logits[parent]
        guesses, known, ask = [], [], []
        for i, (p, v) in enumerate(pairs):
            guess, laws = self.guesses[p], self.known[p]
            if v >= 0 and guess and guess[0] == v:  # foreseen
                rows[i], guess, laws = laws[0], guess[1:], laws[1:]
                self.owner.counts["right"] += 1
            elif v >= 0:
                guess, laws = [], laws[:0]
                ask.append(i)
            guesses.append(guess)
            known.append(laws)
        self.inner.extend(parent, torch.full_like(parent, -1))
        self.guesser.extend(parent, token)
        self.guesses, self.known, self.seen = guesses, known, None
        self.length = before + (token >= 0)
        asked = torch.zeros(len(pairs), dtype=torch.bool)
        asked[ask] = True
        held = torch.tensor([len(guess) for guess in guesses], dtype=torch.int64)
        self.inner.shorten(torch.where(asked, before, self.length + held), rows)
        self.logits = self._read(ask, token, rows) if ask else rows

    def _read(self, ask: list[int], token: Tensor, rows: Tensor) -> Tensor:
        """The logits of all rows, of which those in `ask` read their new token and guesses behind it."""
        room = (self.max_tokens - self.length[ask]).clamp(max=self.owner.tokens).tolist()
        new = self.guesser.guess(ask, room)
        ends = set(self.owner.end)
        count = torch.zeros(len(rows), dtype=torch.int64)
        block = torch.zeros(len(rows), 1 + max(map(len, new), default=0), dtype=torch.int64)
        for i, guess in zip(ask, new, strict=True):
            stop = next((j for j, v in enumerate(guess) if v in ends), len(guess))  # nothing follows an end
            self.guesses[i] = guess[:stop]
            count[i] = 1 + stop
            block[i, : 1 + stop] = torch.tensor([int(token[i]), *guess[:stop]])
            self.owner.counts["guessed"] += stop
        self.owner.counts["calls"] += 1
        looked = self.inner.look(block, count)
        self.inner.keep(count)
        for i in ask:
            rows[i] = looked[i, 0]
            self.known[i] = looked[i, 1 : int(count[i])].clone()
        return rows

    def _drop(self) -> None:
        """Without guesses: the inner rows are the rows."""
        self.inner.shorten(self.length, self.logits)
        self.guesses = [[] for _ in self.guesses]
        self.known = [laws[:0] for laws in self.known]

    def look(self, tokens: Tensor, count: Tensor) -> Tensor:
        self._drop()
        self.owner.counts["calls"] += 1
        self.seen, self.tokens = count, tokens
        return self.inner.look(tokens, count)

    def keep(self, count: Tensor) -> None:
        check_keep(count, self.seen)
        self.inner.keep(count)
        for j in range(int(count.max())):
            step = torch.where(count > j, self.tokens[:, j], -1)
            self.guesser.extend(torch.arange(len(count)), step)
        self.logits, self.length, self.seen = self.inner.logits, self.inner.length, None

    def shorten(self, length: Tensor, logits: Tensor) -> None:
        raise MotesError("rows that are read ahead cannot be shortened: shorten those of the model itself")
