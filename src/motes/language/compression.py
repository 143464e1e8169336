"""Lossless compression of text: arithmetic coding with a language model's next-token laws."""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Final

import numpy as np
import torch
from torch import Tensor

from motes.core.cite import cited
from motes.errors import FileError, MotesError, NanLogPotential
from motes.language.models.model import LanguageModel, Prefixes
from motes.language.models.table import TableModel

REFERENCES: Final = (
    cited("witten1987", "arithmetic coding with whole numbers"),
    cited("deletang2024", "a language model as the coder's law"),
)

MAGIC: Final = b"motes-ac1"
TOTAL: Final = 2**48
"""What the whole-number frequencies of one token sum to, at most."""
BITS: Final = 128
"""Bits of the coder's interval, so that rounding costs less than 2^-70 bits a token."""
HEAD: Final = len(MAGIC) + 8 + 4


@dataclass(frozen=True)
class Compressed:
    """A text as few bytes.

    Attributes:
        data: what `decompress` needs: a head of 21 bytes (which model, checksum), then the code.
        bits: the length of the code, without the head.
        log_prob: log of the model's probability of the tokens and the end, nats.
        tokens: the number of tokens, the end counted.
        characters: of the text.
        bytes: of the text in UTF-8.
    """

    data: bytes
    bits: int
    log_prob: float
    tokens: int
    characters: int
    bytes: int

    @property
    def ideal_bits(self) -> float:
        """-log2 P(text): no code does better on average over texts of the model."""
        return -self.log_prob / math.log(2)

    @property
    def bits_per_character(self) -> float:
        return self.bits / self.characters if self.characters else math.nan

    @property
    def bits_per_byte(self) -> float:
        return self.bits / self.bytes if self.bytes else math.nan

    def __repr__(self) -> str:
        return (
            f"Compressed({self.bits} bits for {self.characters} characters, {self.bits_per_character:.3f} a character; "
            f"-log2 P = {self.ideal_bits:.2f})"
        )


def compress(model: LanguageModel, text: str | Sequence[int], *, prompt: str = "") -> Compressed:
    """Code a text with arithmetic coding, in at most floor(-log2 P) + 2 bits.

    The interval [0, 1) is cut in proportion to the next-token law, once a token, so that a text of probability P ends
    as an interval of width P; the code is the shortest binary fraction that stays inside whatever follows. P is the
    model's probability of the tokens and its likeliest end token behind them, which tells the decoder where to stop.

    Laws become whole numbers f_v = 1 + floor(p_v (2^48 - 2 V)), so that every token can be coded and the rest is whole
    number arithmetic, the same everywhere. That costs at most 1.44 V 2^-48 bits a token (3e-10 for 49,152 tokens).
    Text and decoder must compute the same logits, so both evaluate one token after the other; a code is tied to the
    model, its number type and its machine, and `decompress` notices where they differ.

    Args:
        model: the language model.
        text: a text, or its tokens without an end token.
        prompt: what stands before the text, known to both sides; no chat template is used.

    Raises:
        MotesError: the tokenizer does not give the text back, or the text is longer than the model reads.

    References:
        Witten, Neal & Cleary (1987), Arithmetic coding for data compression, Communications of the ACM 30(6).
        Delétang et al. (2024), Language modeling is compression, ICLR, section 2.

    Example:
        >>> model = TableModel(["a", "b", "."], torch.tensor([0.5, 0.25, 0.25]).log().expand(4, 3))
        >>> small = compress(model, "abba")
        >>> round(small.ideal_bits, 6), small.bits, decompress(model, small)
        (8.0, 9, 'abba')
    """
    tokens = tokenise(model, text)
    spoken = model.decode(tokens)
    if isinstance(text, str) and spoken != text:
        at = next(
            (i for i, (a, b) in enumerate(zip(text, spoken, strict=False)) if a != b), min(len(text), len(spoken))
        )
        raise MotesError(
            f"the tokenizer of {model.name} does not give the text back: it differs from character {at} on "
            f"({text[at : at + 20]!r} became {spoken[at : at + 20]!r}). Special tokens cannot stand in the text"
        )
    context = model.encode(prompt, chat=False)
    _check_length(model, len(context), len(tokens) + 1)
    encoder = _Encoder()
    log_prob, first = 0.0, b""
    laws = _Laws(model, context)
    for token in [*tokens, None]:
        law, cumulative = laws.now()
        first = first or _digest(cumulative)
        if token is None:
            token = max(model.end, key=lambda v: float(law[v]))
        log_prob += float(law[token])
        below = int(cumulative[token - 1]) if token else 0
        encoder.narrow(below, int(cumulative[token]), int(cumulative[-1]))
        laws.take(token)
    code, bits = encoder.finish()
    head = MAGIC + _fingerprint(model, context, first) + zlib.crc32(_as_bytes(tokens)).to_bytes(4, "big")
    return Compressed(head + code, bits, log_prob, len(tokens) + 1, len(spoken), len(spoken.encode()))


def decompress(model: LanguageModel, data: Compressed | bytes, *, prompt: str = "") -> str:
    """The text that `compress` coded with the same model and prompt.

    Raises:
        FileError: the data are of another model, prompt or machine, or are damaged.
    """
    return model.decode(decompress_tokens(model, data, prompt))


def decompress_tokens(model: LanguageModel, data: Compressed | bytes, prompt: str = "") -> list[int]:
    """The tokens that `compress` coded, without the end token; raises as `decompress`."""
    data = data.data if isinstance(data, Compressed) else bytes(data)
    if len(data) < HEAD or not data.startswith(MAGIC):
        raise FileError("these bytes were not made by motes.language.compress, or their beginning is lost")
    fingerprint, checksum = data[len(MAGIC) : len(MAGIC) + 8], data[len(MAGIC) + 8 : HEAD]
    context = model.encode(prompt, chat=False)
    laws, decoder = _Laws(model, context), _Decoder(data[HEAD:])
    _, cumulative = laws.now()
    if _fingerprint(model, context, _digest(cumulative)) != fingerprint:
        raise FileError(
            f"the text was compressed with another model, prompt or number type than {model.name} with this prompt: "
            "both sides must have the same"
        )
    room = None if model.longest is None else model.longest - len(context)
    tokens: list[int] = []
    while True:
        token = decoder.find(cumulative)
        if token in model.end:
            break
        tokens.append(token)
        if decoder.overrun or (room is not None and len(tokens) >= room):
            raise FileError("the code does not end: it is damaged, or the model computes other logits on this machine")
        laws.take(token)
        _, cumulative = laws.now()
    if zlib.crc32(_as_bytes(tokens)).to_bytes(4, "big") != checksum:
        raise FileError("the checksum fails: the code is damaged, or the model computes other logits on this machine")
    return tokens


def tokenise(model: LanguageModel, text: str | Sequence[int]) -> list[int]:
    """The tokens of a text without template or end, checked.

    Raises:
        MotesError: a token is none of the model's, or ends a text, or a table has no token that goes on.
    """
    if not isinstance(text, (str, Sequence, Tensor)) or not all(isinstance(v, (str, Integral, Tensor)) for v in text):
        raise MotesError(f"a text to compress is a string, or its tokens as whole numbers, not {text!r}")
    if not isinstance(text, str):
        tokens = [int(v) for v in text]
    elif isinstance(model, TableModel):
        tokens = list(_longest_first(model, text))
    else:
        tokens = model.spell(text)
    bad = [v for v in tokens if not 0 <= v < model.vocabulary or v in model.end]
    if bad:
        raise MotesError(
            f"the text holds the tokens {bad[:5]}: tokens must lie in 0..{model.vocabulary - 1} and not end the text "
            f"({list(model.end)})"
        )
    return tokens


def _longest_first(model: TableModel, text: str) -> Iterator[int]:
    at = 0
    while at < len(text):
        fit = [v for v, t in enumerate(model.tokens) if t and v not in model.end and text.startswith(t, at)]
        if not fit:
            raise MotesError(
                f"no token of {model.name} goes on at character {at} ({text[at : at + 20]!r}): give the tokens instead"
            )
        best = max(fit, key=lambda v: len(model.tokens[v]))
        at += len(model.tokens[best])
        yield best


class _Laws:
    """The next-token laws of one text, token by token, as whole numbers."""

    def __init__(self, model: LanguageModel, context: Tensor):
        self.model, self.at = model, 0
        room = 2**31 if model.longest is None else model.longest - len(context)
        self.prefixes: Prefixes = model.prefixes(context, max(room, 0))

    def now(self) -> tuple[Tensor, Tensor]:
        """Log-probabilities (V,) float64 and cumulative frequencies (V,) int64."""
        log_prob = torch.log_softmax(self.prefixes.logits[0].detach().cpu().double(), -1)
        if torch.isnan(log_prob).any():
            raise NanLogPotential(
                f"{self.model.name} returned NaN or infinite logits after {self.at} tokens of the text"
            )
        return log_prob, frequencies(log_prob).cumsum(0)

    def take(self, token: int) -> None:
        if token in self.model.end:
            return
        self.at += 1
        self.prefixes.extend(torch.zeros(1, dtype=torch.int64), torch.tensor([token]))


def frequencies(log_prob: Tensor) -> Tensor:
    """Whole numbers (V,) int64, at least 1 each, that sum to at most 2^48, in proportion to exp(log_prob)."""
    return (log_prob.exp() * (TOTAL - 2 * len(log_prob))).floor().to(torch.int64) + 1


class _Encoder:
    """Cuts an interval of 128 bits and gives out the bits on which both its ends agree (Witten et al., section 3)."""

    def __init__(self) -> None:
        self.low, self.high, self.pending = 0, 2**BITS - 1, 0
        self.out: list[int] = []

    def narrow(self, below: int, upto: int, total: int) -> None:
        width = self.high - self.low + 1
        self.high = self.low + width * upto // total - 1
        self.low = self.low + width * below // total
        while True:
            if self.high < HALF:
                self._give(0)
            elif self.low >= HALF:
                self._give(1)
                self.low, self.high = self.low - HALF, self.high - HALF
            elif self.low >= QUARTER and self.high < 3 * QUARTER:
                self.pending += 1
                self.low, self.high = self.low - QUARTER, self.high - QUARTER
            else:
                return
            self.low, self.high = 2 * self.low, 2 * self.high + 1

    def _give(self, bit: int) -> None:
        self.out += [bit] + [1 - bit] * self.pending
        self.pending = 0

    def finish(self) -> tuple[bytes, int]:
        """The code, filled up with zeros to whole bytes, and its bits: two more than the interval was doubled."""
        self.pending += 1
        self._give(0 if self.low < QUARTER else 1)
        return np.packbits(np.array(self.out, dtype=np.uint8)).tobytes(), len(self.out)


class _Decoder:
    """Follows the encoder's interval."""

    def __init__(self, code: bytes):
        self.bits = np.unpackbits(np.frombuffer(code, dtype=np.uint8)).tolist()
        self.low, self.high, self.next, self.value = 0, 2**BITS - 1, 0, 0
        for _ in range(BITS):
            self.value = 2 * self.value + self._bit()

    def _bit(self) -> int:
        self.next += 1
        return self.bits[self.next - 1] if self.next <= len(self.bits) else 0

    @property
    def overrun(self) -> bool:
        """Whether the interval is narrower than any code of this length can make it."""
        return self.next > len(self.bits) + BITS

    def find(self, cumulative: Tensor) -> int:
        total, width = int(cumulative[-1]), self.high - self.low + 1
        target = ((self.value - self.low + 1) * total - 1) // width
        token = int(torch.searchsorted(cumulative, torch.tensor(target), right=True))
        self.high = self.low + width * int(cumulative[token]) // total - 1
        self.low = self.low + width * (int(cumulative[token - 1]) if token else 0) // total
        while True:
            if self.high < HALF:
                shift = 0
            elif self.low >= HALF:
                shift = HALF
            elif self.low >= QUARTER and self.high < 3 * QUARTER:
                shift = QUARTER
            else:
                return token
            self.low, self.high = 2 * (self.low - shift), 2 * (self.high - shift) + 1
            self.value = 2 * (self.value - shift) + self._bit()


HALF: Final = 2 ** (BITS - 1)
QUARTER: Final = 2 ** (BITS - 2)


def _digest(cumulative: Tensor) -> bytes:
    return hashlib.sha256(cumulative.numpy().tobytes()).digest()


def _fingerprint(model: LanguageModel, context: Tensor, first: bytes) -> bytes:
    settings = json.dumps(model.settings(), sort_keys=True).encode()
    return hashlib.sha256(settings + context.numpy().tobytes() + first).digest()[:8]


def _as_bytes(tokens: Sequence[int]) -> bytes:
    return np.array(tokens, dtype="<i8").tobytes()


def _check_length(model: LanguageModel, context: int, count: int) -> None:
    if model.longest is not None and context + count > model.longest:
        raise MotesError(
            f"prompt and text have {context + count} tokens, the end counted, and {model.name} reads at most "
            f"{model.longest}: cut the text into parts and compress each"
        )
