"""Values by themselves; in their segments see test_confidence and test_readings."""

import pytest

from caopd.reading.values import read_value
from caopd.types import ConfidenceOutcome


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2/3 (0.67)", 2 / 3),
        ("0.67 (2/3)", 0.67),
        ("2/3 (0.6)", None),
        ("0.6, 60%", 0.6),
        ("0.6, 70%", None),
        ("0.6 because 70% of them fit", 0.6),
        ("0.6, 3 of them fit", 0.6),
        ("0.6, 1", None),
        ("0.6. 0.7", None),
        ("0.6. That is less than 0.7", 0.6),
        ("0.6 (less than 0.7 or 0.8)", 0.6),
        ("two out of four", 0.5),
        ("two", None),
        ("I'm fairly sure, 0.6", 0.6),
        ("85 / 100 points", 0.85),
        ("0.6 is too high", None),
        ("1 digit fits", None),
        ("1 since only one fits", 1.0),
    ],
)
def test_what_stands_beside_the_number_decides(text, value):
    assert read_value(text).value == (None if value is None else pytest.approx(value))


@pytest.mark.parametrize(("text", "is_number"), [("0.8-0.9", True), ("85", True), ("high", False), ("2 fit", False)])
def test_a_number_that_is_no_confidence_is_told_from_none(text, is_number):
    stated = read_value(text)
    assert stated.value is None
    assert stated.is_number is is_number


@pytest.mark.parametrize(("text", "cut", "value"), [("0.", True, None), ("0.", False, 0.0), ("1.", True, 1.0)])
def test_a_point_at_the_end_of_a_completion_is_a_cut(text, cut, value):
    assert read_value(text, cut).value == value


def test_percentages_are_exact():
    assert read_value("57%") == (0.57, ConfidenceOutcome.PERCENT, True, False)


@pytest.mark.parametrize(
    ("text", "value"),
    [("95", 0.95), ("95.", 0.95), ("87.5", 0.875), ("100", 1.0), ("1", 1.0), ("0.95", 0.95), ("0", 0.0), ("95%", 0.95)],
)
def test_a_percentage_without_its_sign_by_option(text, value):
    stated = read_value(text, percent_without_sign=True)
    assert stated.value == value
    assert (stated.outcome is ConfidenceOutcome.PERCENT) == (value != float(text.rstrip("%.")))
    assert read_value(text).value == (value if value in (0.0, float(text.rstrip("%."))) or "%" in text else None)


@pytest.mark.parametrize("text", ["101", "150", "-5", "95-99", "95?", "95/0", "high"])
def test_the_option_reads_nothing_else(text):
    assert read_value(text, percent_without_sign=True).value is None
