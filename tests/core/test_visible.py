"""What cannot be seen is written out wherever a text from outside is shown."""

from __future__ import annotations

import pytest

import motes
from core.toys import Walk, data
from motes.core.files.visible import visible

BAD = {"\x1b[2J": r"\x1b[2J", "\u202eab": r"\u202eab", "\ud800": r"\ud800", "a\u200bb": r"a\u200bb", "\r": r"\x0d"}
GOOD = ["a\nb\tc", "שלום", "مرحبا", "क्‍ष", "👩‍🔬", "± −", "", "\N{NO-BREAK SPACE}"]


@pytest.mark.parametrize("text", BAD)
def test_hidden_letters_are_written_out(text: str) -> None:
    assert visible(text) == BAD[text] and visible(visible(text)) == visible(text)


@pytest.mark.parametrize("text", GOOD)
def test_letters_that_are_seen_stay(text: str) -> None:
    assert visible(text) == text


class Named(Walk):
    def view(self, particles):
        return self.shown(particles)


def disguised(view) -> motes.Run:
    model = Named(data(4), s=0.3)
    model.shown = view  # type: ignore[attr-defined]
    return motes.sample(model, 12, seed=1, progress=False)


@pytest.mark.parametrize("hidden", BAD)
def test_no_report_breaks_or_is_disguised(hidden: str, tmp_path) -> None:
    pytest.importorskip("jinja2")
    from motes.report.html import report

    runs = {
        f"name {hidden}": disguised(lambda p: [f"text {hidden} {i % 3}" for i in range(p.n)]),
        "numbers": disguised(lambda p: {f"slope {hidden} $\\frac{{": p.x, "other": p.x}),
    }
    page = report(runs, tmp_path / "page.html").read_bytes().decode()  # UTF-8
    assert hidden not in page and page.count(BAD[hidden]) >= 4
