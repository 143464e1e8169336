"""The structural marks of JSON: commas and closing brackets outside of strings."""

from __future__ import annotations

from typing import NamedTuple


class Scan(NamedTuple):
    """How many marks a text has passed, whether it is within a string, and whether behind a backslash there."""

    marks: int
    within: bool
    escaped: bool


BEGINNING = Scan(0, False, False)


def scanned(scan: Scan, text: bytes) -> Scan:
    """The scan with more of the text."""
    marks, within, escaped = scan
    for byte in text:
        if escaped:
            escaped = False
        elif byte == 34:
            within = not within
        elif within:
            escaped = byte == 92
        else:
            marks += byte in b",}]"
    return Scan(marks, within, escaped)
