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
        "option B",
        "The correct answer is (B).",
        r"$\boxed{\text{B}}$",
        "'B'",
        "<b>B</b> <!-- the law of Hess -->",
        "B, Benzene",
        "B \u2013 Benzene",
        "B Benzene",
        "B - CC(=O)N1C=CC=C1",
        "**B** - O=C1c2ccccc2",
        "B\u200b",
        "B because A is no acid",
        "B is the best choice",
        "A: false\nB: true\nC: false",
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
        "A) or B)",
        "(A), (B)",
        "A. B.",
        "B / A",
        "B, or rather A",
        "B - A",
        "A - B - C",
        "B - no, A",
        "B: Hess; A: Ohm",
        "Both A and B",
        "Not B",
        "The answer is not B",
        "B is wrong, so A",
        "B?",
        "\u2260B",
        "B-cells",
        "I would say so",
        "b benzene",
        "A: false\nB: false",
        "A: true\nB: true",
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


@pytest.mark.parametrize(
    "text", ["", "B", "answer: B", "B</answer>", "<answers>B</answers>", '{"x": "<answer>B</answer>"}']
)
def test_without_a_tag_the_answer_is_missing(text):
    assert VERIFIER.verify(text, "B") == Verdict(False, None, AnswerOutcome.MISSING)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"The answer is \boxed{B}.", "B"),
        (r"\boxed{A}, no: $\boxed{\text{B}}$", "B"),
        (r"\[ \boxed{(B)} \]", "B"),
        (r"\boxed{B) 131.18}", "B"),
        (r"\boxed{131.18}", None),
        (r"\boxed{A, B}", None),
    ],
)
def test_without_a_tag_the_last_box_is_an_answer_in_another_form(text, answer):
    outcome = AnswerOutcome.MALFORMED if answer is None else AnswerOutcome.OTHER_FORM
    assert VERIFIER.verify(text, "B") == Verdict(answer == "B", answer, outcome)
    assert VERIFIER.verify(f"{text}\n<answer>C</answer>", "C").outcome is AnswerOutcome.PARSED


@pytest.mark.parametrize("text", [r"\boxed{B", r'{"x": "\boxed{B}"}', r"<think>\boxed{B}", r"boxed{B}"])
def test_what_is_no_box(text):
    assert VERIFIER.verify(text, "B").outcome is AnswerOutcome.MISSING


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<answer>A</answer> no: <answer>B</answer>", "B"),
        ("<ANSWER>B</Answer>", "B"),
        ("an <answer> tag: <answer>B</answer>", "B"),
        ("<answer>B</answer></answer>", "B"),
        ("<answer>B</answer> <answer>", None),
        ("<answer>B", None),
        ("<answer>B<answer>", "B"),
        ("<answer>B<answer>.", None),
        ("< answer >B</ answer >", "B"),
        ("<answer>B<\\answer>", "B"),
        ("<answer>B</answer", None),
        ("<think><answer>A</answer></think><answer>B</answer>", "B"),
        ("perhaps <answer>A</answer>\n</think>\n<answer>B</answer>", "B"),
    ],
)
def test_the_last_opening_tag_decides(text, answer):
    outcome = AnswerOutcome.MALFORMED if answer is None else AnswerOutcome.PARSED
    assert VERIFIER.verify(text, "B") == Verdict(answer == "B", answer, outcome)


@pytest.mark.parametrize(
    "text", ["<think><answer>B</answer>", "<answer>B</answer></think>", "[THINK]<answer>B</answer>"]
)
def test_a_thought_is_no_answer(text):
    assert VERIFIER.verify(text, "B") == Verdict(False, None, AnswerOutcome.MISSING)


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
    "commands": "<answer>" + "\\a{" * 500_000 + "</answer>",
    "comments": "<answer>" + "<!--" * 300_000 + "</answer>",
    "points": "<answer>B" + "." * 2_000_000 + "?</answer>",
    "letters": "<answer>" + "B, " * 500_000 + "</answer>",
    "boxes": "\\boxed{" * 300_000,
    "judged": "<answer>" + "A: no\n" * 200_000 + "</answer>",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_neither_crashes_nor_stalls(name):
    begun = time.process_time()
    assert VERIFIER.verify(HOSTILE[name], "B").answer is None
    assert time.process_time() - begun < 3.0  # seconds
