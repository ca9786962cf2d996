from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caopd.errors import ConfigError, DataError
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
        ("- 12", "12"),
        ("-$5", "-5"),
        ("$1,200", "1200"),
        ("+7", "7"),
        (".50", "0.5"),
        ("-0.0", "0"),
        ("007", "7"),
        ("**432**", "432"),
        ("432 apples", "432"),
        ("45%", "45"),
        ("1 234 567", "1234567"),
        ("x = \u20135", "-5"),
        ("minus 5", "-5"),
        ("5 million", "5000000"),
        ("1.2\u00d710\u00b3", "1200"),
        ("1.2 x 10^3", "1200"),
        ("5 m^2", "5"),
        ("2^5 = 32", "32"),
        ("5 apples, 3 left", "3"),
        ("Step 2: 5", "5"),
        ("It is 5!", "5"),
        ("10 - 9\n- 5", "5"),
        ("H2", None),
        ("x_2", None),
        ("<think>7</think>8", "8"),
        ("<answer>12 of 30</answer> (40 %)", "30"),
        ("\\boxed{12} because 3 * 4 = 12, not 13", "12"),
        ("7 eggs * 2 = 14\n#### 14\nand not 3", "14"),
        ("1.5e3", "1500"),
        ("1e-2", "0.01"),
        ("about $1.5 \\times 10^{3}$", "1500"),
        ("2 \u00d7 10^\u22122 m", "0.02"),
        ("1{,}692", "1692"),
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


@pytest.mark.parametrize(
    "text",
    [
        *(
            "432 / 8",
            "54/1",
            "it is 54 /1",
            "432 \u00f7 8",
            "432 divided by 54",
            "\\frac{108}{54}",
            "\\frac{\\sqrt{2}}{54}",
        ),
        *("108 - 54", "(47)-54", "47 -54", "108 minus 54", "54^3", "54**3", "10^{54}", "9 x 54", "54x9", "3:54"),
        *("\\sqrt{54}", "x \\neq 54", "18 or 54", "from 10-54", "it is 12,54", "54\u00b2"),
    ],
)
def test_a_number_that_does_not_stand_for_itself_is_no_answer(text):
    verdict = Numeric().verify(text, "54")
    assert (verdict.correct, verdict.answer, verdict.outcome) == (False, None, AnswerOutcome.MALFORMED)


def test_a_quotient_on_the_way_does_not_matter():
    assert Numeric().verify("432 / 8 = 54", "54").correct


@pytest.mark.parametrize("target", ["", "four", "1 2", "1/2", "4 apples", "4 kg more", "4 kg^2", "x = 4"])
def test_a_target_that_is_no_number_is_an_error(target):
    with pytest.raises(DataError, match=r"target of a question for a number to be one.* but got"):
        Numeric(units={"kg": 1} if "kg" in target else {}).verify("4", target)


def test_an_answer_that_is_cut_is_none():
    verdict = Numeric().verify("12 <answer>12", "12")
    assert (verdict.correct, verdict.answer, verdict.outcome) == (False, None, AnswerOutcome.MALFORMED)


@pytest.mark.parametrize(
    ("tolerances", "right", "wrong"),
    [
        ({}, ["100", "100.0"], ["100.0001"]),
        ({"relative_tolerance": 0.01}, ["99", "101"], ["98.99", "101.01", "-100"]),
        ({"absolute_tolerance": 0.5}, ["99.5", "100.5"], ["99.49", "100.51"]),
        ({"relative_tolerance": 0.01, "absolute_tolerance": 2}, ["98", "102"], ["97.9"]),
    ],
)
def test_tolerances(tolerances, right, wrong):
    verifier = Numeric(**tolerances)
    assert all(verifier.verify(text, "100").correct for text in right)
    assert not any(verifier.verify(text, "100").correct for text in wrong)


@pytest.mark.parametrize(
    ("text", "correct"),
    [
        ("1.5 km", True),
        ("1500 m", True),
        ("1500", True),
        ("it is $1500\\text{ m}$ long", True),
        ("1.5", False),
        ("1500 km", False),
        ("1500 miles", True),
        ("1.5\\ \\text{km}", True),
        ("150000 cm", True),
    ],
)
def test_units(text, correct):
    """Miles are not among the units, so the word does not matter; `m` does not match `miles`."""
    verdict = Numeric(units={"m": 1, "km": 1000, "cm": 0.01}).verify(text, "1500 m")
    assert verdict.correct is correct


@pytest.mark.parametrize("text", ["1500 m^2", "1500 m\u00b2", "1.5 km/h", "1500 $\\text{m}^2$"])
def test_a_unit_made_of_a_known_one_is_another_one(text):
    verdict = Numeric(units={"m": 1, "km": 1000}).verify(text, "1500 m")
    assert (verdict.correct, verdict.outcome) == (False, AnswerOutcome.MALFORMED)


def test_equal_quantities_are_equal_strings():
    verifier = Numeric(units={"km": 1000, "m": 1})
    assert {verifier.verify(text, "1.5 km").answer for text in ("1.5km", "1500 m", "1.50")} == {"1500"}


@pytest.mark.parametrize("bad", [{"relative_tolerance": -1}, {"absolute_tolerance": float("inf")}, {"units": {"m": 0}}])
def test_bad_settings_are_refused(bad):
    with pytest.raises(ConfigError, match="of Numeric to be a finite number"):
        Numeric(**bad)


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
