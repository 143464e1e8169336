"""What a language model must offer: tokens, texts, and the next-token logits of a growing set of prefixes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from motes.errors import MotesError, ShapeError, UnknownName

Message = dict[str, str]


class Prefixes(ABC):
    """The distinct texts that a run goes on from, each evaluated once: rows 0..A-1, which may differ in length.

    It is mutable, because a key-value cache is: `extend` replaces the rows, `look` and `keep` lengthen them.
    """

    logits: Tensor
    """(A, V) next-token logits of every row; at first the one row is the prompt."""
    length: Tensor
    """(A,) int64, how many tokens each row has behind the prompt."""

    @abstractmethod
    def extend(self, parent: Tensor, token: Tensor) -> None:
        """Let row i become the old row `parent[i]` with `token[i]` behind it, (A',) int64 each.

        A row whose token is -1 is carried over as it is and not evaluated; all others are.
        """

    @abstractmethod
    def look(self, tokens: Tensor, count: Tensor) -> Tensor:
        """The logits behind several tokens of each row, in one call of the model; the rows stay as they are.

        Args:
            tokens: (A, L) int64, what would follow each row.
            count: (A,) int64, how many of them count, 0..L; what stands behind is not read.

        Returns:
            (A, L, V): the logits after each token; without meaning from `count` on.
        """

    @abstractmethod
    def keep(self, count: Tensor) -> None:
        """The first `count[i]` tokens of the last `look` become part of row i, (A,) int64, at most those that counted.

        The row's logits are then those after the last of them; with 0 nothing changes.
        """

    @abstractmethod
    def shorten(self, length: Tensor, logits: Tensor) -> None:
        """Row i goes back to its first `length[i]` tokens, (A,) int64; `logits` (A, V) are those after the last.

        What was known there is the caller's to remember: nothing is evaluated.
        """


def check_shorten(length: Tensor, old: Tensor) -> None:
    """What `Prefixes.shorten` is given is no longer than the rows are."""
    if length.shape != old.shape or bool(((length < 0) | (length > old)).any()):
        raise MotesError(f"rows of {old.tolist()[:8]} tokens cannot be shortened to {length.tolist()[:8]}")


def check_look(tokens: Tensor, count: Tensor, rows: int) -> None:
    """What `Prefixes.look` is given fits its rows."""
    if tokens.ndim != 2 or len(tokens) != rows or count.shape != (rows,):
        raise ShapeError(
            f"look takes tokens ({rows}, L) and a count ({rows},), not {tuple(tokens.shape)} and {tuple(count.shape)}"
        )
    if rows and (int(count.min()) < 0 or int(count.max()) > tokens.shape[1]):
        raise MotesError(
            f"count must lie in 0..{tokens.shape[1]}, the number of tokens a row, not {count.tolist()[:8]}"
        )


def check_keep(count: Tensor, seen: Tensor | None) -> None:
    """What `Prefixes.keep` is given was looked at before."""
    if seen is None:
        raise MotesError("nothing was looked at since the rows last changed: call look before keep")
    if count.shape != seen.shape or bool(((count < 0) | (count > seen)).any()):
        raise MotesError(f"keep takes at most the counts looked at, {seen.tolist()[:8]}, not {count.tolist()[:8]}")


def kept_logits(logits: Tensor, looked: Tensor, count: Tensor) -> Tensor:
    """(A, V): those after the first `count` of the tokens looked at (A, L, V), or the old ones where that is 0."""
    if not looked.shape[1]:
        return logits
    last = looked[torch.arange(len(count)), (count - 1).clamp(min=0)]
    return torch.where((count > 0)[:, None].to(logits.device), last, logits)


class LanguageModel(ABC):
    """A causal model over the tokens 0..vocabulary-1. Nothing in it is random."""

    name: str
    vocabulary: int
    """The number of next-token logits."""
    end: tuple[int, ...]
    """The tokens that end a text."""
    longest: int | None = None
    """The most tokens that prompt and text may have together."""

    @abstractmethod
    def encode(self, prompt: str | Sequence[Message], chat: bool | str = "auto") -> Tensor:
        """The prompt as tokens (P,) int64; a chat template wraps it if `chat` is True, or "auto" and there is one."""

    @abstractmethod
    def decode(self, tokens: Sequence[int]) -> str:
        """The text of some tokens behind others, without special ones: the bytes that they write, one after the other.

        Constraints read the same bytes, so a text that goes on with a word begins with the space in front of it.
        """

    def spell(self, text: str) -> list[int]:
        """The tokens of a text that goes on from another, without a beginning of text or a space in front."""
        return self.encode(text, chat=False).tolist() if text else []

    @abstractmethod
    def prefixes(self, prompt: Tensor, max_tokens: int) -> Prefixes:
        """Evaluate the prompt (P,) once, with room for `max_tokens` tokens behind it."""

    @abstractmethod
    def recogniser_tokenizer(self) -> Any:
        """The vocabulary as llguidance wants it (an LLTokenizer), for constraints."""

    def settings(self) -> dict[str, Any]:
        """What identifies the model, as JSON."""
        return {"model": self.name, "vocabulary": self.vocabulary}


def in_place(slot: Tensor, token: Tensor, vocabulary: int) -> tuple[Tensor, Tensor, Tensor]:
    """Lay out the distinct continuations so that as few rows as possible move.

    The first continuation of an old row stays in that row if the new rows reach that far; the others fill the gaps.

    Args:
        slot: (M,) int64 row of each particle's prefix.
        token: (M,) int64 the token that each adds, -1 for none.

    Returns:
        parent (A,) and token (A,) of the new rows, and the new row (M,) of each particle.
    """
    pair, inverse = torch.unique(slot * (vocabulary + 1) + token + 1, return_inverse=True)
    parent, added = pair // (vocabulary + 1), pair % (vocabulary + 1) - 1
    count = len(pair)
    first = torch.ones(count, dtype=torch.bool)
    first[1:] = parent[1:] != parent[:-1]
    stays = first & (parent < count)
    place = torch.empty(count, dtype=torch.int64)
    place[stays] = parent[stays]
    free = torch.ones(count, dtype=torch.bool)
    free[parent[stays]] = False
    place[~stays] = torch.nonzero(free)[:, 0]
    order = torch.argsort(place)
    return parent[order], added[order], place[inverse]


def check_prompt(prompt: object) -> None:
    """A prompt is a text, or a list of chat messages.

    Raises:
        MotesError: it is neither.
    """
    messages = isinstance(prompt, Sequence) and all(
        isinstance(m, Mapping) and {"role", "content"} <= m.keys() for m in prompt
    )
    if not isinstance(prompt, str) and not messages:
        raise MotesError(
            f"a prompt is a text, or chat messages as [{{'role': 'user', 'content': 'Hello'}}], not {prompt!r}"
        )


def check_chat(chat: bool | str) -> None:
    if chat not in (True, False, "auto"):
        raise UnknownName("chat mode", chat, ["True", "False", "'auto'"])


def check_tokens(name: str, prompt: Tensor, vocabulary: int) -> None:
    if prompt.ndim != 1 or len(prompt) == 0:
        raise MotesError(f"the prompt of {name} has no tokens: a causal model needs at least one to start from")
    if int(prompt.min()) < 0 or int(prompt.max()) >= vocabulary:
        raise MotesError(f"the prompt holds tokens outside 0..{vocabulary - 1}, which {name} does not know")
