"""The last number of a text, and whether it stands for itself."""

from decimal import Decimal

import pytest

from caopd.reading.numbers import last_number


@pytest.mark.parametrize("text", ["", "none", "H2", "x_2", "x^{-2}", "\u0664\u0663"])
def test_a_text_without_a_number(text):
    assert last_number(text) is None


def test_what_stands_around_a_number():
    found = last_number("it is 12 km long")
    assert (found.value, found.before, found.behind, found.is_alone) == (Decimal(12), "it is ", " km long", True)


@pytest.mark.parametrize(("text", "value"), [("3 thousand", 3000), ("1.5 billion", 1_500_000_000), ("2 millionth", 2)])
def test_words_of_size(text, value):
    assert last_number(text).value == value


@pytest.mark.parametrize(
    ("text", "is_alone"),
    [
        ("12, 5", True),
        ("12,5", False),
        ("(12, 5)", True),
        ("12\n- 5", True),
        ("12 - 5", False),
        ("12 -5", False),
        ("12\n-5", True),
        ("**5**", True),
        ("5**2", False),
        ("12 = 5", True),
        ("12 or $5", False),
        ("a - 5", True),
    ],
)
def test_whether_it_stands_for_itself(text, is_alone):
    assert last_number(text).is_alone is is_alone
