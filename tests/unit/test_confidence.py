import math
import time

import pytest

from caopd.confidence import InlineConfidence, RLCRConfidence, TagConfidence
from caopd.errors import ConfigError
from caopd.types import ConfidenceOutcome, strip_segment

INLINE = InlineConfidence()
TAG = TagConfidence()

READABLE = [
    ("0.85", 0.85, ConfidenceOutcome.DECIMAL),
    (".85", 0.85, ConfidenceOutcome.DECIMAL),
    ("+0.85", 0.85, ConfidenceOutcome.DECIMAL),
    ("0.85.", 0.85, ConfidenceOutcome.DECIMAL),
    ("0.85 (high)", 0.85, ConfidenceOutcome.DECIMAL),
    ("0.85, because I checked", 0.85, ConfidenceOutcome.DECIMAL),
    ("**0.85**", 0.85, ConfidenceOutcome.DECIMAL),
    ("_0.85_", 0.85, ConfidenceOutcome.DECIMAL),
    ("`0.85`", 0.85, ConfidenceOutcome.DECIMAL),
    ("0", 0.0, ConfidenceOutcome.DECIMAL),
    ("-0.0", 0.0, ConfidenceOutcome.DECIMAL),
    ("1", 1.0, ConfidenceOutcome.DECIMAL),
    ("1.", 1.0, ConfidenceOutcome.DECIMAL),
    ("0.85/1.00", 0.85, ConfidenceOutcome.DECIMAL),
    ("85%", 0.85, ConfidenceOutcome.PERCENT),
    ("85 %", 0.85, ConfidenceOutcome.PERCENT),
    ("85.5%.", 0.855, ConfidenceOutcome.PERCENT),
    (r"85\%", 0.85, ConfidenceOutcome.PERCENT),
    ("100%", 1.0, ConfidenceOutcome.PERCENT),
    ("1%", 0.01, ConfidenceOutcome.PERCENT),
    ("85/100", 0.85, ConfidenceOutcome.PERCENT),
    ("8.5/10", 0.85, ConfidenceOutcome.OUT_OF_TEN),
    ("8.7 / 10", 0.87, ConfidenceOutcome.OUT_OF_TEN),
    ("8 out of 10", 0.8, ConfidenceOutcome.OUT_OF_TEN),
    ("8 Out Of 10.", 0.8, ConfidenceOutcome.OUT_OF_TEN),
    ("0,85", 0.85, ConfidenceOutcome.OTHER_FORM),
    ("17/20", 0.85, ConfidenceOutcome.OTHER_FORM),
    ("high (0.85)", 0.85, ConfidenceOutcome.OTHER_FORM),
    ("p = 0.85", 0.85, ConfidenceOutcome.OTHER_FORM),
    (r"\boxed{0.85}", 0.85, ConfidenceOutcome.OTHER_FORM),
    ("[0.85]", 0.85, ConfidenceOutcome.OTHER_FORM),
    ("'0.85'", 0.85, ConfidenceOutcome.OTHER_FORM),
]
UNREADABLE = [
    ("", ConfidenceOutcome.MALFORMED),
    ("high", ConfidenceOutcome.MALFORMED),
    ("p", ConfidenceOutcome.MALFORMED),
    ("nan", ConfidenceOutcome.MALFORMED),
    ("inf", ConfidenceOutcome.MALFORMED),
    ("1e-3", ConfidenceOutcome.MALFORMED),
    ("1.9.4", ConfidenceOutcome.MALFORMED),
    ("0.8-0.9", ConfidenceOutcome.MALFORMED),
    ("0.8 to 0.9", ConfidenceOutcome.MALFORMED),
    ("0.8 ± 0.1", ConfidenceOutcome.MALFORMED),
    ("0.8 or 0.9", ConfidenceOutcome.MALFORMED),
    ("0.8, no, 0.9", ConfidenceOutcome.MALFORMED),
    ("0.8?", ConfidenceOutcome.MALFORMED),
    ("> 0.8", ConfidenceOutcome.MALFORMED),
    ("1/0", ConfidenceOutcome.MALFORMED),
    ("50/50", ConfidenceOutcome.MALFORMED),
    ("8/10.5", ConfidenceOutcome.MALFORMED),
    ("0.85abc", ConfidenceOutcome.MALFORMED),
    ("٠.٨٥", ConfidenceOutcome.MALFORMED),
    ("0.8٥", ConfidenceOutcome.MALFORMED),
    ("0." + "3" * 100, ConfidenceOutcome.MALFORMED),
    ("7", ConfidenceOutcome.OUT_OF_RANGE),
    ("85", ConfidenceOutcome.OUT_OF_RANGE),
    ("1.5", ConfidenceOutcome.OUT_OF_RANGE),
    ("1.94", ConfidenceOutcome.OUT_OF_RANGE),
    ("-0.2", ConfidenceOutcome.OUT_OF_RANGE),
    ("\u22120.2", ConfidenceOutcome.OUT_OF_RANGE),
    ("150%", ConfidenceOutcome.OUT_OF_RANGE),
    ("11/10", ConfidenceOutcome.OUT_OF_RANGE),
]


@pytest.mark.parametrize(("stated", "value", "outcome"), READABLE)
def test_a_readable_value_is_the_same_in_both_formats(stated, value, outcome):
    for reading in (
        INLINE.parse(f"B\nConfidence: {stated}"),
        TAG.parse(f"B <confidence>{stated}</confidence>"),
    ):
        assert (reading.value, reading.outcome) == (value, outcome)
        assert math.copysign(1, reading.value) == 1


@pytest.mark.parametrize(("stated", "outcome"), UNREADABLE)
def test_an_unreadable_value_is_missing_but_its_segment_can_be_overwritten(stated, outcome):
    line, tag = f"Confidence: {stated}", f"<confidence>{stated}</confidence>"
    for form, segment in ((INLINE, line), (TAG, tag)):
        text = f"B\n{segment}\nnext"
        reading = form.parse(text)
        assert (reading.value, reading.outcome) == (None, outcome)
        assert text[slice(*reading.span)] == segment


@pytest.mark.parametrize(
    ("text", "segment"),
    [
        ("Confidence: 0.85", "Confidence: 0.85"),
        ("6\nConfidence: 0.85", "Confidence: 0.85"),
        ("6\nCONFIDENCE : 0.85\nmore", "CONFIDENCE : 0.85"),
        ("6\r\nconfidence: 0.85\r\nmore", "confidence: 0.85"),
        ("6 Confidence: 0.85, sure", "Confidence: 0.85, sure"),
        ("6\n\n**Confidence:** 0.85", "**Confidence:** 0.85"),
        ("6\n\n**Confidence**: **0.85**\n", "**Confidence**: **0.85**"),
        ("6\n- Confidence: 0.85", "- Confidence: 0.85"),
        ("6\n  ### Confidence: 0.85  ", "  ### Confidence: 0.85  "),
        ("6 `Confidence: 0.85`", "`Confidence: 0.85`"),
        ("Confidence: 0.1\n6\nConfidence: 0.85", "Confidence: 0.85"),
        ("Confidence: 0.1 Confidence: 0.85", "Confidence: 0.85"),
        ("Confidence: 0.85 <answer>B</answer>", "Confidence: 0.85 "),
        ("Confidence: 0.85</s>", "Confidence: 0.85"),
        ("Confidence: 0.85 < sure", "Confidence: 0.85 < sure"),
        ("6\nConfidence:\n0.85\nDone", "Confidence:\n0.85"),
        ("6\n### Confidence\n\n0.85 (high)", "### Confidence\n\n0.85 (high)"),
        ("6\n| Confidence | 0.85 |\n", "| Confidence | 0.85 |"),
        ("6\n$\\text{Confidence: } 0.85$", "$\\text{Confidence: } 0.85$"),
        ("6 (Confidence: 0.85)", "(Confidence: 0.85)"),
        ("Confidence: 0.85; Answer: 6", "Confidence: 0.85"),
        ("Confidence: 0.85, so the answer is 6.", "Confidence: 0.85"),
        ("Confidence: 0.85\nNote on confidence: two fit", "Confidence: 0.85"),
        ('Confidence: 0.85\nAction Input: {"title": "confidence: 0.2"}', "Confidence: 0.85"),
    ],
)
def test_inline_span_covers_exactly_the_segment(text, segment):
    reading = INLINE.parse(text)
    assert reading.value == 0.85
    assert text[slice(*reading.span)] == segment
    assert reading.span[1] - reading.span[0] == len(segment)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "6",
        "confidence 0.3",
        "Confidences: 0.3",
        "Overconfidence: 0.3",
        "Self-confidence: 0.3",
        "self-**confidence:** 0.3",
        "my_confidence: 0.3",
        'Action Input: {"confidence": 0.3}',
        "<confidence>0.3</confidence>",
        "Conf\u0131dence: 0.3",
        "Confidence\n: 0.3",
        "So I say with confidence: it is 6.",
        "A confidence: 2 digits fit.",
        'Action Input: {"title": "confidence: 90% interval"}',
        'Action Input: {"title": "confidence: 0.9',
        "A (confidence: 0.1)\nB (confidence: 0.9)",
        "<think>Confidence: 0.3</think>6",
        "Confidence: 0.3</think>6",
    ],
)
def test_inline_missing(text):
    reading = INLINE.parse(text)
    assert (reading.value, reading.span, reading.outcome) == (None, None, ConfidenceOutcome.MISSING)


def test_the_last_segment_counts_even_if_only_the_first_is_readable():
    assert INLINE.parse("Confidence: 0.9\nConfidence: low").outcome == ConfidenceOutcome.MALFORMED
    text = "<confidence>0.9</confidence><confidence>low</confidence>"
    assert TAG.parse(text).outcome == ConfidenceOutcome.MALFORMED


@pytest.mark.parametrize("form", [INLINE, TAG])
@pytest.mark.parametrize("start", ["<think>", "[THINK]", "<|channel|>analysis<|message|>", "6\n<thinking>"])
def test_a_completion_that_ends_within_a_thought_is_unfinished(form, start):
    reading = form.parse(f"{start}\nperhaps {form.render(0.3)} {form.render(0.4)}, or")
    assert (reading.value, reading.span, reading.outcome) == (None, None, ConfidenceOutcome.UNFINISHED)


@pytest.mark.parametrize("form", [INLINE, TAG])
def test_what_is_said_beside_thoughts_keeps_its_place(form):
    text = f"<think>{form.render(0.3)}</think>6\n{form.render(0.4)}\n<think>{form.render(0.5)}"
    reading = form.parse(text)
    assert reading.value == 0.4
    assert text[slice(*reading.span)] == form.render(0.4)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("6\nConfidence: 0.", None),
        ("6\n**Confidence:** 0.", None),
        ("6\nConfidence: 0,", None),
        ("6\nConfidence: 1.", 1.0),  # whatever follows, it is 1
        ("6\nConfidence: 0.\n", 0.0),  # the sentence ended
        ("6\nConfidence: 0. That is none.", 0.0),
        ("6\nConfidence: 0", 0.0),
    ],
)
def test_a_number_that_was_cut_is_missing_and_not_zero(text, value):
    reading = INLINE.parse(text)
    assert reading.value == value
    assert (reading.outcome is ConfidenceOutcome.MALFORMED) == (value is None)
    assert reading.span[0] == 2


def test_the_outcome_tells_the_form_that_is_asked_for():
    asked = ["Confidence: 0.85", "**Confidence:** `.85` (high)", "My confidence: 0.85, I think"]
    other = ["Confidence level: 0.85", "Confidence = 0.85", "Confidence is: 0.85", "Confidence\uff1a0.85"]
    other += ["Confidence:\n0.85", "| Confidence | 0.85 |", r"\text{Confidence}: 0.85", "Confidence - 0.85"]
    assert {INLINE.parse(text).outcome for text in asked} == {ConfidenceOutcome.DECIMAL}
    assert {INLINE.parse(text).outcome for text in other} == {ConfidenceOutcome.OTHER_FORM}
    assert {INLINE.parse(text).value for text in [*asked, *other]} == {0.85}
    for text in ("< confidence >0.85</confidence>", "<confidence>0.85<confidence>"):
        assert TAG.parse(text).outcome is ConfidenceOutcome.OTHER_FORM


def test_a_word_that_is_no_segment_does_not_hide_one():
    assert INLINE.parse("Confidence: 0.9\nOverconfidence: 0.3\nself-**confidence: 1").value == 0.9


def test_the_rest_of_the_text_survives_without_the_segment():
    text = "The answer is B.\nConfidence: 0.85\n<answer>B</answer>"
    assert strip_segment(text, INLINE.parse(text)) == "The answer is B.\n<answer>B</answer>"


@pytest.mark.parametrize(
    ("text", "segment"),
    [
        ("6 <confidence>0.85</confidence> x", "<confidence>0.85</confidence>"),
        ("6 <Confidence>\n0.85\n</CONFIDENCE>", "<Confidence>\n0.85\n</CONFIDENCE>"),
        ("<confidence>1</confidence> <confidence>0.85</confidence>", "<confidence>0.85</confidence>"),
        ("<confidence>0.85" + " so" * 300 + "</confidence>", "<confidence>0.85" + " so" * 300 + "</confidence>"),
        ("6 <confidence>0.85<confidence>\n", "<confidence>0.85<confidence>"),
        ("6 < confidence >0.85<\\confidence>", "< confidence >0.85<\\confidence>"),
    ],
)
def test_tag_span_covers_exactly_the_segment(text, segment):
    reading = TAG.parse(text)
    assert reading.value == 0.85
    assert text[slice(*reading.span)] == segment


@pytest.mark.parametrize("text", ["", "0.85</confidence>", "<confidence 0.85>", "Confidence: 0.85"])
def test_tag_missing(text):
    assert TAG.parse(text).outcome == ConfidenceOutcome.MISSING


@pytest.mark.parametrize(
    ("text", "segment"),
    [
        ("6 <confidence>0.85", "<confidence>0.85"),
        ("6 <confidence>0.85\n7", "<confidence>0.85"),
        ("6 <confidence><answer>7</answer>", "<confidence>"),
        ("<confidence>0.85</confidence", "<confidence>0.85"),
    ],
)
def test_a_tag_that_is_not_closed_is_malformed_to_the_end_of_its_line(text, segment):
    reading = TAG.parse(text)
    assert reading.outcome == ConfidenceOutcome.MALFORMED
    assert text[slice(*reading.span)] == segment


@pytest.mark.parametrize("form", [INLINE, TAG])
@pytest.mark.parametrize("confidence", [-0.01, 1.01, math.nan, math.inf, -math.inf])
def test_render_refuses_what_is_no_confidence(form, confidence):
    with pytest.raises(ConfigError, match=r"in \[0, 1\]"):
        form.render(confidence)


@pytest.mark.parametrize(
    ("confidence", "stated"), [(0, "0.00"), (-0.0, "0.00"), (0.375, "0.38"), (0.125, "0.12"), (1, "1.00")]
)
def test_render_rounds_to_two_decimals(confidence, stated):
    assert INLINE.render(confidence) == f"Confidence: {stated}"
    assert TAG.render(confidence) == f"<confidence>{stated}</confidence>"


def test_the_instruction_is_a_contract():
    # The embedded model's tokenizer depends on this sentence.
    assert INLINE.instruction == (
        "After your answer, state how confident you are that it is correct, on a last line of its own: "
        "`Confidence: p`, with p between 0.00 and 1.00."
    )


@pytest.mark.parametrize("form", [InlineConfidence, TagConfidence, RLCRConfidence])
def test_the_instruction_can_be_another_one_but_not_blank(form):
    assert form(instruction="How sure?").instruction == "How sure?"
    assert form(instruction="How sure?").parse(form().render(0.5)).value == 0.5
    with pytest.raises(ConfigError, match=f"`instruction` of {form.__name__}.*got ' '"):
        form(instruction=" ")


@pytest.mark.parametrize("form", [INLINE, TAG])
def test_the_field_name_is_what_the_instruction_shows_and_the_rendering_starts_with(form):
    assert f"`{form.field_name}" in form.instruction
    assert form.render(0.5).startswith(form.field_name)


@pytest.mark.parametrize("form", [INLINE, TAG])
def test_an_echo_of_the_instruction_is_no_confidence(form):
    assert form.parse(form.instruction).value is None


HOSTILE = {
    "segments": "Confidence:" * 150_000,
    "tags": "<confidence>" * 150_000,
    "half words": "Overconfidence:" * 110_000,
    "decorated half words": "self-**confidence:" * 90_000,
    "digits": "Confidence: " + "9" * 2_000_000,
    "digits in a tag": "<confidence>" + "9" * 2_000_000 + "</confidence>",
    "stars": "*" * 2_000_000 + "Confidence: 0.5",
    "gap": "Confidence" + " " * 2_000_000 + ": 0.5",
    "gap after": "Confidence:" + " " * 2_000_000 + "0.5",
    "NUL": "\0" * 1_000_000 + "Confidence: \0",
    "emoji and bidi": "\U0001f600\u202e\u2067" * 500_000,
    "surrogates": "\ud800" * 1_000_000,
    "angles": "<" * 2_000_000,
    "closings": "<confidence>" + "</confidence" * 150_000,
    "newlines": "Confidence:\n" * 150_000,
    "subjects": "confidence: 0.5 is " * 100_000,
    "quotations": '"confidence: 0.5" x' * 100_000,
    "escaped quotes": 'x"\\' * 700_000,
    "half quotations": "\u201c" * 1_000_000 + "{" * 1_000_000,
    "options": "A: confidence: 0.2\n" * 50_000 + "B: confidence: 0.3\n" * 50_000,
    "thoughts": "<think>" * 150_000 + "</think>" * 150_000,
    "headings": "confidence\n" * 150_000,
    "answers": "Confidence: " + " answer" * 300_000,
    "brackets": "confidence level (" * 100_000,
}


@pytest.mark.parametrize("form", [INLINE, TAG])
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_neither_crashes_nor_stalls(form, name):
    text = HOSTILE[name]
    begun = time.process_time()
    reading = form.parse(text)
    assert time.process_time() - begun < 3.0  # seconds; about 0.2 are needed
    assert reading.value == (0.5 if name == "stars" and form is INLINE else None)
