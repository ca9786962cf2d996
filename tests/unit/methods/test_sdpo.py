import itertools
from dataclasses import replace

import pytest

from caopd.methods import SDPO, CaOPD
from caopd.types import Example, TeacherContext

EXAMPLE = Example("7", "Q", "B", demonstration="DEMONSTRATION")


def group_with(group_of, correct):
    return group_of(
        EXAMPLE, [(f"answer {n}\nConfidence: 0.{n}0", is_correct) for n, is_correct in enumerate(correct, 1)]
    )


@pytest.mark.parametrize("correct", list(itertools.product([True, False], repeat=4)))
def test_the_solution_is_the_first_successful_rollout_other_than_the_trained_one(group_of, correct):
    samples = SDPO().train_samples(group_with(group_of, correct))
    for index, sample in enumerate(samples):
        others = [n for n in range(4) if correct[n] and n != index]
        if others:
            assert sample.context.kind == "solution"
            assert sample.context.response == f"answer {others[0] + 1}"
            assert sample.context.confidence == pytest.approx((others[0] + 1) / 10)
            assert not sample.context.empirical
            assert sample.weight == 1.0
        else:
            assert (sample.context, sample.weight) == (None, 0.0)


def test_no_demonstration_of_the_data_is_shown(group_of):
    for sample in SDPO().train_samples(group_with(group_of, [True, True])):
        assert "DEMONSTRATION" not in sample.context.response
    assert SDPO().known_context(EXAMPLE) is None


def test_every_rollout_is_trained_on_as_sampled(group_of):
    group = group_with(group_of, [True, False, True])
    samples = SDPO().train_samples(group)
    assert [sample.rollout for sample in samples] == list(group.rollouts)
    assert {sample.confidence for sample in samples} == {None}


@pytest.mark.parametrize(
    ("solution", "shown"),
    [
        ("<think>Maybe 3?\nNo.</think>\n\n6\nConfidence: 0.90", "6"),
        ("<think>\n</think>6\nConfidence: 0.90", "6"),
        ("<think>a</think>so <think>b</think>6\nConfidence: 0.90", "so 6"),
        ("[THINK]Maybe 3?[/THINK]6\nConfidence: 0.90", "6"),
        ("<|channel|>analysis<|message|>3?assistant<|channel|>final<|message|>6\nConfidence: 0.90", "6"),
        ("Confidence: 0.20? <think>Confidence: 0.70</think>6\nConfidence: 0.90", "Confidence: 0.20? 6"),
    ],
)
def test_thinking_is_removed_from_the_solution(group_of, solution, shown):
    group = group_of(EXAMPLE, [(solution, True), ("5", False)])
    context = SDPO().train_samples(group)[1].context
    assert context.response == shown
    assert context.confidence == 0.9


def test_thinking_that_the_prompt_opened_is_removed_too(group_of):
    """Templates of thinking models end with ``<think>``: the completion holds the closing tag alone."""
    group = group_of(EXAMPLE, [("Maybe 3? No.\n</think>\n\n6\nConfidence: 0.90", True), ("5", False)])
    assert SDPO().train_samples(group)[1].context.response == "6"


def test_thinking_can_be_kept(group_of):
    group = group_of(EXAMPLE, [("<think>3?</think>6\nConfidence: 0.90", True), ("5", False)])
    assert SDPO(remove_thinking=False).train_samples(group)[1].context.response == "<think>3?</think>6"


def test_the_confidence_of_the_solution_is_a_field_and_not_in_its_text(group_of):
    group = group_of(EXAMPLE, [("6\nConfidence: 85%", True), ("5", False)])
    context = SDPO().train_samples(group)[1].context
    assert (context.response, context.confidence) == ("6", 0.85)


def test_a_solution_without_a_confidence_states_none(group_of):
    group = group_of(EXAMPLE, [("6", True), ("5", False)])
    assert SDPO().train_samples(group)[1].context.confidence is None


def test_two_rollouts_are_needed():
    assert SDPO().min_rollouts == 2


def with_feedback(group):
    """The group, whose wrong completions have feedback that names them."""
    rollouts = [
        replace(rollout, verdict=replace(rollout.verdict, feedback=None if rollout.verdict.correct else f"not {n}"))
        for n, rollout in enumerate(group.rollouts, 1)
    ]
    return replace(group, rollouts=tuple(rollouts))


@pytest.mark.parametrize("correct", list(itertools.product([True, False], repeat=3)))
def test_feedback_is_that_of_the_trained_rollout_beside_the_solution_or_alone(group_of, correct):
    group = with_feedback(group_with(group_of, correct))
    without = SDPO().train_samples(group)
    for index, sample in enumerate(SDPO(feedback=True).train_samples(group)):
        feedback = None if correct[index] else f"not {index + 1}"
        if without[index].context is not None:
            assert sample.context == replace(without[index].context, feedback=feedback)
        elif feedback is not None:
            assert sample.context == TeacherContext("solution", None, None, feedback=feedback)
        else:
            assert sample.context is None
        assert sample.weight == float(sample.context is not None)


def test_feedback_is_shown_on_request_alone(group_of):
    group = with_feedback(group_with(group_of, [False, False]))
    assert [sample.context for sample in SDPO().train_samples(group)] == [None, None]


def test_calibration_notes_the_empirical_confidence_beside_feedback(group_of):
    group = replace(with_feedback(group_with(group_of, [False, False])), mu_hats=(0.25, 0.25))
    for sample in CaOPD(SDPO(feedback=True)).train_samples(group):
        assert (sample.confidence, sample.context.confidence, sample.context.empirical) == (0.25, 0.25, True)
        assert sample.context.feedback
