"""The registry: files are found, a second entry of a name is refused, and so is what other packages break."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

import motes.core.registry as registries
from motes.core import Registry
from motes.errors import MotesError, MotesWarning, UnknownName

ENTRY = """
from shelf import things

@things.register
class {}:
    pass
"""


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A registry of a package of its own, with two entries and a file that holds none."""
    package = tmp_path / "shelf"
    package.mkdir()
    (package / "__init__.py").write_text("from motes.core import Registry\nthings = Registry('thing', 'shelf')\n")
    (package / "one.py").write_text(ENTRY.format("FirstThing"))
    (package / "two.py").write_text(ENTRY.format("SecondThing"))
    (package / "_none.py").write_text("raise RuntimeError('this file holds no entry')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registries, "entry_points", lambda group: [])
    yield package
    for name in [name for name in sys.modules if name.split(".")[0] == "shelf"]:
        del sys.modules[name]


def things() -> Registry[type]:
    from shelf import things  # type: ignore[import-not-found]  # pyright: ignore[reportMissingImports]

    return things


def test_a_file_is_an_entry(shelf: Path) -> None:
    assert list(things()) == ["first_thing", "second_thing"]
    assert things().find("First-Thing") is things().find("firstthing") is things()["first_thing"]
    door: dict[str, Any] = {}
    assert things().door(door) == sorted(door) == ["FirstThing", "SecondThing"]
    assert things().door({}, by_name=True) == ["FirstThing", "SecondThing", "first_thing", "second_thing"]


def test_a_name_that_is_not_there_is_told_from_those_that_are(shelf: Path) -> None:
    with pytest.raises(UnknownName, match="no thing is called 'first_thin', perhaps you meant 'first_thing'; there"):
        things().find("first_thin")
    with pytest.raises(UnknownName, match="there are: these"):
        things().find("other", legal=["these"])


def test_a_second_entry_of_a_name_is_refused(shelf: Path) -> None:
    (shelf / "three.py").write_text(ENTRY.format("FirstThing"))
    with pytest.raises(MotesError, match=r"two things are called 'first_thing', shelf\.one\.FirstThing and shelf\.thr"):
        len(things())


def test_what_is_defined_again_takes_its_own_place() -> None:
    again = Registry[type]("thing", "motes.core.resampling")
    first, second = ([again.register(type("Thing", (), {}))][0] for _ in range(2))
    assert first is not second
    assert again._entries == {"thing": second}


POINTS = {
    "decorated": ("shelf.rival:SecondThing", "SecondThing"),
    "good": ("shelf.two:SecondThing", "SecondThing"),
    "gone": ("shelf.nowhere:Thing", "ModuleNotFoundError"),
    "taken": ("shelf.rival:FirstThing", "two things are called 'first_thing'"),
}


@pytest.mark.parametrize("name", POINTS)
def test_entries_of_other_packages(name: str, shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be used is said, and the others stay what they are."""
    value, says = POINTS[name]
    (shelf / "_rival.py").write_text(
        "class FirstThing: pass\n" + (ENTRY.format("SecondThing") if name == "decorated" else "")
    )
    point = EntryPoint(name, value.replace("rival", "_rival"), "shelf")
    monkeypatch.setattr(registries, "entry_points", lambda group: [point] if group == "shelf" else [])
    if name in ("good", "decorated"):
        (shelf / "two.py").write_text("class SecondThing: pass")  # nothing but the entry point names it
        assert things()["second_thing"].__name__ == says
    else:
        with pytest.warns(MotesWarning, match=says):
            assert list(things()) == ["first_thing", "second_thing"]
