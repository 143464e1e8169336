"""The regular expressions of schemas, and those and grammars that llguidance reads."""

from __future__ import annotations

import random
from pathlib import Path

from fuzz.harness import Reader
from fuzz.mutate import spoil_text
from motes.language import grammar, regex
from motes.language.constraints.schema.expression import compiled

PATTERNS = [
    "^(a|b)*c{2,5}[^x-z]?$",
    "\\d+\\.\\w*(?:foo|bar){3}",
    "[a-z]{1,40} ?(yes|no)+",
    "(((a)))|b|",
    "\\u0041\\x41[\\]^-]",
]
GRAMMAR = 'start: item ("," item)*\nitem: NAME | "(" start ")"\nNAME: /[a-z]{1,8}/\n'


def make(rng: random.Random) -> tuple[str, str]:
    kind = rng.choice(["pattern", "pattern", "regex", "grammar"])
    return kind, spoil_text(rng, GRAMMAR if kind == "grammar" else rng.choice(PATTERNS))


def read(given: tuple[str, str], folder: Path) -> None:
    kind, text = given
    if kind == "pattern":
        found = compiled.__wrapped__(text)
        found.matches("abccc 1.x")
    else:
        (regex if kind == "regex" else grammar)(text)


READER = Reader("expressions", make, read, slice=150)
