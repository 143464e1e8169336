"""The picture of the house in the documentation is that of the files."""

from __future__ import annotations

import importlib.util
from pathlib import Path

PATH = Path(__file__).parents[1] / "scripts" / "draw_house.py"


def script():
    spec = importlib.util.spec_from_file_location("draw_house", PATH)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_picture_shows_the_packages_and_imports_that_there_are(monkeypatch):
    house = script()
    text = house.PICTURE.read_text()
    assert text == house.drawn(), "run python scripts/draw_house.py"
    monkeypatch.setattr(house, "imports", lambda: {"core": {"rng"}})  # the broken twin
    assert text != house.drawn()


def test_what_readers_look_for_is_where_the_picture_says():
    house = script()
    for package, signs in house.SIGNS.items():
        assert all((house.SOURCE / package / room).is_dir() for room in signs)


def test_imports_that_follow_from_others_are_not_drawn():
    graph = {"a": {"b", "c"}, "b": {"c"}, "c": set()}
    assert script().direct(graph) == [("a", "b"), ("b", "c")]
