"""A text that satisfies a constraint, found with little work, for messages that say how long one may be."""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import dataclass, field
from itertools import count

import torch
from torch import Tensor

from motes.language.constraint import Constraint, Recogniser, shorten
from motes.language.constraints.pieces import Pieces, pieces
from motes.language.models.model import LanguageModel

TRIED = 3000
"""Texts that are tried before the search gives up: about a second with fifty thousand tokens."""
ALL = 100
"""Where no more tokens may follow, all are tried; else the single characters and `FEW` of those that close or write
much."""
FEW = 5
PAIRS = {ord("}"): ord("{"), ord("]"): ord("["), ord(")"): ord("(")}
OPEN, MET, FORCED = 5, 10, 1
"""What a beginning costs for each open bracket, and for each time that its mask was met before, where that leaves a
choice and where the next characters are forced; each forced character gains 1."""


@dataclass(order=True)
class Beginning:
    """A text that may be continued; the smallest is next."""

    cost: int
    length: int
    place: int
    gain: int = field(compare=False)
    state: bytes = field(compare=False)
    tokens: list[int] = field(compare=False)
    mask: Tensor = field(compare=False)


def example(recogniser: Recogniser, model: LanguageModel, most: int) -> list[int] | None:
    """A text of at most `most` tokens, the end not counted; short, but not always the shortest. None: none was found.

    Best first: forced characters count for a beginning; open brackets count against it, and so does how often its mask
    of next tokens was met before, since within a free string the mask is always the same.
    """
    spelt, met, found = pieces(model), Counter[bytes](), None
    kinds, place = _kinds(spelt), count()
    if ends(recogniser, model, 1)[0]:
        return []
    heap = [Beginning(0, 0, 0, 0, b"", [], recogniser.allowed()[0])]
    tried = 0
    while heap and tried < TRIED:
        one = heapq.heappop(heap)
        forced = _forced(spelt, one.mask)
        met[one.state] += MET if forced == 0 else FORCED
        longer = _longer(recogniser, one.tokens, _candidates(one.mask, kinds)) if len(one.tokens) < most else []
        tried += 1 + len(longer)
        if not longer:
            continue
        recogniser.reopen(dict(enumerate(longer)), len(longer))
        over = ends(recogniser, model, len(longer))
        if over.any():
            found, most = longer[int(torch.nonzero(over)[0, 0])], len(one.tokens)
            continue
        new: dict[bytes, Beginning] = {}
        for tokens, allowed in zip(longer, recogniser.allowed(), strict=True):
            if not allowed.any():
                continue
            said, state = spelt.write(tokens), allowed.numpy().tobytes()
            gain = one.gain + min(forced, len(spelt.bytes[tokens[-1]]))
            cost = OPEN * openness(said) + met[state] - gain
            beginning = Beginning(cost, -len(said), next(place), gain, state, tokens, allowed)
            new[state] = min(beginning, new.get(state, beginning))
        for beginning in new.values():
            heapq.heappush(heap, beginning)
    return found


def no_room(constraint: Constraint, model: LanguageModel, max_tokens: int) -> str:
    """What to say where texts were cut before they satisfied the constraint: a number of tokens that suffices."""
    said = f"no text reached the end of the {constraint.kind} within max_tokens={max_tokens}"
    recogniser = constraint.recogniser(model)
    least = max(recogniser.needs(), 1)
    found = constraint.sketch(model) or example(recogniser, model, 8 * max_tokens + 256)
    if found is None:
        return (
            f"{said}, and a short search found none either (at least {least} token{'s' * (least > 1)} and perhaps many "
            "more): raise max_tokens, or ask for less"
        )
    more = "raise max_tokens" if len(found) > max_tokens else "the model avoids such texts: use more particles"
    return f"{said}; one of {len(found)} tokens is {shorten(model.decode(found))}: {more}"


def ends(recogniser: Recogniser, model: LanguageModel, rows: int) -> Tensor:
    """(rows,) bool: whether the texts of the first rows satisfy if they end here."""
    row, allowed = torch.arange(rows), recogniser.allowed()
    over = torch.zeros(rows, dtype=torch.bool)
    for end in model.end:
        may = row[allowed[:, end] & ~over]
        over[may] = True if recogniser.full else recogniser.test(may, torch.full_like(may, end))
    return over


def openness(text: bytes) -> int:
    """Brackets that are open, and escapes: they are never worth it."""
    left: list[int] = []
    for c in text:
        if c in PAIRS.values():
            left.append(c)
        elif left and left[-1] == PAIRS.get(c):
            left.pop()
    return len(left) + text.count(b"\\")


def _longer(recogniser: Recogniser, text: list[int], token: Tensor) -> list[list[int]]:
    """The text with each of the tokens behind it, as far as they pass."""
    if not recogniser.full and len(token):
        recogniser.reopen({0: text}, 1)
        token = token[recogniser.test(torch.zeros_like(token), token)]
    return [[*text, v] for v in token.tolist()]


def _forced(spelt: Pieces, mask: Tensor) -> int:
    """How many characters must come next, as far as the tokens of a small mask tell."""
    allowed = torch.nonzero(mask)[:, 0].tolist()
    texts = [spelt.bytes[v] for v in allowed] if len(allowed) <= ALL else []
    for at in range(spelt.longest):
        if len({text[at] for text in texts if len(text) > at}) != 1:
            return at
    return 0


def _kinds(spelt: Pieces) -> Tensor:
    """(3, V): whether a token is one character; how much it closes; how long it is. -inf: it is not plain."""
    plain = torch.tensor([min(piece, default=0) >= 32 and max(piece) < 127 for piece in spelt.bytes])
    length = torch.tensor([float(len(piece)) for piece in spelt.bytes])
    closing = torch.tensor([float(sum(c in b'}])"' for c in piece[:3])) for piece in spelt.bytes])
    out = torch.stack([(length == 1).float(), 100 * closing - length, length]).masked_fill(~plain, -torch.inf)
    return torch.cat([out, (length > 0).float()[None]])


def _candidates(mask: Tensor, kinds: Tensor) -> Tensor:
    """The tokens of a mask that are tried."""
    allowed = torch.nonzero(mask & (kinds[3] > 0))[:, 0]
    if len(allowed) <= ALL:
        return allowed
    single, closing, length = kinds[:3, allowed]
    best = torch.cat([torch.nonzero(single == 1)[:, 0], closing.topk(FEW).indices, length.topk(FEW).indices])
    return allowed[best.unique()]
