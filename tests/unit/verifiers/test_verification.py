from dataclasses import replace

import numpy as np
import pytest

from caopd.confidence import InlineConfidence, TagConfidence
from caopd.errors import DataError, UserCodeError
from caopd.types import (
    AnswerOutcome,
    ConfidenceOutcome,
    ConfidenceReading,
    Example,
    Rollout,
    StopReason,
    Verdict,
)
from caopd.verifiers import ExactMatch, MultipleChoice
from caopd.verifiers.verification import Verification

EXAMPLE = Example("sum-7", "Q", "6")


def rollout_of(text, stop_reason=StopReason.EOS):
    return Rollout((1,), text, stop_reason, (-1.0,), 0)


def verified(text, stop_reason=StopReason.EOS, begun=False, verifier=ExactMatch(), form=InlineConfidence()):
    return Verification(verifier, form)(rollout_of(text, stop_reason), EXAMPLE, begun)


@pytest.mark.parametrize("text", ["6\nConfidence: 0.90", "6\n\n**Confidence:** 90%\n", "Confidence: 0.90\n6"])
def test_the_answer_is_verified_without_the_confidence_segment(text):
    assert verified(text).verdict.correct
    assert verified(text).reading.value == 0.9
    assert verified(text).rollout.text == text


def test_only_the_tasks_own_format_is_read():
    text = "<answer>B</answer>\nConfidence: 0.90"
    found = Verification(MultipleChoice(), TagConfidence())(rollout_of(text), Example("1", "Q", "B"))
    assert found.verdict.correct
    assert found.reading.outcome is ConfidenceOutcome.MISSING


@pytest.mark.parametrize(
    ("stated", "value"),
    [
        ("0.85", 0.85),  # two decimals: more digits would change nothing that counts
        ("0.00", 0.0),
        ("1.0", 1.0),
        ("1.", 1.0),
        ("85%", 0.85),
        ("0.85 (of 1", 0.85),
        ("0.8\n", 0.8),
        ("0.8", None),  # 0.85?
        ("0", None),  # 0.9?
        ("1", None),  # 10%?
        ("0.", None),
        ("8/10", None),  # 8/100?
        ("17/20", None),
        ("", None),
    ],
)
def test_what_the_length_limit_may_have_cut_is_not_known(stated, value):
    text = f"6\nConfidence: {stated}"
    found = verified(text, StopReason.LENGTH)
    assert found.reading.value == value
    assert found.verdict.correct
    if value is None:
        assert found.reading.outcome is ConfidenceOutcome.MALFORMED
        assert text[slice(*found.reading.span)] == f"Confidence: {stated}"  # a revision overwrites it


@pytest.mark.parametrize(("stated", "value"), [("0.8", 0.8), ("0", 0.0), ("1", 1.0), ("8/10", 0.8)])
def test_what_ended_by_itself_is_what_it_says(stated, value):
    assert verified(f"6\nConfidence: {stated}").reading.value == value


class Shouts:
    """A format that knows nothing of thoughts."""

    instruction = field_name = "SURE!"

    def render(self, confidence):
        return "SURE!"

    def parse(self, text):
        start = text.find("SURE!")
        if start < 0:
            return ConfidenceReading(None, None, ConfidenceOutcome.MISSING)
        return ConfidenceReading(1.0, (start, start + 5), ConfidenceOutcome.DECIMAL)


class Contains:
    """A verifier that knows nothing of thoughts."""

    def verify(self, text, target):
        return Verdict(
            target in text, text.strip() or None, AnswerOutcome.PARSED if text.strip() else AnswerOutcome.MISSING
        )


@pytest.mark.parametrize("form", [InlineConfidence(), Shouts()])
@pytest.mark.parametrize("verifier", [ExactMatch(), Contains()])
@pytest.mark.parametrize(
    ("text", "begun"),
    [
        ("<think>6\nConfidence: 0.90\nSURE!\n", False),
        ("6\nConfidence: 0.90\nSURE!\n", True),
        ("<think>6</think>\n<think>Confidence: 0.90\nSURE!\n", False),
    ],
)
def test_a_completion_that_ends_within_its_thinking_says_nothing(form, verifier, text, begun):
    found = verified(text, StopReason.LENGTH, begun, verifier, form)
    assert (found.verdict.correct, found.verdict.answer) == (False, None)
    assert (found.reading.value, found.reading.span) == (None, None)
    assert found.reading.outcome is ConfidenceOutcome.UNFINISHED


@pytest.mark.parametrize("begun", [False, True])
def test_what_the_prompt_opened_and_the_completion_closed_is_thought(begun):
    text = "7? SURE!\nConfidence: 0.90\n</think>\n6"
    for form in (InlineConfidence(), Shouts()):
        found = verified(text, begun=begun, verifier=Contains(), form=form)
        assert found.verdict.correct
        assert found.verdict.answer == "6"
        assert found.reading.outcome is ConfidenceOutcome.MISSING


class Scores:
    """Gives points."""

    def __init__(self, correct, **changes):
        self._verdict = replace(Verdict(correct, "6", AnswerOutcome.PARSED), **changes)

    def verify(self, text, target):
        return self._verdict


@pytest.mark.parametrize(("given", "correct"), [(1, True), (0, False), (np.True_, True), (np.int64(0), False)])
def test_a_verdict_in_other_words_is_true_or_false(given, correct):
    assert verified("6", verifier=Scores(given)).verdict.correct is correct


@pytest.mark.parametrize("given", [0.5, 1.0, 0.0, 2, -1, None, "yes", np.float64(0.25), float("nan")])
def test_half_a_point_is_refused(given):
    with pytest.raises(DataError, match=r"test_verification\.Scores .*correct=.*example 'sum-7'") as error:
        verified("6", verifier=Scores(given))
    assert f"correct={given!r}" in str(error.value)


@pytest.mark.parametrize("changes", [{"answer": 6}, {"outcome": "parsed"}])
def test_a_verdict_of_other_types_is_refused(changes):
    with pytest.raises(DataError, match=r"Scores .*an AnswerOutcome, but got Verdict\(.*example 'sum-7'"):
        verified("6", verifier=Scores(True, **changes))


class States(Shouts):
    """Returns what it is told to."""

    def __init__(self, reading):
        self._reading = reading

    def parse(self, text):
        return self._reading


@pytest.mark.parametrize(
    "reading",
    [
        0.9,
        None,
        ConfidenceReading(85.0, (0, 1), ConfidenceOutcome.DECIMAL),
        ConfidenceReading(float("nan"), (0, 1), ConfidenceOutcome.DECIMAL),
        ConfidenceReading(0.9, (0, 2), ConfidenceOutcome.DECIMAL),
        ConfidenceReading(0.9, (0, 1), "decimal"),
    ],
)
def test_a_reading_that_is_none_is_refused(reading):
    with pytest.raises(DataError, match=r"test_verification\.States .* value in \[0, 1\] .*example 'sum-7'"):
        verified("6", form=States(reading))


class Fails:
    """Needs something that is not there."""

    def __init__(self, error):
        self._error = error

    def verify(self, text, target):
        raise self._error

    parse = verify


@pytest.mark.parametrize("own", [FileNotFoundError("tests.txt"), TypeError("no"), KeyError("6")])
def test_what_the_users_code_raises_names_class_and_example_and_stays_the_cause(own):
    with pytest.raises(UserCodeError, match=rf"Fails .*example 'sum-7'.*{type(own).__name__}") as error:
        verified("6", verifier=Fails(own))
    assert error.value.__cause__ is own
    with pytest.raises(UserCodeError, match=r"Fails .*example 'sum-7'"):
        verified("6", form=Fails(own))


def test_what_is_raised_on_purpose_passes():
    with pytest.raises(DataError, match="Correct the row"):
        verified("6", verifier=Fails(DataError("Correct the row.")))


def test_an_interruption_passes():
    with pytest.raises(KeyboardInterrupt):
        verified("6", verifier=Fails(KeyboardInterrupt()))


def test_marks_that_a_template_declares_are_thoughts():
    marks = (("<muse>", "</muse>"),)
    for text, begun, heard, outcome in (
        ("<muse>7\nConfidence: 0.2</muse>6", False, "6", ConfidenceOutcome.MISSING),
        ("7\nConfidence: 0.2</muse>6\nConfidence: 0.9", True, "6", ConfidenceOutcome.DECIMAL),
        ("<muse>6\nConfidence: 0.2", False, None, ConfidenceOutcome.UNFINISHED),
        ("<think>6\nConfidence: 0.2", False, None, ConfidenceOutcome.UNFINISHED),
        ("6\nConfidence: 0.2", True, None, ConfidenceOutcome.UNFINISHED),
    ):
        found = Verification(ExactMatch(), InlineConfidence(), marks=marks)(rollout_of(text), EXAMPLE, begun)
        assert (found.verdict.answer, found.reading.outcome) == (heard, outcome), text
        saved = Verification(ExactMatch(), InlineConfidence()).verify(text, "6", "here", found.thoughts)
        assert saved == (found.verdict, found.reading), "as a file with the thoughts is scored"


def test_a_verified_rollout_knows_its_thoughts():
    found = verified("<think>a</think>6 <think>b</think>\nConfidence: 0.90")
    assert found.thoughts == ((0, 16), (18, 34))
    assert verified("6").thoughts == ()
