"""A language model that is a table: exact answers for tests, examples and teaching."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from motes.core.files.settings import digest
from motes.errors import MotesError, ShapeError
from motes.language.models.model import (
    LanguageModel,
    Message,
    Prefixes,
    check_look,
    check_tokens,
)
from motes.language.models.texts import TextPrefixes


class TableModel(LanguageModel):
    """Next-token probabilities from a function of the tokens so far, over a vocabulary small enough to enumerate.

    Args:
        tokens: the text of each token; the last one ends a text and is never shown.
        logits: maps the tokens so far (a tuple of ints, without the prompt) to (V,) logits or log-probabilities;
            or one tensor (V + 1, V): row v after token v, the last row at the start.

    Example:
        >>> model = TableModel(["a", "b", "."], torch.zeros(4, 3))
        >>> model.decode([0, 1, 1, 2])
        'abb'
    """

    tokens: list[str]
    digest: str
    evaluations: int

    def __init__(
        self, tokens: Sequence[str], logits: Callable[[tuple[int, ...]], Tensor] | Tensor, *, name: str = "table"
    ):
        self.tokens, self.name = list(tokens), name
        self.vocabulary, self.end = len(tokens), (len(tokens) - 1,)
        if isinstance(logits, Tensor):
            table = logits
            if table.shape != (self.vocabulary + 1, self.vocabulary):
                want = (self.vocabulary + 1, self.vocabulary)
                raise ShapeError(f"the table must have shape {want}, a row a last token, not {tuple(table.shape)}")
            self.logits: Callable[[tuple[int, ...]], Tensor] = lambda text: table[text[-1] if text else -1]
            self.digest = digest(table.to(torch.float64))
        else:
            self.logits, self.digest = logits, "function"
        self._recogniser_tokenizer: Any = None
        self.evaluations = 0
        """How many prefixes were evaluated so far."""

    def encode(self, prompt: str | Sequence[Message], chat: bool | str = "auto") -> Tensor:
        if prompt not in ("", []) or chat is True:
            raise MotesError("a TableModel takes the empty prompt '' and no chat template")
        return torch.tensor([self.end[0]])

    def decode(self, tokens: Sequence[int]) -> str:
        return "".join(self.tokens[v] for v in tokens if v not in self.end)

    def prefixes(self, prompt: Tensor, max_tokens: int) -> Prefixes:
        check_tokens(self.name, prompt, self.vocabulary)
        return _TablePrefixes(self)

    def recogniser_tokenizer(self) -> Any:
        from llguidance import LLTokenizer, TokenizerWrapper  # pyright: ignore[reportPrivateImportUsage]

        if self._recogniser_tokenizer is None:
            self._recogniser_tokenizer = LLTokenizer(TokenizerWrapper(_ByteTokens(self.tokens, self.end[0])))
        return self._recogniser_tokenizer

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "tokens": self.tokens, "table": self.digest}

    def row(self, text: tuple[int, ...]) -> Tensor:
        """The (V,) logits after `text`, checked."""
        self.evaluations += 1
        out = self.logits(text)
        if not isinstance(out, Tensor) or out.shape != (self.vocabulary,):
            raise ShapeError(f"the logits after {text} must be a tensor ({self.vocabulary},), not {out!r}")
        return out.to(torch.float64)


class _TablePrefixes(TextPrefixes):
    def __init__(self, model: TableModel):
        self.model = model
        self.texts = [()]
        self.logits = model.row(())[None]
        self.length = torch.zeros(1, dtype=torch.int64)
        self.looked = None

    def extend(self, parent: Tensor, token: Tensor) -> None:
        texts, rows, old = [], [], self.logits
        for p, v in zip(parent.tolist(), token.tolist(), strict=True):
            texts.append(self.texts[p] if v < 0 else (*self.texts[p], v))
            rows.append(old[p] if v < 0 else self.model.row(texts[-1]))
        self.texts, self.logits, self.looked = texts, torch.stack(rows), None
        self.length = torch.tensor([len(text) for text in texts])

    def look(self, tokens: Tensor, count: Tensor) -> Tensor:
        check_look(tokens, count, len(self.texts))
        out = torch.full((*tokens.shape, self.model.vocabulary), torch.nan, dtype=torch.float64)
        for i, text in enumerate(self.texts):
            for j in range(int(count[i])):
                text = (*text, int(tokens[i, j]))
                out[i, j] = self.model.row(text)
        self.looked = (tokens, count, out)
        return out


class _ByteTokens:
    """The interface that llguidance's TokenizerWrapper asks for."""

    def __init__(self, tokens: Sequence[str], end: int):
        self.tokens = [t.encode() for t in tokens[:-1]] + [b"<|end|>"]
        self.eos_token_id, self.bos_token_id, self.special_token_ids = end, None, [end]

    def __call__(self, text: bytes) -> list[int]:
        out: list[int] = []
        text = text if isinstance(text, bytes) else text.encode()
        while text:
            fit = [i for i, t in enumerate(self.tokens) if t and text.startswith(t)]
            if not fit:
                return out
            best = max(fit, key=lambda i: len(self.tokens[i]))
            out.append(best)
            text = text[len(self.tokens[best]) :]
        return out
