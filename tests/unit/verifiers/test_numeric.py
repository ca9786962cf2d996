from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caopd.errors import DataError
from caopd.types import AnswerOutcome
from caopd.verifiers import Numeric


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("432", "432"),
        (" 432. ", "432"),
        ("432.0", "432"),
        ("1,692", "1692"),
        ("1,234,567.50", "1234567.5"),
        ("47 + 385 = 432", "432"),
        ("First 300,\nthen 12.", "12"),
        ("-12", "-12"),
        ("3 - 15 = -12", "-12"),
        ("3 - 15 = \u221212", "-12"),
        ("from 10-12", "12"),
        ("10 - 12", "12"),
        ("- 12", "12"),
        ("(47)-12", "12"),
        ("-$5", "-5"),
        ("$1,200", "1200"),
        ("+7", "7"),
        (".50", "0.5"),
        ("-0.0", "0"),
        ("007", "7"),
        ("**432**", "432"),
        ("432 apples", "432"),
        ("45%", "45"),
        ("it is 12,34", "34"),
        ("H2", None),
        ("x_2", None),
        ("<think>7</think>8", "8"),
        ("8 <think>7</think>", "8"),
        ("\u0664\u0663", None),
        ("none", None),
        ("", None),
    ],
)
def test_the_last_number_is_read(text, answer):
    verdict = Numeric().verify(text, "432")
    assert (verdict.answer, verdict.correct) == (answer, answer == "432")
    assert verdict.outcome is (AnswerOutcome.MISSING if answer is None else AnswerOutcome.PARSED)


@pytest.mark.parametrize("text", ["432 / 8", "54/1", "it is 54 /1"])
def test_a_quotient_is_not_worked_out(text):
    verdict = Numeric().verify(text, "54")
    assert (verdict.correct, verdict.answer, verdict.outcome) == (False, None, AnswerOutcome.MALFORMED)


def test_a_quotient_on_the_way_does_not_matter():
    assert Numeric().verify("432 / 8 = 54", "54").correct


@pytest.mark.parametrize("target", ["", "four", "1 2", "1/2", "4 apples"])
def test_a_target_that_is_no_number_is_an_error(target):
    with pytest.raises(DataError, match="target of a question for a number to be one, but got"):
        Numeric().verify("4", target)


@given(st.integers(-(10**30), 10**30), st.integers(0, 6), st.sampled_from(["{}", "{:,}"]))
def test_numbers_are_equal_as_numbers(number, places, form):
    value = Fraction(number, 10**places)
    digits = f"{abs(number):0{places + 1}d}"
    whole, rest = (digits[:-places], digits[-places:]) if places else (digits, "")
    text = ("-" if number < 0 else "") + form.format(int(whole)) + ("." + rest if rest else "")
    verdict = Numeric().verify(f"So it is {text}.", text)
    assert verdict.correct
    assert Fraction(verdict.answer) == value
    assert not Numeric().verify(f"{text}", str(int(whole) + 1)).correct or value == int(whole) + 1


@given(st.text(alphabet="0123456789,./-+ e$x", max_size=60))
def test_no_text_raises(text):
    verdict = Numeric().verify(text, "1")
    assert verdict.correct <= (verdict.answer == "1")


@pytest.mark.parametrize("text", ["1" * 200_000, "1,111" * 50_000, "1,1111" * 50_000, "1 / " * 60_000, "- " * 100_000])
def test_long_texts_are_read_in_passing(text):
    assert not Numeric().verify(text, "2").correct
