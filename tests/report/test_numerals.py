"""Numbers as text."""

import math

import pytest

from motes.report import numerals


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (0.0, 4, "0"),
        (1.0, 2, "1.0"),
        (-34.8219, 4, "−34.82"),
        (12345.6, 3, "12,346"),
        (0.00012345, 3, "0.000123"),
        (1.5e-9, 3, "1.50 × 10⁻⁹"),
        (-2e12, 3, "−2.00 × 10¹²"),
        (math.nan, 4, "NaN"),
        (-math.inf, 4, "−∞"),
    ],
)
def test_plain(value, digits, text):
    assert numerals.plain(value, digits).replace(numerals.THIN, " ") == text


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (-34.8219, 0.0713, ("−34.822", "0.071")),
        (-34.8219, 13.2, ("−35", "13")),
        (1234567.0, 400.0, ("1,234,567", "400")),
        (0.5, math.nan, ("0.50", "")),
        (0.5, 0.0, ("0.50", "")),
        (-math.inf, 0.1, ("−∞", "")),
        (math.nan, 0.1, ("NaN", "")),
    ],
)
def test_a_value_and_its_error_end_at_the_same_place(value, error, text):
    assert numerals.with_error(value, error) == text


@pytest.mark.parametrize(
    ("log_p", "text"),
    [
        (math.log(0.0285), "0.0285"),
        (0.0, "1.00"),
        (-math.inf, "0"),
        (-1000 * math.log(10), "1.00 × 10⁻¹⁰⁰⁰"),
        (math.log(9.999) - 50 * math.log(10), "1.00 × 10⁻⁴⁹"),
    ],
)
def test_probabilities_do_not_underflow(log_p, text):
    assert numerals.probability(log_p).replace(numerals.THIN, " ") == text


def test_small_shares_do_not_become_nothing():
    assert [numerals.percent(x) for x in (0, 1e-9, 0.02, 0.5, 1)] == ["0.0 %", "< 0.1 %", "2.0 %", "50 %", "100 %"]


def test_durations():
    written = [numerals.seconds(s) for s in (0.0, 0.0001, 0.012, 0.5, 9.96, 59.7, 61, 3720, math.nan)]
    assert written == ["0 ms", "< 1 ms", "12 ms", "0.5 s", "10 s", "1 min 0 s", "1 min 1 s", "1 h 2 min", "NaN"]


def test_width_counts_columns_not_letters():
    assert numerals.width("北京") == 4
    assert numerals.width("e\u0301a") == 2
    assert numerals.width("±−") == 2
