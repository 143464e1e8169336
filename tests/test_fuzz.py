"""A slice of `make fuzz`: malformed input is refused by an error of motes, soon and without much memory."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from fuzz.harness import BYTES, Reader, run
from fuzz.readers import readers
from motes.errors import MotesError


@pytest.mark.parametrize("name", readers())
def test_malformed_input_is_refused(name: str, tmp_path: Path) -> None:
    reader = readers()[name]
    assert list(run(reader, range(reader.slice), tmp_path)) == []


def _slow(*_: object) -> None:
    while True:
        pass


def _large(*_: object) -> None:
    bytearray(2 * BYTES)


def _wrong(given: dict[str, int], _: Path) -> None:
    given["seed"]


def _refuses(*_: object) -> None:
    raise MotesError("no")


@pytest.mark.parametrize(
    "read, says", [(_slow, "TooSlow"), (_large, "MemoryError"), (_wrong, "KeyError"), (_refuses, "")]
)
def test_what_a_reader_must_not_do_is_found(read, says, tmp_path: Path) -> None:
    reader = Reader("broken", lambda rng: {"number": rng.randrange(9)}, read)
    found = list(run(reader, range(1), tmp_path))
    assert [says in f.error for f in found] == ([True] if says else [])


def test_inputs_are_functions_of_their_number() -> None:
    for reader in readers().values():
        same = [repr(reader.make(random.Random(f"{reader.name} 7"))) for _ in range(2)]
        assert same[0] == same[1]
