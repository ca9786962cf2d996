"""Rewards against tables worked out by hand from their formulas, and against what each promises."""

import itertools
import math

import pytest

from caopd.confidence import InlineConfidence, RLCRConfidence
from caopd.errors import ConfigError
from caopd.methods.rewards import Brier, Correctness, Format, MarginSeparated, Reward
from caopd.reading.thinking import thoughts
from caopd.types import AnswerOutcome, Example, Rollout, StopReason, Verdict, VerifiedRollout

EXAMPLE = Example("1", "Q", "B")
CONFIDENCES = [n / 20 for n in range(21)]


def completion(correct, confidence="Confidence: 0.80", outcome=AnswerOutcome.PARSED, form=InlineConfidence()):
    text = confidence if isinstance(confidence, str) else f"B\n{form.render(confidence)}"
    rollout = Rollout((1,), text, StopReason.EOS, (-1.0,), 0)
    return VerifiedRollout(rollout, Verdict(correct, "B", outcome), form.parse(text), thoughts=tuple(thoughts(text)))


def score(reward, *arguments, **options):
    return reward(EXAMPLE, completion(*arguments, **options))


UNREADABLE = ["B", "B\nConfidence: high", "B\nConfidence: 85", "B\nConfidence: 0.8?"]


@pytest.mark.parametrize("confidence", [0.0, 1.0, *UNREADABLE])
def test_correctness_does_not_read_the_confidence(confidence):
    assert score(Correctness(), True, confidence) == 1.0
    assert score(Correctness(), False, confidence) == 0.0


@pytest.mark.parametrize(
    ("correct", "confidence", "expected"),
    [(True, 1.0, 1.0), (True, 0.8, 0.96), (True, 0.0, 0.0), (False, 0.0, 0.0), (False, 0.8, -0.64), (False, 1.0, -1.0)],
)
def test_brier_is_correctness_minus_the_squared_error(correct, confidence, expected):
    assert score(Brier(), correct, confidence) == pytest.approx(expected)


@pytest.mark.parametrize("success", [0.1, 0.35, 0.8])
def test_brier_pays_the_true_confidence_best(success):
    def expected(confidence):
        return success * score(Brier(), True, confidence) + (1 - success) * score(Brier(), False, confidence)

    assert max(CONFIDENCES, key=expected) == success
    assert expected(success) > 0 == score(Brier(), True, "B")  # to state none pays less


@pytest.mark.parametrize("correct", [True, False])
@pytest.mark.parametrize("confidence", UNREADABLE)
def test_brier_of_a_confidence_that_cannot_be_read_is_zero(correct, confidence):
    assert score(Brier(), correct, confidence) == 0.0


@pytest.mark.parametrize("outcome", [AnswerOutcome.MISSING, AnswerOutcome.MALFORMED])
def test_brier_of_an_answer_that_cannot_be_read_is_zero(outcome):
    assert score(Brier(), False, 0.9, outcome=outcome) == 0.0


@pytest.mark.parametrize(
    ("correct", "confidence", "expected"),
    [(True, 1.0, 3.0), (True, 0.5, 2.5), (True, 0.0, 1.0), (False, 0.0, 0.0), (False, 0.5, -0.125), (False, 1.0, -0.5)],
)
def test_margin_separated_by_its_formula(correct, confidence, expected):
    assert score(MarginSeparated(correct_bonus=2.0, wrong_penalty=0.5), correct, confidence) == pytest.approx(expected)


@pytest.mark.parametrize("bonus", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("penalty", [0.0, 1.0, 3.0])
def test_every_correct_answer_beats_every_wrong_one_by_the_margin(bonus, penalty):
    reward = MarginSeparated(bonus, penalty)
    for right, wrong in itertools.product(CONFIDENCES, [*CONFIDENCES, *UNREADABLE]):
        assert score(reward, True, right) - score(reward, False, wrong) >= 1.0


def test_a_better_confidence_earns_more():
    right = [score(MarginSeparated(), True, confidence) for confidence in CONFIDENCES]
    wrong = [score(MarginSeparated(), False, confidence) for confidence in CONFIDENCES]
    assert right == sorted(right)
    assert wrong == sorted(wrong, reverse=True)


@pytest.mark.parametrize(("bonus", "penalty", "best"), [(1.0, 1.0, 0.4), (3.0, 1.0, 2 / 3), (1.0, 4.0, 1 / 7)])
def test_margin_separated_pays_the_truth_best_where_bonus_and_penalty_are_equal(bonus, penalty, best):
    reward, success = MarginSeparated(bonus, penalty), 0.4

    def expected(confidence):
        return success * score(reward, True, confidence) + (1 - success) * score(reward, False, confidence)

    hundredths = [n / 100 for n in range(101)]
    assert max(hundredths, key=expected) == pytest.approx(best, abs=0.005)


@pytest.mark.parametrize("correct", [True, False])
@pytest.mark.parametrize("confidence", UNREADABLE)
def test_margin_separated_takes_the_unreadable_as_wrong_and_sure(correct, confidence):
    reward = MarginSeparated(wrong_penalty=0.75)
    assert score(reward, correct, confidence) == score(reward, False, 1.0) == -0.75


@pytest.mark.parametrize("arguments", [{"correct_bonus": -0.1}, {"wrong_penalty": -1}, {"wrong_penalty": math.nan}])
def test_a_margin_that_separates_nothing_is_refused(arguments):
    with pytest.raises(ConfigError, match=next(iter(arguments))):
        MarginSeparated(**arguments)


@pytest.mark.parametrize("correct", [True, False])
def test_format_pays_the_form_and_not_the_content(correct):
    assert score(Format(), correct, 0.8) == 1.0
    for confidence in [*UNREADABLE, "B\nConfidence: 80%", "B\nConfidence: 8/10", "B\nConfidence: 0,8"]:
        assert score(Format(), correct, confidence) == 0.0
    assert score(Format(), False, 0.8, outcome=AnswerOutcome.MALFORMED) == 0.0


TAGS = ("reasoning", "answer", "analysis", "confidence")
WELL_FORMED = "<reasoning>r</reasoning>\n<answer>B</answer><analysis>a</analysis> <confidence>0.6</confidence>"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (WELL_FORMED, 1.0),
        (WELL_FORMED.upper(), 1.0),
        (WELL_FORMED.replace("</analysis>", ""), 0.0),
        (WELL_FORMED.replace("<reasoning>", ""), 0.0),
        (WELL_FORMED.replace("<answer>B</answer>", "") + "<answer>B</answer>", 0.0),
        ("<answer>B</answer><confidence>0.6</confidence>", 0.0),
    ],
)
def test_format_looks_for_tags_in_their_order(text, expected):
    assert score(Format(tags=TAGS), True, text, form=RLCRConfidence()) == expected
    assert score(Format(), True, text, form=RLCRConfidence()) == 1.0


def test_format_takes_no_tag_from_a_thought():
    thought = WELL_FORMED.replace("<answer>B</answer>", "")
    text = f"<think>{WELL_FORMED}</think>{thought}"
    assert score(Format(tags=TAGS), True, text, form=RLCRConfidence()) == 0.0
    asked = Format(tags=("think", "answer", "analysis"))
    assert score(asked, True, WELL_FORMED.replace("reasoning", "think"), form=RLCRConfidence()) == 1.0


@pytest.mark.parametrize("reward", [Correctness, Format, Brier, MarginSeparated])
def test_the_weight_is_a_setting_and_applied_by_the_method(reward):
    assert issubclass(reward, Reward)
    assert reward().weight == 1.0
    heavy = reward(weight=3.0)
    assert heavy.weight == 3.0
    assert score(heavy, True, 0.8) == score(reward(), True, 0.8)
