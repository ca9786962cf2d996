"""What every confidence format promises to prompts, to the splice and to itself."""

import itertools

import pytest

from caopd.confidence import InlineConfidence, RLCRConfidence, TagConfidence
from caopd.errors import ConfigError
from caopd.types import ConfidenceOutcome

FORMATS = [InlineConfidence(), TagConfidence(), RLCRConfidence()]
every_format = pytest.mark.parametrize("form", FORMATS, ids=["inline", "tag", "rlcr"])


@every_format
def test_what_is_rendered_is_read(form):
    around = [("", ""), ("B\n", ""), ("B\n", "\n"), ("B.\n\n", "\nDone.")]
    for hundredths, (before, after) in itertools.product(range(101), around):
        segment = form.render(hundredths / 100)
        text = before + segment + after
        reading = form.parse(text)
        assert reading.value == hundredths / 100, text
        assert reading.outcome is ConfidenceOutcome.DECIMAL, text
        assert reading.span == (len(before), len(before) + len(segment)), text


@every_format
def test_two_decimals_are_stated(form):
    for confidence in (0.375, 1 / 3, 2 / 3, 0.0049, 0.995, 0.125):
        assert form.parse(form.render(confidence)).value == round(confidence, 2), confidence


@every_format
def test_writing_over_a_segment_leaves_one_that_reads_as_the_new_value(form):
    text = f"B\n{form.render(0.9)}\nDone."
    start, end = form.parse(text).span
    revised = text[:start] + form.render(0.25) + text[end:]
    assert revised == f"B\n{form.render(0.25)}\nDone."


@every_format
def test_a_missing_segment_is_missing_and_not_zero(form):
    for text in ("", "B", "I am confident.", "<answer>B</answer>"):
        reading = form.parse(text)
        assert (reading.value, reading.span) == (None, None), text
        assert reading.outcome is ConfidenceOutcome.MISSING, text


@every_format
@pytest.mark.parametrize("confidence", [-0.01, 1.01, float("nan"), float("inf")])
def test_no_impossible_confidence_is_written(form, confidence):
    with pytest.raises(ConfigError, match=r"\[0, 1\]"):
        form.render(confidence)


@every_format
def test_the_instruction_shows_the_field_that_is_read(form):
    assert form.field_name in form.instruction
    assert form.render(0.5).startswith(form.field_name)
