"""A tokenised language model read byte by byte, exactly or with a beam."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from motes.core.cite import cited
from motes.errors import MotesError
from motes.language.bytewise.byte_prefixes import BytePrefixes
from motes.language.bytewise.tokenization_covers import Spelling
from motes.language.constraints.pieces import pieces
from motes.language.models.model import LanguageModel, Message, check_tokens

PHAN = cited("phan2024", "next-byte probabilities")
VIEIRA = cited("vieira2024", "covers of a string by tokens, and a beam of them")


class ByteModel(LanguageModel):
    """The law of a model's texts as bytes: a language model whose tokens are the 256 bytes and the end.

    A string s of bytes can be covered by many token sequences. The text begins with s exactly if its tokens begin with
    one of the minimal covers of s: sequences t_1..t_m whose concatenation begins with s while that of t_1..t_{m-1} is
    shorter than s. So

        P(s) = sum over minimal covers of p(t_1) p(t_2 | t_1) ... p(t_m | t_1..t_{m-1}),

    and the next byte b has probability P(s b) / P(s). What is left, P(s) - sum_b P(s b), is the probability that the
    text ends after s. Tokens that write nothing are symbols of their own: 256 is the first token that ends a text, then
    come the others, and then the control tokens, if there are any.

    The number of covers grows exponentially with the length of s. A beam of K keeps the K that have most mass, of each
    string, so that a byte costs at most K new evaluations; one of them, with K >= 2, is always a sequence that ends
    where the string does, so that no byte that is a token gets the probability zero. The law is close to the exact
    one, not equal to it; `BytePrefixes.covers` and `next_bytes` say how much mass was pruned.

    The prompt is what the tokenizer makes of it: only the text behind it is read byte by byte. After a string that no
    tokens spell, of probability zero, all symbols are given equal probability.

    Args:
        model: the model over tokens.
        beam: K, or None for all covers.

    Raises:
        MotesError: beam is no positive number.

    Example:
        >>> import torch
        >>> from motes.language import TableModel
        >>> model = ByteModel(TableModel(["a", "ab", "."], torch.tensor([0.5, 0.3, 0.2]).log().expand(4, 3)))
        >>> law = model.prefixes(model.encode(""), 8).logits[0].exp()
        >>> round(float(law[ord("a")]), 6), round(float(law[256]), 6)
        (0.8, 0.2)

    References:
        Phan et al. (2024), arXiv 2410.09303, the byte-token representation lemma. Vieira et al. (2024), arXiv
        2412.03719, on covers of a string and their beam.
    """

    model: LanguageModel
    beam: int | None

    references = (PHAN, VIEIRA)

    def __init__(self, model: LanguageModel, *, beam: int | None = None):
        if beam is not None and (isinstance(beam, bool) or not isinstance(beam, int) or beam < 1):
            raise MotesError(f"beam must be None (all covers) or a whole number of at least 1, not {beam!r}")
        self.model, self.beam, self.name = model, beam, f"{model.name} by bytes"
        self.spelling: Spelling = Spelling(pieces(model), model.end)
        self.vocabulary = self.spelling.count
        self.end = tuple(range(256, 256 + len(model.end)))
        self._encoded: dict[tuple[int, ...], Tensor] = {}
        self._recogniser_tokenizer: Any = None

    def encode(self, prompt: str | Sequence[Message], chat: bool | str = "auto") -> Tensor:
        tokens = self.model.encode(prompt, chat)
        symbols = self.spelling.symbols(tokens.tolist())
        self._encoded[tuple(symbols)] = tokens  # as the tokenizer had it, a beginning of text or a space in front too
        return torch.tensor(symbols, dtype=torch.int64)

    def decode(self, tokens: Sequence[int]) -> str:
        return bytes(v for v in tokens if v < 256).decode("utf-8", errors="replace")

    def prefixes(self, prompt: Tensor, max_tokens: int) -> BytePrefixes:
        check_tokens(self.name, prompt, self.vocabulary)
        symbols = tuple(prompt.tolist())
        tokens = self._encoded.get(symbols)
        if tokens is None:
            tokens = torch.tensor(self.spelling.tokens(symbols), dtype=torch.int64)
        inner = self.model.prefixes(tokens, max_tokens)
        return BytePrefixes(inner, self.spelling, self.beam, self.model.name)

    def recogniser_tokenizer(self) -> Any:
        from llguidance import LLTokenizer, TokenizerWrapper  # pyright: ignore[reportPrivateImportUsage]

        if self._recogniser_tokenizer is None:
            self._recogniser_tokenizer = LLTokenizer(TokenizerWrapper(_Bytes(self.vocabulary, self.end[0])))
        return self._recogniser_tokenizer

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "tokens": self.model.settings(), "beam": self.beam}


@dataclass(frozen=True)
class NextBytes:
    """What follows a string of bytes.

    Attributes:
        log_prob: log P(the text begins with the string), nats.
        next_log_prob: (S,) float64, of each byte, the end and the control tokens, given the string.
        log_lost: the log of a bound on the probability that pruning took from exp(log_prob).
        log_kept: the log of the share of probability that pruning kept, if what was pruned had gone on as the rest.
    """

    log_prob: float
    next_log_prob: Tensor
    log_lost: float
    log_kept: float


def next_bytes(
    model: LanguageModel, text: str | bytes, *, prompt: str = "", beam: int | None = None, chat: bool | str = "auto"
) -> NextBytes:
    """The probability that a model's text begins with a string, and the law of the byte behind it.

    Args:
        model: the model over tokens.
        text: what its text begins with, which may end within a token.
        prompt: what stands before, as tokens.
        beam: how many covers to keep; None is all.
        chat: as for `motes.Generation`.

    Raises:
        MotesError: no tokens spell the text.
    """
    by_bytes = ByteModel(model, beam=beam)
    written = text.encode() if isinstance(text, str) else text
    prefixes = by_bytes.prefixes(by_bytes.encode(prompt, chat), max(1, len(written)))
    for s in written:
        prefixes.extend(torch.tensor([0]), torch.tensor([s]))
        if not prefixes.covers[0].branches:
            raise MotesError(f"no tokens of {model.name} that have a probability spell {written!r}")
    cover = prefixes.covers[0]
    return NextBytes(cover.log_prob, prefixes.logits[0], cover.log_lost, cover.log_kept)


class _Bytes:
    """The interface that llguidance's TokenizerWrapper asks for: 256 bytes and the silent tokens."""

    def __init__(self, count: int, end: int):
        silent = range(256, count)
        self.tokens = [bytes([b]) for b in range(256)] + [f"<|silent-{v}|>".encode() for v in silent]
        self.eos_token_id, self.bos_token_id, self.special_token_ids = end, None, list(silent)

    def __call__(self, text: bytes | str) -> list[int]:
        return list(text if isinstance(text, bytes) else text.encode())
