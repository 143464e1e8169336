"""The rules of decoding, one a file: what each changes of the next-token law, and the mass that it keeps.

A new rule is one new file in this folder with a `Rule` under `@rules.register`.
"""

from motes.language.rule import rules
from motes.language.rules.antidistillation import moved
from motes.language.rules.basis_aware import basis_of
from motes.language.rules.reading import by_name, parse, signature
from motes.language.rules.stable_entropy import decode_stable

__all__ = [
    "basis_of",
    "by_name",
    "decode_stable",
    "moved",
    "parse",
    "rules",
    "signature",
    *rules.door(globals(), by_name=True),
]
