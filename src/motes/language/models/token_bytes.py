"""What each token of a tokenizer writes, so that texts, rewards and constraints see one function of the tokens.

A tokenizer's own `decode` is no such function: those of SentencePiece drop the space in front of a text, others tidy up
spaces before marks, so that the decoded pieces of a text are not the pieces of the decoded text, nor what a constraint
reads. Here a text is the bytes of its tokens one behind the other, with the space that its first token writes.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from typing import Any

from motes.errors import MotesError

CHECKED = 512
"""Tokens whose bytes are compared with the tokenizer's own decoding behind another token."""
SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
"""What SentencePiece writes for a space."""
ANCHORS = ("\n", ".", "a", ":")
"""What a text is put behind, so that a tokenizer adds no space in front of it."""


def byte_tokenizer(tokenizer: Any, vocabulary: int, end: Sequence[int], name: str) -> Any:
    """The vocabulary as llguidance wants it (an LLTokenizer), whose bytes agree with the tokenizer's decoding.

    Raises:
        MotesError: the tokenizer is not a fast one, or its tokens are no bytes that follow each other.
    """
    from llguidance import LLTokenizer

    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or not getattr(tokenizer, "is_fast", False):
        raise MotesError(f"the tokenizer of {name} is none of the package tokenizers: load it as a fast one")
    backend = copy.copy(backend)
    backend.no_padding()
    backend.no_truncation()
    description = json.loads(backend.to_str())
    description["decoder"] = plain_decoder(description["decoder"])
    try:
        found: Any = LLTokenizer(json.dumps(description), n_vocab=vocabulary, eos_token=list(end))
    except ValueError as error:
        raise MotesError(
            f"constraints need a byte-level or byte-fallback tokenizer, and that of {name} is none: {error}"
        ) from error
    check_bytes(tokenizer, found, name)
    return found


def plain_decoder(decoder: Any) -> Any:
    """A decoder's description in which the sign for a space is replaced as llguidance knows it."""
    parts = (decoder or {}).get("decoders", [decoder] if decoder else [])
    signs = [part.get("replacement", SPACE) for part in parts if part["type"] == "Metaspace"]
    if not signs:
        return decoder
    replaced = {"type": "Replace", "pattern": {"String": signs[0]}, "content": " "}
    others = [part for part in parts if part["type"] not in ("Metaspace", "ByteFallback", "Fuse", "Strip")]
    return {"type": "Sequence", "decoders": [replaced, {"type": "ByteFallback"}, {"type": "Fuse"}, *others]}


def check_bytes(tokenizer: Any, found: Any, name: str) -> None:
    """Raise MotesError unless tokens write their bytes behind another token, by the tokenizer's own decoding."""

    def decoded(tokens: list[int]) -> str:
        return tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False)

    size = min(len(tokenizer), found.vocab_size)
    plain = [v for v in range(size) if not found.is_special_token(v)]
    pieces = {v: bytes(found.decode_bytes([v])) for v in plain}
    anchor = next((v for v in plain if pieces[v].isalpha()), None)
    if anchor is None:
        return
    before, added = decoded([anchor]), [v for v in plain if v in tokenizer.added_tokens_decoder]
    for v in [*plain[:: max(1, len(plain) // CHECKED)], *added[:CHECKED]]:
        try:
            right = before + pieces[v].decode()
        except UnicodeDecodeError:  # part of a character
            continue
        if decoded([anchor, v]) != right:
            raise MotesError(
                f"constraints need tokens that are bytes, and in the tokenizer of {name} the token {v} writes "
                f"{decoded([anchor, v])[len(before) :]!r} behind another where its bytes are {pieces[v]!r}"
            )


def decoded_behind(tokenizer: Any, tokens: Sequence[int]) -> str:
    """The text of tokens that are no bytes, as it is behind another word."""

    def decoded(some: Sequence[int]) -> str:
        return tokenizer.decode(list(some), skip_special_tokens=True, clean_up_tokenization_spaces=False)

    anchor = tokenizer("a", add_special_tokens=False)["input_ids"]
    before, whole = decoded(anchor), decoded([*anchor, *tokens])
    return whole[len(before) :] if whole.startswith(before) else decoded(tokens)


def spelt(model: Any, text: str) -> list[int]:
    """The tokens that a model's tokenizer gives for a text that goes on from another, without a space in front.

    Where no way of asking gives the text back, the tokens of the text alone.
    """

    def tokens_of(part: str) -> list[int]:
        return list(model.tokenizer(part, add_special_tokens=False)["input_ids"]) if part else []

    alone = tokens_of(text)
    if model.decode(alone) == text:
        return alone
    for anchor in ANCHORS:
        before, whole = tokens_of(anchor), tokens_of(anchor + text)
        if whole[: len(before)] == before and model.decode(whole[len(before) :]) == text:
            return whole[len(before) :]
    return alone
