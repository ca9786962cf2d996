"""The page of what is read says what the code does: every text in its tables is read."""

import re
from pathlib import Path

import pytest

from caopd.confidence import InlineConfidence, TagConfidence
from caopd.types import Example, Form, Rollout, StopReason
from caopd.verifiers import ExactMatch, MultipleChoice, ToolCalls
from caopd.verifiers.verification import Verification

PAGE = (Path(__file__).parents[3] / "docs" / "readings.md").read_text(encoding="utf-8")
CALL = '[{"Action": "search", "Action_Input": {"page": 1}}]'
READERS = {
    "A stated confidence": (ExactMatch(), InlineConfidence(), "6"),
    "A confidence in tags": (ExactMatch(), TagConfidence(), "6"),
    "Percentages without a sign": (ExactMatch(), TagConfidence(percent_without_sign=True), "6"),
    "A letter": (MultipleChoice(), InlineConfidence(), "B"),
    "A call of a tool": (ToolCalls(), InlineConfidence(), CALL),
}


def rows(title):
    section = PAGE.split(f"## {title}\n")[1].split("\n## ")[0]
    for line in section.splitlines():
        cells = re.split(r"(?<!\\)\|", line)[1:-1]
        for text in re.findall(r"`([^`]+)`", cells[0]) if cells else ():
            yield text.replace("\\|", "|").replace("↵", "\n"), cells[1].strip(), cells[2].strip()


def read(title, text):
    verifier, form, target = READERS[title]
    rollout = Rollout((1,), text, StopReason.EOS, (-1.0,), 0)
    verified = Verification(verifier, form)(rollout, Example("1", "Q", target))
    if isinstance(verifier, ExactMatch):
        value = verified.reading.value
        return "none" if value is None else f"{value:g}", verified.reading.outcome.form.value
    found = verified.verdict.outcome.form
    if isinstance(verifier, MultipleChoice):
        return verified.verdict.answer or "none", found.value
    if found is Form.NONE:
        return "none", "none"
    return ("right", found.value) if verified.verdict.correct else ("wrong", "")


@pytest.mark.parametrize("title", READERS)
def test_every_text_of_the_page_is_read_as_it_says(title):
    expected = list(rows(title))
    assert len(expected) > 5
    assert [(text, *read(title, text)) for text, _, _ in expected] == expected
