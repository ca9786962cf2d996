"""Texts as models write them, against what a person reads in them: readings.jsonl, beside this file.

A misread text is worse than an unread one: it counts a confidence or an answer that was not given.
"""

import json
from pathlib import Path

import pytest

from caopd.confidence import InlineConfidence, TagConfidence
from caopd.verifiers import MultipleChoice, ToolCalls

ROWS = [json.loads(line) for line in Path(__file__).with_name("readings.jsonl").read_text("utf-8").splitlines()]
UNREAD = {  # a person reads these; whatever would read them, too, would misread others
    "<answer>C = Hess's law</answer>",  # V = IR
    "<answer>B vitamins</answer>",
    "<answer>B\\n</answer>",
    "<answer>1. B</answer>",
    "Confidence\n----------\n0.65",
    "| Answer | Confidence |\n|---|---|\n| B | 0.65 |",  # a table of options
    "Answer\tB\nConfidence\t0.65",
    "Confidence: <0.8>",
}
NUMBER = {"inline": 390, "tag": 57, "multiple_choice": 201, "tool_calls": 100}


def read(kind, text, target):
    if kind in ("inline", "tag"):
        return (InlineConfidence() if kind == "inline" else TagConfidence()).parse(text).value
    if kind == "multiple_choice":
        return MultipleChoice().verify(text, target).answer
    verdict = ToolCalls().verify(text, target)
    return verdict.correct if verdict.answer is not None else None


@pytest.mark.parametrize("kind", NUMBER)
def test_texts_are_read_as_a_person_reads_them(kind):
    rows = [row for row in ROWS if row["kind"] == kind]
    found = [(row["text"], row["expected"], read(kind, row["text"], row.get("target"))) for row in rows]
    alike = {text for text, expected, value in found if value == pytest.approx(expected, abs=1e-9)}
    # Calls that cannot be read are none of the target's, as wrong ones are.
    alike |= {text for text, expected, value in found if expected is False and value is None}
    other = [each for each in found if each[0] not in alike]
    assert [each for each in other if each[2] is not None] == [], "misread"
    assert {text for text, _, _ in other} == UNREAD & {text for text, _, _ in found}, "unread"
    assert len(rows) == NUMBER[kind]


def test_every_text_stands_once():
    assert len({(row["kind"], row["text"], row.get("target")) for row in ROWS}) == len(ROWS) == sum(NUMBER.values())
