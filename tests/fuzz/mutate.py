"""Ways to spoil bytes, texts and JSON."""

from __future__ import annotations

import json
import random
from typing import Any

WORDS = [
    "",
    "\x00",
    "\ud800",
    "\u202e",
    "￿",
    "../../x",
    "a" * 5000,
    "NaN",
    "-1",
    "1e999",
    "{}",
    "[]",
    "null",
    "%s",
    "\\",
]
NUMBERS = [0, -1, 1, 2, 255, 2**31, 2**32, 2**53 + 1, 2**63, 2**64, -(2**63) - 1, 10**30, 10**400, 0.5, -0.0, 1e308]
ODD = [None, True, False, float("nan"), float("inf"), -float("inf"), [], {}, [[]], {"": None}]


def spoil_bytes(rng: random.Random, whole: bytes) -> bytes:
    """Bytes with one to four faults: bits flipped, parts cut out, doubled, overwritten, or the end cut off."""
    data = bytearray(whole)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        if not data:
            break
        at, length = rng.randrange(len(data)), rng.choice([1, 2, 4, 8, 64])
        kind = rng.randrange(6)
        if kind == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del data[at:]
        elif kind == 2:
            del data[at : at + length]
        elif kind == 3:
            data[at:at] = data[at : at + length]
        elif kind == 4:
            data[at : at + length] = rng.choice([b"\x00", b"\xff"]) * length
        else:
            data[at : at + 8] = rng.choice(NUMBERS[:9]).__index__().to_bytes(16, "little", signed=True)[:8]
    return bytes(data)


def spoil_text(rng: random.Random, whole: str) -> str:
    """A text with one to four faults: pieces cut, doubled, exchanged, or odd words put in."""
    text = whole
    for _ in range(rng.choice([1, 1, 2, 4])):
        at = rng.randrange(len(text) + 1)
        to = min(len(text), at + rng.choice([1, 1, 3, 10, 50]))
        piece = text[at:to]
        new = rng.choice(["", piece * 2, piece[::-1], piece * 200, rng.choice(WORDS), chr(rng.randrange(0x110000))])
        text = text[:at] + new + text[to:]
    return text


def odd_value(rng: random.Random, depth: int = 0) -> Any:
    """A JSON value that nobody expects; now and then a deep or a long one."""
    kind = rng.randrange(7)
    if kind < 2:
        return rng.choice(NUMBERS)
    if kind == 2:
        return rng.choice(WORDS)
    if kind == 3 and depth < 3:
        return {rng.choice(WORDS): odd_value(rng, depth + 1) for _ in range(rng.randrange(4))}
    if kind == 4 and depth < 3:
        return [odd_value(rng, depth + 1) for _ in range(rng.randrange(4))]
    if kind == 5 and depth == 0:
        value: Any = rng.choice([[], {}])
        for _ in range(rng.choice([10, 100, 400])):
            value = [value] if rng.random() < 0.5 else {rng.choice("abc"): value}
        return value
    return rng.choice(ODD)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of a JSON value."""
    found: list[tuple[Any, Any]] = []
    stack = [value]
    while stack:
        one = stack.pop()
        if isinstance(one, dict):
            keys = list(one)
        elif isinstance(one, list):
            keys = list(range(len(one)))
        else:
            continue
        found += [(one, k) for k in keys]
        stack += [one[k] for k in keys]
    return found


def spoil_json(rng: random.Random, whole: Any) -> Any:
    """A copy of a JSON value with one to three places replaced, removed, renamed or exchanged."""
    value = json.loads(json.dumps(whole))
    for _ in range(rng.choice([1, 1, 2, 3])):
        found = places(value)
        if not found:
            return odd_value(rng)
        inside, key = rng.choice(found)
        kind = rng.randrange(7)
        if kind < 3:
            inside[key] = odd_value(rng)
        elif kind == 6 and isinstance(inside, dict):
            inside[rng.choice([*WORDS, "replicas", "t", "layout"])] = odd_value(rng)
        elif kind == 3:
            del inside[key]
        elif kind == 4 and isinstance(inside, dict):
            inside[rng.choice([*WORDS, *inside])] = inside.pop(key)
        else:
            other, elsewhere = rng.choice(found)
            inside[key] = json.loads(json.dumps(other[elsewhere])) if _still(other, elsewhere) else odd_value(rng)
    return value


def _still(inside: Any, key: Any) -> bool:
    return key in inside if isinstance(inside, dict) else key < len(inside)
