"""The plain-text table."""

import dataclasses

import pytest

from motes.core.run import Result
from motes.report.numerals import width
from motes.report.table import table
from report import made


def test_columns_stand_under_each_other_whatever_the_names():
    runs = {
        "posterior": made.run(made.Tempered()),
        "北 text": made.run(made.Words()),
        "e\u0301": made.run(made.Blobs(), 2000),
    }
    lines = table(runs).splitlines()
    assert len(lines) == 5
    places = {width(line[: line.index("±")]) for line in lines[2:]}
    assert len(places) == 1
    assert len({width(line[: line.rindex("OK")]) for line in lines[2:]}) == 1
    assert "2,000" in lines[4]


def test_several_runs_of_one_model_are_numbered():
    run = made.run(made.Tempered())
    assert "Tempered 2" in table([run, run])
    assert "Tempered 1" not in table(run)


def test_the_result_code_is_shown_and_a_missing_error_is_a_question_mark():
    run = dataclasses.replace(made.run(made.Tempered(), n=1), result=Result.MAX_STEPS)
    assert "± ?" in table(run) and "MAX_STEPS" in table(run)


def test_ascii_is_ascii():
    text = table({"北": made.run(made.Tempered())}, ascii=True)
    assert text.isascii() and "+-" in text
    assert "±" in table({"x": made.run(made.Tempered())})  # what ascii=True is for


def test_no_runs_and_foreign_things_are_refused():
    with pytest.raises(ValueError, match="at least one run"):
        table([])
    with pytest.raises(TypeError, match="'a' is a int"):
        table({"a": 3})  # type: ignore[dict-item]
