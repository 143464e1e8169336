"""Prompts that end in the middle of a token."""

from __future__ import annotations

from motes.errors import MotesError
from motes.language.bytewise.bytes import ByteModel
from motes.language.constraint import Constraint
from motes.language.constraints.pieces import Pieces, pieces, whole
from motes.language.constraints.starts_with import starts_with
from motes.language.models.model import LanguageModel


def healed(model: LanguageModel, prompt: str) -> tuple[str, Constraint]:
    """A prompt cut back to where no token can reach across its end, and the constraint to write the rest of it again.

    After "The capital of Fran" the model never sees "France" as it was trained to, since the prompt's last tokens are
    fixed. So the prompt is cut at the first of its tokens such that some token of the vocabulary begins with all that
    follows there and goes on; and further, to where the tokenizer cuts the text before in the same way. What was cut
    off is what the text must begin with, in any spelling. The weights count the probability of that beginning, so that
    the weighted texts have the law of the model's own texts after the shorter prompt, given that they begin so, and
    the log evidence is the log-probability of the beginning (if there is no other constraint).

    A text then begins with what was cut off: shorter prompt and text together go on from the prompt. Give the prompt
    with `chat=False`; a prompt in a chat template ends in a control token, and needs no healing.

    Args:
        model: the model over tokens, or a `ByteModel` of it.
        prompt: a text.

    Raises:
        MotesError: the prompt is no string or empty.

    Example (with any model of `motes.language.load`):
        prompt, begun = healed(model, "The capital of Fran")
        run = motes.sample(motes.Generation(model, prompt, constraint=begun, chat=False), 64)
    """
    if not isinstance(prompt, str) or not prompt:
        raise MotesError(f"a prompt to heal must be a text that is not empty, not {prompt!r}")
    model = model.model if isinstance(model, ByteModel) else model
    tokens, known, written = model.encode(prompt, chat=False).tolist(), pieces(model), prompt.encode()
    rests = _rests(known, tokens, written)
    open_ends = [at for at, rest in rests if known.beginning_with(rest)]
    if not open_ends:
        return prompt, starts_with(b"")
    for at, rest in rests:
        head = written[: max(0, len(written) - len(rest))]
        if at > open_ends[-1] or whole(head)[1]:
            continue
        before = model.encode(head.decode(), chat=False).tolist()
        if not before:
            raise MotesError(
                f"all of the prompt {prompt!r} may be part of longer tokens, and {model.name} has no token that could "
                "stand in front of it: give it more text to begin with"
            )
        if not head or before == tokens[:at]:
            return head.decode(), starts_with(rest)
    raise MotesError(
        f"the tokenizer of {model.name} cuts every beginning of the prompt {prompt!r} in another way than the whole: "
        "there is no safe place to heal it from"
    )


def _rests(known: Pieces, tokens: list[int], written: bytes) -> list[tuple[int, bytes]]:
    """The places between tokens, from the back, and what the prompt's tokens write behind each."""
    out, rest = [], b""
    for at in range(len(tokens) - 1, -1, -1):
        piece = known.bytes[tokens[at]]
        rest = piece + rest
        # some tokenizers put a space in front of everything, which then belongs to what is written again
        if not piece or not (written.endswith(rest) or rest == b" " + written):
            break
        out.append((at, rest))
    return out
