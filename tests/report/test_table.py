"""The plain-text table."""

import dataclasses

import pytest

from motes.core.run import Result
from motes.report.numerals import width
from motes.report.table import missing, table
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


def test_why_there_is_no_error_bar_is_said_once_below():
    whole, one = made.run(made.Tempered()), made.run(made.Tempered(), n=1)
    assert missing(whole) == "" and str(whole) == repr(whole)
    assert missing(one) == f"no error bar: {one.standard_error.reason}"
    assert missing({"a": one, "b": whole, "c": one}) == f"no error bar (a, c): {one.standard_error.reason}"
    assert str(one) == f"{one!r}\n{missing(one)}" and "nan" not in str(one) and "(no error bar)" in repr(one)


def test_ascii_is_ascii():
    text = table({"北": made.run(made.Tempered())}, ascii=True)
    assert text.isascii() and "+-" in text
    assert "±" in table({"x": made.run(made.Tempered())})  # what ascii=True is for


def test_no_runs_and_foreign_things_are_refused():
    with pytest.raises(ValueError, match="at least one run"):
        table([])
    with pytest.raises(TypeError, match="'a' is a int"):
        table({"a": 3})  # type: ignore[dict-item]


def test_the_column_of_the_evidence_has_the_name_that_the_runs_have_for_it():
    run, other = made.run(made.Tempered()), made.run(made.Blobs())
    assert run.setup["quantity"] == "log evidence" and other.setup["quantity"] != "log evidence"
    assert "log evidence" in table(run).splitlines()[0]
    assert "log normaliser" in table([run, other]).splitlines()[0]
