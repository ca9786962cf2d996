import math

import pytest

from caopd.errors import ConfigError, DataError, UserCodeError
from caopd.methods import GRPO, SDFT, SDPO, CaOPD
from caopd.rounds.config import (
    AdaptiveBudget,
    RoundConfig,
    method_statistics,
    round_statistics,
    shown_context,
    train_samples,
)
from caopd.types import (
    AnswerOutcome,
    ConfidenceOutcome,
    ConfidenceReading,
    Example,
    Response,
    Rollout,
    StopReason,
    TeacherContext,
    TrainSample,
    Verdict,
    VerifiedGroup,
    VerifiedRollout,
)

EXAMPLE = Example("1", "Q", "B", demonstration="DEMONSTRATION")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"num_prompts_per_round": 0}, r"`num_prompts_per_round`.*at least 1.*0"),
        ({"num_rollouts": 0}, r"`num_rollouts`.*at least 1.*0"),
        ({"num_rollouts": 4, "num_trained_rollouts": 5}, r"`num_trained_rollouts`.*between 1.*4.*5"),
        ({"num_trained_rollouts": 0}, r"`num_trained_rollouts`.*0"),
        ({"adaptive": AdaptiveBudget(4)}, r"`num_trained_rollouts`.*smallest group.*= 4.*None"),
        ({"adaptive": AdaptiveBudget(4), "num_trained_rollouts": 5}, r"`num_trained_rollouts`.*= 4.*5"),
        ({"adaptive": AdaptiveBudget(3), "num_trained_rollouts": 1}, r"= 8 to be a multiple.*3"),
        ({"adaptive": AdaptiveBudget(16), "num_trained_rollouts": 1}, r"= 8 to be a multiple.*16"),
    ],
)
def test_impossible_sizes_are_refused(arguments, said):
    with pytest.raises(ConfigError, match=said):
        RoundConfig(**arguments)


@pytest.mark.parametrize("arguments", [(0, 0.1), (4, 0.0), (4, 0.5)])
def test_an_impossible_budget_is_refused(arguments):
    with pytest.raises(ConfigError, match=r"`max_deviation`.*\(0, 0\.5\).*data\.round\.adaptive"):
        AdaptiveBudget(*arguments)


def test_an_adaptive_round_has_as_many_samples_as_any():
    config = RoundConfig(12, 16, 2, AdaptiveBudget(4))
    assert (config.num_samples, config.smallest_group) == (24, 4)
    assert RoundConfig(12, 16).smallest_group == 16


@pytest.mark.parametrize(("trained", "expected"), [(None, 96), (1, 12), (8, 96), (3, 36)])
def test_the_number_of_samples_counts_trained_rollouts(trained, expected):
    assert RoundConfig(12, 8, trained).num_samples == expected


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
    groups = [VerifiedGroup(EXAMPLE, (1,), tuple(rollouts), mu_hat) for mu_hat in mu_hats]
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
            "truncated": 0.25,
            "num_rollouts": 4.0,
            "num_tokens": 72.0,
            "num_tokens_mean": 6.0,
            "without_weight": 0.25,
            "mean_confidence": 0.7,
            "mu_hat": 0.5,
        }
    )


def test_who_did_not_finish_thinking_has_no_segment_either():
    statistics = statistics_of([*ROLLOUTS[:3], THINKS], [0.5], [1.0])
    assert (statistics["unfinished_thinking"], statistics["missing_segment"]) == (0.25, 0.5)


def test_another_form_is_read_but_is_not_the_form_that_is_asked_for():
    statistics = statistics_of([*ROLLOUTS[:3], READ], [0.5], [1.0])
    assert (statistics["format_adherence"], statistics["decimal_format"]) == (0.75, 0.25)


class Forgets(SDFT):
    """Makes no sample of wrong rollouts."""

    def train_samples(self, group):
        return [sample for sample in super().train_samples(group) if sample.rollout.verdict.correct]


class Opens(SDFT):
    """Needs a file."""

    def train_samples(self, group):
        raise PermissionError("solutions.txt")


def test_a_method_that_returns_or_raises_something_else_is_named(group_of):
    group = group_of(EXAMPLE, [("B", True), ("C", False)])
    assert train_samples(SDFT(), group) == SDFT().train_samples(group)
    with pytest.raises(DataError, match=r"test_rounds\.Forgets to make 2 TrainSamples of example '1'.*weight 0"):
        train_samples(Forgets(), group)
    with pytest.raises(
        UserCodeError, match=r"test_rounds\.Opens .*example '1'.* PermissionError: solutions\.txt"
    ) as error:
        train_samples(Opens(), group)
    assert isinstance(error.value.__cause__, PermissionError)


def test_unsure_prompts_do_not_count_for_more():
    """The second group drew four more, all wrong: shares are over the first four of either, tokens over all."""
    groups = [VerifiedGroup(EXAMPLE, (1,), tuple(r), 0.5) for r in (ROLLOUTS, ROLLOUTS + ROLLOUTS[2:] * 2)]
    statistics = round_statistics(groups, [TrainSample(EXAMPLE, ROLLOUTS[0], None)])
    assert (statistics["accuracy"], statistics["truncated"]) == (0.5, 0.25)
    assert (statistics["num_rollouts"], statistics["num_tokens"]) == (6.0, 24 + 24 + 28)


def test_what_nothing_is_known_of_is_absent_and_not_zero():
    statistics = statistics_of(ROLLOUTS[2:], [None], [0.0])
    assert "mean_confidence" not in statistics
    assert "mu_hat" not in statistics
    assert not any(math.isnan(value) for value in statistics.values())


def test_what_the_method_says_of_its_groups_is_averaged(group_of):
    groups = [group_of(EXAMPLE, [("B", True), ("C", False)]), group_of(EXAMPLE, [("B", True), ("D", True)])]
    expected = {"reward": 0.75, "reward_Correctness": 0.75, "zero_advantage": 0.5}
    assert method_statistics(groups, GRPO()) == pytest.approx(expected)
    assert method_statistics(groups, SDPO()) == {}


def test_a_round_without_rollouts_says_what_it_can():
    groups = [VerifiedGroup(EXAMPLE, (1,), (), None)]
    samples = [TrainSample(EXAMPLE, Response("B"), None, weight=weight) for weight in (1.0, 0.0)]
    assert round_statistics(groups, samples) == {"without_weight": 0.5}


@pytest.mark.parametrize("method", [SDFT(), CaOPD(SDFT())])
def test_the_known_context_of_a_demonstration(group_of, method):
    rollouts = group_of(EXAMPLE, [("C", False)]).rollouts
    context = shown_context(method, VerifiedGroup(EXAMPLE, (1,), rollouts, mu_hat=None))
    assert context == TeacherContext("demonstration", "DEMONSTRATION", 1.0)


@pytest.mark.parametrize("method", [SDPO(), CaOPD(SDPO())])
@pytest.mark.parametrize(
    ("correct", "shown"),
    [((False, False), None), ((True, False), "0"), ((False, True), "1"), ((True, True), "1")],
)
def test_the_known_context_of_a_solution_is_one_of_the_group(group_of, method, correct, shown):
    rollouts = group_of(EXAMPLE, [(str(n), c) for n, c in enumerate(correct)]).rollouts
    context = shown_context(method, VerifiedGroup(EXAMPLE, (1,), rollouts, mu_hat=None))
    assert (None if context is None else context.response) == shown
