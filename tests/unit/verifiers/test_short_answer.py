import json

import pytest

from caopd.types import AnswerOutcome
from caopd.verifiers import ShortAnswer
from caopd.verifiers.short_answer import normalised

TWAIN = ShortAnswer().target("Who wrote it?", ["Mark Twain", "Samuel L. Clemens"])


@pytest.mark.parametrize(
    ("text", "correct"),
    [
        ("Mark Twain", True),
        ("mark  twain.", True),
        ("He did.\n<answer>The Samuel L Clemens!</answer>", True),
        ("Mark Twain wrote it", False),
        ("Twain", False),
        ("He did.\nMark Twain", False),
        ("<answer>Mark Twain or Poe</answer>", False),
    ],
)
def test_one_of_the_accepted_answers(text, correct):
    assert ShortAnswer().verify(text, TWAIN).correct is correct


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ("The U.S.A.", "usa", True),
        ("O'Neil", "ONeil", True),
        ("twenty-one", "Twenty One", True),
        ("Ｐａｒｉｓ", "paris", True),
        ("STRASSE", "straße", True),
        ("+", "-", False),
        ("The", "a", False),
        ("another", "nother", False),
        ("C", "C#", False),
        ("18.0", "18", True),
        ("18.0", "180", False),
        ("1,500", "1500.", True),
        ("1.5", "15", False),
        ("2.5 km", "25 km", False),
        ("2.50 km.", "2.5 km", True),
        ("-5", "5", False),
        ("\u22125", "-5", True),
        ("1990-1995", "1990 1995", True),
        ("COVID-19", "covid 19", True),
        ("Vitamin A", "Vitamin", False),
        ("A", "A.", True),
        ("a cat and the dog", "cat and dog", True),
    ],
)
def test_normalised(one, other, equal):
    assert (normalised(one) == normalised(other)) is equal


def test_equal_answers_are_equal_strings():
    answers = {ShortAnswer().verify(text, "x").answer for text in ("The Moon", "<answer>moon.</answer>", "#### MOON")}
    assert answers == {"moon"}


def test_targets_of_one_and_of_several_answers():
    verifier = ShortAnswer()
    assert verifier.target("q", ["Paris"]) == "Paris"
    assert json.loads(verifier.target("q", ["Paris", "Lutetia"])) == ["Paris", "Lutetia"]
    for answer in ('["Paris"]', "[1, 2]", "[sic"):
        assert verifier.verify(f"<answer>{answer}</answer>", verifier.target("q", [answer])).correct
    assert verifier.verify("[1, 2]", "[1, 2]").correct


def test_no_answer():
    verdict = ShortAnswer().verify("line\nline", "Paris")
    assert (verdict.correct, verdict.answer, verdict.outcome) == (False, None, AnswerOutcome.MISSING)
