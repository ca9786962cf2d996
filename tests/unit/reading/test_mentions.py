import time

import pytest

from caopd.confidence import InlineConfidence, TagConfidence
from caopd.reading.mentions import Mentions
from caopd.types import ConfidenceOutcome

MENTIONED = [
    "I will work it out, then state {}.\nThe answer is 6.",
    "I will give {} at the end.\n<answer>B</answer>",
    "Plan:\n1. Solve.\n2. State {}.\n\n<answer>B</answer>",
    "I would say {}.\n6",
    "First I think of {}.\nAction: search\nAction Input: {{}}",
    "The answer is 5? I would say {}.\nNo, the answer is 6.",
    "Perhaps {}.\nI check again.",
]
STATED = [
    "The answer is 6. {}",
    "6, {}\n",
    "6 ({})\n```\n<|im_end|>",
    "<answer>B</answer> {}\nLet me know if you have questions.",
    "Answer: 6 ({})\n\nExplanation: 2 + 4.",
    "{}\nAnswer: 6",
    "**{}**\n<answer>B</answer>",
    "- {}\n- Answer: B",
    "1. Answer: B\n2. {}\n3. Reason: Hess",
    "6\n{}\nI hope this helps.",
]


@pytest.mark.parametrize(
    ("form", "segment"),
    [(InlineConfidence(), "Confidence: 0.5"), (TagConfidence(), "<confidence>0.5</confidence>")],
    ids=["inline", "tag"],
)
def test_what_is_mentioned_is_not_stated(form, segment):
    for text in MENTIONED:
        reading = form.parse(text.format(segment))
        assert (reading.value, reading.span, reading.outcome) == (None, None, ConfidenceOutcome.MISSING), text
    for text in STATED:
        assert form.parse(text.format(segment)).value == 0.5, text


def test_an_item_of_a_plan_is_mentioned():
    text = "Plan:\n1. Find the law.\n2. Confidence: 0.5\n\n<answer>B</answer>"
    assert InlineConfidence().parse(text).value is None
    assert InlineConfidence().parse(text + "\nConfidence: 0.9").value == 0.9


def test_a_statement_before_a_mention_counts():
    text = "6\nConfidence: 0.9\nI state Confidence: 0.5 only where I guess.\nThis was no guess."
    assert InlineConfidence().parse(text).value == 0.9


def test_many_mentions_take_linear_time():
    begun = time.process_time()
    for text in ("I say Confidence: 0.5.\n" * 50_000 + "6", "answer: " * 200_000, "- " * 500_000, "<" * 500_000):
        assert InlineConfidence().parse(text + "\n6").value is None
        assert not Mentions(text).is_mentioned(0, len(text), leads=False)
    assert time.process_time() - begun < 3.0  # seconds
