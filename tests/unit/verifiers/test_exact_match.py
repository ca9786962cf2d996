import pytest

from caopd.types import AnswerOutcome, Verdict
from caopd.verifiers import ExactMatch


@pytest.mark.parametrize(
    ("text", "target", "correct", "answer"),
    [
        ("6", "6", True, "6"),
        (" 6\n", "6", True, "6"),
        ("6", " 6 ", True, "6"),
        ("06", "6", False, "06"),
        ("6 7", "6", False, "6 7"),
        ("a", "A", False, "a"),
        ("\0", "6", False, "\0"),
    ],
)
def test_the_whole_stripped_text_is_the_answer(text, target, correct, answer):
    assert ExactMatch().verify(text, target) == Verdict(correct, answer, AnswerOutcome.PARSED)


@pytest.mark.parametrize("text", ["<think>7</think>\n6", "7?\n</think>6", "[THINK]7[/THINK]6\n"])
def test_a_thought_is_no_part_of_the_answer(text):
    assert ExactMatch().verify(text, "6") == Verdict(True, "6", AnswerOutcome.PARSED)


@pytest.mark.parametrize("text", ["", " \n\t", "\u2003", "<think>6", "6</think>"])
@pytest.mark.parametrize("target", ["6", ""])
def test_an_empty_text_is_a_missing_answer_and_never_correct(text, target):
    assert ExactMatch().verify(text, target) == Verdict(False, None, AnswerOutcome.MISSING)
