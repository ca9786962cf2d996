import math
from dataclasses import replace

import pytest

from caopd.methods import GRPO, SDPO
from caopd.rounds.samples import train_samples
from caopd.rounds.statistics import method_statistics, round_statistics
from caopd.types import (
    AnswerOutcome,
    ConfidenceOutcome,
    ConfidenceReading,
    Example,
    Response,
    Rollout,
    StopReason,
    TrainSample,
    Verdict,
    VerifiedGroup,
    VerifiedRollout,
)

EXAMPLE = Example("1", "Q", "B")


def verified(correct, value, confidence_outcome, answer_outcome, stop_reason, num_tokens):
    return VerifiedRollout(
        Rollout((3,) * num_tokens, "t", stop_reason, (-1.0,) * num_tokens, 0),
        Verdict(correct, None, answer_outcome),
        ConfidenceReading(value, None, confidence_outcome),
    )


PARSED, EOS = AnswerOutcome.PARSED, StopReason.EOS
ROLLOUTS = [
    verified(True, 0.9, ConfidenceOutcome.DECIMAL, PARSED, EOS, 4),
    verified(True, 0.5, ConfidenceOutcome.PERCENT, PARSED, EOS, 6),
    verified(False, None, ConfidenceOutcome.MISSING, AnswerOutcome.MISSING, StopReason.LENGTH, 10),
    verified(False, None, ConfidenceOutcome.MALFORMED, AnswerOutcome.MALFORMED, EOS, 4),
]
THINKS = verified(False, None, ConfidenceOutcome.UNFINISHED, AnswerOutcome.MISSING, StopReason.LENGTH, 10)
READ = verified(True, 0.9, ConfidenceOutcome.OTHER_FORM, PARSED, EOS, 4)


def statistics_of(rollouts, mu_hats, weights):
    groups = [VerifiedGroup(EXAMPLE, (1,), tuple(rollouts), (mu_hat,) * len(rollouts)) for mu_hat in mu_hats]
    samples = [TrainSample(EXAMPLE, rollouts[0], None, weight=weight) for weight in weights]
    return round_statistics(groups, samples)


def test_a_round_is_described_by_shares_of_its_rollouts():
    statistics = statistics_of(ROLLOUTS, [0.25, None, 0.75], [1.0, 0.0, 1.0, 1.0])
    assert statistics == pytest.approx(
        {
            "accuracy": 0.5,
            "format_adherence": 0.5,
            "decimal_format": 0.25,
            "missing_segment": 0.25,
            "unfinished_thinking": 0.0,
            "answer_parse_rate": 0.5,
            "other_form": 0.25,
            "answer_other_form": 0.0,
            "truncated": 0.25,
            "num_rollouts": 4.0,
            "num_tokens": 72.0,
            "num_tokens_mean": 6.0,
            "without_weight": 0.25,
            "confidence_alone": 0.0,
            "no_verdict": 0.0,
            "mean_confidence": 0.7,
            "mu_hat": 0.5,
        }
    )


def test_samples_that_train_the_confidence_alone_are_counted():
    group = VerifiedGroup(EXAMPLE, (1,), tuple(ROLLOUTS), (0.5,) * 4)
    pairs = [(1.0, 0.0), (1.0, 0.5), (0.0, 0.0), (1.0, 1.0)]
    samples = [TrainSample(EXAMPLE, ROLLOUTS[0], None, weight=weight, body_weight=body) for weight, body in pairs]
    assert round_statistics([group], samples)["confidence_alone"] == 0.25


def test_who_did_not_finish_thinking_has_no_segment_either():
    statistics = statistics_of([*ROLLOUTS[:3], THINKS], [0.5], [1.0])
    assert (statistics["unfinished_thinking"], statistics["missing_segment"]) == (0.25, 0.5)


def test_another_form_is_read_but_is_not_the_form_that_is_asked_for():
    statistics = statistics_of([*ROLLOUTS[:3], READ], [0.5], [1.0])
    shares = [statistics[name] for name in ("format_adherence", "decimal_format", "other_form")]
    assert shares == [0.75, 0.25, 0.5]


def test_unsure_prompts_do_not_count_for_more():
    """The second group sampled four more, all wrong: shares are over the first four of either, tokens over all."""
    groups = [VerifiedGroup(EXAMPLE, (1,), tuple(r), (0.5,) * len(r)) for r in (ROLLOUTS, ROLLOUTS + ROLLOUTS[2:] * 2)]
    statistics = round_statistics(groups, [TrainSample(EXAMPLE, ROLLOUTS[0], None)])
    assert (statistics["accuracy"], statistics["truncated"]) == (0.5, 0.25)
    assert (statistics["num_rollouts"], statistics["num_tokens"]) == (6.0, 24 + 24 + 28)


def test_estimates_of_their_own_count_as_the_mean_of_their_group():
    """Two groups, of two and of four rollouts, weigh the same; a rollout without an estimate says nothing."""
    groups = [
        VerifiedGroup(EXAMPLE, (1,), tuple(ROLLOUTS[:2]), (0.0, 1.0)),
        VerifiedGroup(EXAMPLE, (1,), tuple(ROLLOUTS), (0.25, None, 0.25, 0.25)),
    ]
    statistics = round_statistics(groups, [TrainSample(EXAMPLE, ROLLOUTS[0], None)])
    assert statistics["mu_hat"] == (0.5 + 0.25) / 2


def test_what_nothing_is_known_of_is_absent_and_not_zero():
    statistics = statistics_of(ROLLOUTS[2:], [None], [0.0])
    assert "mean_confidence" not in statistics
    assert "mu_hat" not in statistics
    assert not any(math.isnan(value) for value in statistics.values())


def test_what_the_method_says_of_its_groups_is_averaged(group_of):
    groups = [group_of(EXAMPLE, [("B", True), ("C", False)]), group_of(EXAMPLE, [("B", True), ("D", True)])]
    expected = {"reward": 0.75, "reward_Correctness": 0.75, "zero_advantage": 0.5}
    for method, found in ((GRPO(), expected), (SDPO(), {})):
        samples = [method.train_samples(group) for group in groups]
        assert method_statistics(method, groups, samples) == pytest.approx(found)


def test_a_round_without_rollouts_says_what_it_can():
    groups = [VerifiedGroup(EXAMPLE, (1,), (), ())]
    samples = [TrainSample(EXAMPLE, Response("B"), None, weight=weight) for weight in (1.0, 0.0)]
    assert round_statistics(groups, samples) == {"without_weight": 0.5}


def test_rollouts_without_a_verdict_are_counted_and_are_neither_right_nor_wrong():
    unjudged = replace(ROLLOUTS[1], verdict=None)
    statistics = statistics_of([ROLLOUTS[0], unjudged, *ROLLOUTS[2:]], [0.25], [1.0])
    assert statistics["no_verdict"] == 0.25
    assert statistics["accuracy"] == statistics["answer_parse_rate"] == pytest.approx(1 / 3)
    assert (statistics["format_adherence"], statistics["mean_confidence"]) == (0.5, 0.7)
    nothing = statistics_of([unjudged] * 2, [None], [0.0])
    assert nothing["no_verdict"] == 1.0
    assert not {"accuracy", "answer_parse_rate", "mu_hat"} & nothing.keys()


def test_a_method_describes_the_groups_that_it_made_samples_of(group_of):
    pair = [("B", True), ("C", False)]
    whole, lacking = group_of(EXAMPLE, [*pair, ("B", True)]), group_of(EXAMPLE, pair)
    partly = replace(whole, rollouts=(*whole.rollouts[:2], replace(whole.rollouts[2], verdict=None)))
    lacking = replace(lacking, rollouts=(lacking.rollouts[0], replace(lacking.rollouts[1], verdict=None)))
    groups = [whole, partly, lacking]
    statistics = method_statistics(GRPO(), groups, [train_samples(GRPO(), group) for group in groups])
    assert statistics["reward"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert method_statistics(GRPO(), [lacking], [train_samples(GRPO(), lacking)]) == {}
