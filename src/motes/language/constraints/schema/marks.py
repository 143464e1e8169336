"""The structural marks of JSON, and of grammars: commas, closing brackets and the like outside of strings."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple


class Scan(NamedTuple):
    """How many marks a text has passed, whether it is within a string, and whether behind a backslash there."""

    marks: int
    within: bool
    escaped: bool


@dataclass(frozen=True)
class Marks:
    """The bytes that end a part of the structure, and whether double quotes hold text in which they do not count."""

    bytes: bytes = b",}]"
    quoted: bool = True


JSON = Marks()
BEGINNING = Scan(0, False, False)
SEPARATORS = frozenset(b",;)]}\n|&+-*/=<>")
"""Literals of a grammar behind which a part of a text is complete: brackets that open one are not among them."""
TOKEN = re.compile(r'(//[^\n]*)|"((?:[^"\\\n]|\\.)*)"i?|/((?:[^/\\\n]|\\.)+)/')
"""In Lark's notation: a comment, a literal, a regular expression."""


def scanned(scan: Scan, text: bytes, kind: Marks = JSON) -> Scan:
    """The scan with more of the text."""
    marks, within, escaped = scan
    for byte in text:
        if escaped:
            escaped = False
        elif kind.quoted and byte == 34:
            within = not within
        elif within:
            escaped = byte == 92
        else:
            marks += byte in kind.bytes
    return Scan(marks, within, escaped)


def of_grammar(source: str) -> Marks | None:
    """The marks of a grammar in Lark's notation: its literals that separate and close; None: it has none.

    Double quotes hold text where a regular expression of the grammar begins with one, as those of strings do.
    """
    found = set[int](b",}]" if "%json" in source else b"")
    quoted = "%json" in source
    for comment, literal, expression in TOKEN.findall(source):
        if not comment:
            found |= SEPARATORS & {*literal.replace("\\n", "\n").encode()}
            quoted = quoted or expression.lstrip("\\").startswith('"')
    return Marks(bytes(sorted(found)), quoted) if found else None
