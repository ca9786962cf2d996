import time

import pytest

from caopd.errors import DataError
from caopd.types import AnswerOutcome, Verdict
from caopd.verifiers import MultipleChoice

VERIFIER = MultipleChoice()


@pytest.mark.parametrize(
    "content",
    [
        "B",
        "b",
        "\nB\n",
        " (B) ",
        "[B]",
        "B.",
        "B)",
        "B:",
        "**B**",
        "`B`",
        "B: 131.180",
        "B:131.180",
        "B. a dog",
        "B) a dog",
        "(B) a dog",
        "**B.** a dog",
        "**B**: a\ndog",
    ],
)
def test_a_letter_is_read_with_its_usual_dress(content):
    text = f"<reasoning>A or C?</reasoning>\n<answer>{content}</answer>"
    assert VERIFIER.verify(text, "B") == Verdict(True, "B", AnswerOutcome.PARSED)
    assert VERIFIER.verify(text, "C") == Verdict(False, "B", AnswerOutcome.PARSED)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "  ",
        "A dog",
        "A, B",
        "A and B",
        "AB",
        "BB",
        "B B",
        "i.e. B",
        "option B",
        "The answer is B",
        "131.180",
        "\u0411",
        "\uff22",
        "?",
        "\0B",
        "B" * 10_000,
    ],
)
def test_anything_else_is_malformed_and_never_correct(content):
    for target in "ABI":
        verdict = VERIFIER.verify(f"<answer>{content}</answer>", target)
        assert verdict == Verdict(False, None, AnswerOutcome.MALFORMED)


@pytest.mark.parametrize("text", ["", "B", "answer: B", "< answer >B</ answer >", "B</answer>", "<answers>B</answers>"])
def test_without_a_tag_the_answer_is_missing(text):
    assert VERIFIER.verify(text, "B") == Verdict(False, None, AnswerOutcome.MISSING)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<answer>A</answer> no: <answer>B</answer>", "B"),
        ("<ANSWER>B</Answer>", "B"),
        ("an <answer> tag: <answer>B</answer>", "B"),
        ("<answer>B</answer></answer>", "B"),
        ("<answer>B</answer> <answer>", None),
        ("<answer>B", None),
        ("<answer>B<answer>", None),
        ("<answer>B</answer", None),
    ],
)
def test_the_last_opening_tag_decides(text, answer):
    outcome = AnswerOutcome.MALFORMED if answer is None else AnswerOutcome.PARSED
    assert VERIFIER.verify(text, "B") == Verdict(answer == "B", answer, outcome)


def test_a_letter_that_is_no_option_is_malformed():
    assert MultipleChoice("ABCD").verify("<answer>E</answer>", "A").outcome == AnswerOutcome.MALFORMED
    assert MultipleChoice("ABCDE").verify("<answer>E</answer>", "A").outcome == AnswerOutcome.PARSED


def test_the_target_may_be_lower_case():
    assert VERIFIER.verify("<answer>B</answer>", " b\n").correct


@pytest.mark.parametrize("target", ["", "AB", "1", "E"])
def test_a_target_that_is_no_option_is_an_error(target):
    with pytest.raises(DataError, match="one letter of ABCD"):
        MultipleChoice("ABCD").verify("<answer>B</answer>", target)


HOSTILE = {
    "openings": "<answer>" * 200_000,
    "half openings": "<answer" * 200_000,
    "closings": "<answer>" + "</answer" * 200_000,
    "spaces": "<answer>" + " " * 2_000_000 + "</answer>",
    "stars": "<answer>" + "*" * 2_000_000 + "?</answer>",
    "NUL": "\0" * 2_000_000,
    "bidi": "<answer>\u202eB\u202c</answer>" * 50_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_neither_crashes_nor_stalls(name):
    begun = time.perf_counter()
    assert VERIFIER.verify(HOSTILE[name], "B").answer is None
    assert time.perf_counter() - begun < 3.0  # seconds
