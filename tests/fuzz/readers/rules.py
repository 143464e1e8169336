"""Rules of decoding as text, as commands take them."""

from __future__ import annotations

import random
from pathlib import Path

from fuzz.harness import Reader
from fuzz.mutate import spoil_text
from motes.language.rules import parse

WHOLE = ["temperature(0.8), min_p(0.05)", "top_k(50)", "mirostat(tau=3.0, eta=0.1)", "nucleus(0.9), typical(mass=.5)"]


def make(rng: random.Random) -> str:
    return spoil_text(rng, rng.choice(WHOLE))


def read(given: str, folder: Path) -> None:
    for rule in parse(given):
        rule.settings()


READER = Reader("rules", make, read, slice=200)
