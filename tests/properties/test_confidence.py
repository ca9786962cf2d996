from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caopd.confidence import InlineConfidence, TagConfidence
from caopd.types import ConfidenceOutcome

SETTINGS = settings(derandomize=True, deadline=None, max_examples=100)
FORMS = pytest.mark.parametrize("form", [InlineConfidence(), TagConfidence()])
CONFIDENCES = st.floats(0, 1)
READ = {ConfidenceOutcome.DECIMAL, ConfidenceOutcome.PERCENT, ConfidenceOutcome.OUT_OF_TEN}
BITS = [
    "Confidence:",
    "<confidence>",
    "</confidence>",
    "0.7",
    "85",
    "%",
    "/10",
    "**",
    " ",
    "\n",
    "-",
    "x",
    "\0",
]
SOUPS = st.lists(st.sampled_from(BITS) | st.text(max_size=4), max_size=30).map("".join)


@FORMS
@SETTINGS
@given(q=CONFIDENCES)
def test_parse_inverts_render(form, q):
    rendered = form.render(q)
    reading = form.parse(rendered)
    assert reading.value == round(q, 2)
    assert reading.span == (0, len(rendered))


@FORMS
@SETTINGS
@given(before=st.text(max_size=60), after=SOUPS, q=CONFIDENCES)
def test_the_last_line_is_found_behind_any_text(form, before, after, q):
    after = after.replace("onfidence", "")
    reading = form.parse(f"{before}\n{form.render(q)}\n{after}")
    assert reading.value == round(q, 2)
    assert reading.span == (len(before) + 1, len(before) + 1 + len(form.render(q)))


@FORMS
@SETTINGS
@given(soup=SOUPS)
def test_any_text_is_read_and_value_span_and_outcome_agree(form, soup):
    reading = form.parse(soup)
    assert (reading.value is not None) == (reading.outcome in READ)
    assert (reading.span is None) == (reading.outcome == ConfidenceOutcome.MISSING)
    if reading.value is not None:
        assert 0 <= reading.value <= 1
    if reading.span is not None:
        start, end = reading.span
        assert 0 <= start < end <= len(soup)
        assert form.field_name.strip("<>:").lower() in soup[start:end].lower()


@FORMS
@SETTINGS
@given(soup=SOUPS, q=CONFIDENCES)
def test_overwriting_the_segment_makes_the_new_value_the_one_that_is_read(form, soup, q):
    reading = form.parse(soup)
    kept = soup if reading.span is None else soup[: reading.span[0]]
    assert form.parse(f"{kept}\n{form.render(q)}").value == round(q, 2)


@SETTINGS
@given(tenths=st.integers(0, 1000))
def test_every_scale_states_the_same_decimal(tenths):
    expected = float(Decimal(tenths) / 1000)
    percent, out_of_ten = Decimal(tenths) / 10, Decimal(tenths) / 100
    for stated in (f"{Decimal(tenths) / 1000}", f"{percent}%", f"{out_of_ten}/10", f"{percent} out of 100"):
        assert InlineConfidence().parse(f"Confidence: {stated}").value == expected
