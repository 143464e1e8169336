"""Texts from outside, as they may be shown: what cannot be seen or disguises what is seen is written out."""

from __future__ import annotations

import re

HIDDEN = re.compile(
    "["
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters, among them those that begin a terminal's commands
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # marks and overrides of the direction of writing
    "\u200b\u2060-\u2064\ufeff\u00ad"  # no width at all
    "\u2028\u2029"  # other ends of a line
    "\ud800-\udfff"  # halves of a pair, which no encoding has
    "\ufdd0-\ufdef\ufffe\uffff"  # no characters
    "\U000e0000-\U000e007f"  # tags, which are not shown
    "]"
)
r"""What is written out: all that a reader cannot see, except line ends, tabs, and the joiners that scripts need."""


def visible(text: str) -> str:
    r"""The text with hidden characters as `\u202e`, so that it reads as it is, and UTF-8 can hold it."""
    return HIDDEN.sub(_written, text)


def _written(found: re.Match[str]) -> str:
    code = ord(found.group())
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
