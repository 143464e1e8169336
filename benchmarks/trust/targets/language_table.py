"""Texts of a table of four letters, under a constraint, rewards that few texts earn, and both.

The truth is a sum over all 21845 texts.
"""

from __future__ import annotations

import re

from benchmarks.trust.target import Target, Truth
from benchmarks.trust.texts import MOST, Worth, each, table, texts, tilted, under_constraint, under_reward

from motes.language import Generation, regex

FUNCTIONS: dict[str, Worth] = {"length": len, "begins with a": lambda text: float(text.startswith("a"))}
MEANS = {name: each(f) for name, f in FUNCTIONS.items()}
PATTERN = "a[bc]*d?|b(ca)+|[abcd]*dd"


def valid() -> Truth:
    laws = [(text, p) for text, p in texts() if re.fullmatch(PATTERN, text)]
    return tilted(laws, lambda text: 0.0, FUNCTIONS)


def rewarded(name: str, title: str, worth: Worth, pattern: str = "") -> Target:
    """A reward; with a pattern, of texts that match it."""
    fixed = {"constraint": regex(pattern)} if pattern else {}

    def make(**options: object) -> Generation:
        options = {**fixed, **options}
        return Generation(table(), "", reward=each(worth), max_tokens=MOST, **options)  # type: ignore[arg-type]

    def truth() -> Truth:
        laws = ((text, p) for text, p in texts() if not pattern or re.fullmatch(pattern, text))
        return tilted(laws, worth, FUNCTIONS)

    return Target(
        f"language-table-{name}",
        f"Texts of a table, {title}",
        truth,
        MEANS,
        under_reward(make),
        domain="language",
        sizes=(32, 128),
    )


TARGETS = [
    Target(
        "language-table-valid",
        "Texts of a table, a pattern",
        valid,
        MEANS,
        under_constraint(lambda kind: kind(table(), "", constraint=regex(PATTERN), max_tokens=MOST)),
        domain="language",
        sizes=(32, 128),
    ),
    rewarded("mild", "half a nat for each b", lambda text: 0.5 * text.count("b")),
    rewarded("strong", "two nats for each d", lambda text: 2.0 * text.count("d")),
    rewarded("opening", "three nats for an opening a", lambda text: 3.0 * text.startswith("a")),
    rewarded("rare", "six nats for dd", lambda text: 6.0 * ("dd" in text)),
    rewarded("both", "a pattern, three nats for dd", lambda text: 3.0 * ("dd" in text), PATTERN),
]
