import itertools
import math

import pytest
import torch
from scipy.stats import binom

from caopd.errors import ConfigError, DataError, UserCodeError
from caopd.methods import CAR, GRPO, RLCR
from caopd.methods.grpo import group_advantages
from caopd.methods.rewards import Brier, Correctness, Format, MarginSeparated, Reward
from caopd.types import (
    AnswerOutcome,
    ConfidenceOutcome,
    ConfidenceReading,
    Example,
    Rollout,
    StopReason,
    Verdict,
    VerifiedRollout,
)

EXAMPLE = Example("7", "Q", "B")
ROLLOUTS = [("B\nConfidence: 1.00", True), ("C\nConfidence: 0.90", False), ("D\nConfidence: 0.20", False), ("E", True)]
BRIER = [1.0, -0.81, -0.04, 0.0]
MARGIN = [2.0, -0.81, -0.04, -1.0]
FORMAT = [1.0, 1.0, 1.0, 0.0]


def normalised(rewards, scale_by_std):
    """By torch, in float64; the population's standard deviation."""
    reward_G = torch.tensor(rewards, dtype=torch.float64)
    centred_G = reward_G - reward_G.mean()
    return (centred_G / reward_G.std(correction=0) if scale_by_std else centred_G).tolist()


@pytest.mark.parametrize(
    ("method", "rewards"),
    [
        (GRPO(), [1.0, 0.0, 0.0, 1.0]),
        (GRPO(scale_by_std=False), [1.0, 0.0, 0.0, 1.0]),
        (RLCR(), [a + b for a, b in zip(BRIER, FORMAT, strict=True)]),
        (
            RLCR(rewards=[Brier(weight=2.0), Format(weight=0.5)]),
            [2 * a + b / 2 for a, b in zip(BRIER, FORMAT, strict=True)],
        ),
        (CAR(), MARGIN),
        (GRPO(rewards=[Brier(), MarginSeparated(weight=-1.0)]), [a - b for a, b in zip(BRIER, MARGIN, strict=True)]),
    ],
    ids=repr,
)
def test_advantages_are_those_of_the_weighted_sum(group_of, method, rewards):
    group = group_of(EXAMPLE, ROLLOUTS)
    samples = method.train_samples(group)
    expected = normalised(rewards, method.scale_by_std)
    assert [sample.advantage for sample in samples] == pytest.approx(expected, rel=1e-5, abs=1e-5)
    assert sum(sample.advantage for sample in samples) == pytest.approx(0, abs=1e-12)
    for sample, rollout in zip(samples, group.rollouts, strict=True):
        assert sample.rollout == rollout
        assert (sample.context, sample.confidence, sample.weight) == (None, None, 1.0)


def test_the_papers_differ_in_rewards_and_scaling_alone():
    assert (GRPO().terms, GRPO().scale_by_std) == ((Correctness(),), True)
    assert (RLCR().terms, RLCR().scale_by_std) == ((Brier(), Format()), False)
    assert (CAR().terms, CAR().scale_by_std) == ((MarginSeparated(),), True)


@pytest.mark.parametrize("scale_by_std", [True, False])
def test_advantages_of_a_group(scale_by_std):
    for rewards in itertools.product([0.0, 0.3, 1.0], repeat=3):
        advantages = group_advantages(rewards, scale_by_std)
        assert sum(advantages) == pytest.approx(0, abs=1e-12), rewards
        if len(set(rewards)) == 1:
            assert advantages == [0.0, 0.0, 0.0]
            continue
        ranks = [sorted(set(values)).index(value) for values in (rewards, advantages) for value in values]
        assert ranks[:3] == ranks[3:], f"{rewards}: a better reward is a better advantage"
        if scale_by_std:
            assert math.fsum(a * a for a in advantages) / 3 == pytest.approx(1, abs=1e-4), rewards


@pytest.mark.parametrize("scale_by_std", [True, False])
def test_rewards_that_differ_by_rounding_teach_nothing(scale_by_std):
    advantages = group_advantages([0.1 + 0.2, 0.3, 0.3, 0.3], scale_by_std)
    assert max(map(abs, advantages)) < 1e-9


def test_a_group_of_equal_rewards_stays_and_is_counted(group_of):
    group = group_of(EXAMPLE, [("B\nConfidence: 1.00", True)] * 3)
    samples = GRPO().train_samples(group)
    assert [(sample.advantage, sample.weight) for sample in samples] == [(0.0, 1.0)] * 3
    assert GRPO().statistics(samples)["zero_advantage"] == 1.0


def test_statistics_tell_the_rewards_apart(group_of):
    method = RLCR(rewards=[Brier(weight=2.0), Format()])
    statistics = method.statistics(method.train_samples(group_of(EXAMPLE, ROLLOUTS)))
    assert statistics == pytest.approx(
        {
            "reward": 2 * sum(BRIER) / 4 + 0.75,
            "reward_Brier": sum(BRIER) / 4,
            "reward_Format": 0.75,
            "zero_advantage": 0.0,
        }
    )


def test_two_rewards_of_one_class_are_logged_apart(group_of):
    method = GRPO([Format(tags=["x"]), Correctness(), Format()])
    statistics = method.statistics(method.train_samples(group_of(EXAMPLE, ROLLOUTS)))
    found = {name: value for name, value in statistics.items() if name.startswith("reward_")}
    assert found == {"reward_Format_0": 0.0, "reward_Correctness": 0.5, "reward_Format_2": 0.75}


def best_confidence(mu, method, group_size=8):
    """The confidence with the highest expected advantage where the others of the group state mu, by enumeration."""
    (reward,) = method.terms

    def earned(correct, confidence):
        rollout, right = Rollout((1,), "", StopReason.EOS, (-1.0,), 0), Verdict(correct, "A", AnswerOutcome.PARSED)
        reading = ConfidenceReading(confidence, (0, 1), ConfidenceOutcome.DECIMAL)
        return reward(EXAMPLE, VerifiedRollout(rollout, right, reading))

    def expected(confidence):
        total = 0.0
        for correct, num_right in itertools.product((True, False), range(group_size)):
            others = [earned(True, mu)] * num_right + [earned(False, mu)] * (group_size - 1 - num_right)
            chance = binom.pmf(num_right, group_size - 1, mu) * (mu if correct else 1 - mu)
            total += chance * group_advantages([earned(correct, confidence), *others], method.scale_by_std)[0]
        return total

    return max((step / 100 for step in range(101)), key=expected)


@pytest.mark.parametrize(
    ("reward", "scaled"),
    [
        (Brier(), [0.07, 0.15, 0.25, 0.36, 0.5, 0.65, 0.78, 0.88, 0.95]),
        (MarginSeparated(), [0.05, 0.14, 0.24, 0.36, 0.5, 0.64, 0.77, 0.88, 0.95]),
    ],
)
def test_only_unscaled_advantages_pay_best_for_the_success_rate(reward, scaled):
    """The table of docs/methods.md."""
    rates = [tenths / 10 for tenths in range(1, 10)]
    assert [best_confidence(mu, GRPO([reward], scale_by_std=False)) for mu in rates] == pytest.approx(rates)
    assert [best_confidence(mu, GRPO([reward], scale_by_std=True)) for mu in rates] == pytest.approx(scaled)


class Length(Reward):
    """A reward of one's own, without a weight of its own."""

    def __call__(self, example, rollout):
        return -len(rollout.rollout.text)


def test_a_reward_of_ones_own_joins(group_of):
    texts = [("B", True), ("BBB", True)]
    assert [s.advantage for s in GRPO([Length()], scale_by_std=False).train_samples(group_of(EXAMPLE, texts))] == [
        1,
        -1,
    ]


class Unread(Reward):
    def __call__(self, example, rollout):
        return math.nan if rollout.reading.value is None else 1.0


def test_a_reward_that_is_no_number_is_an_error_that_names_it(group_of):
    with pytest.raises(DataError, match=r"example '7'.*nan.*Correctness, Unread"):
        GRPO([Correctness(), Unread()]).train_samples(group_of(EXAMPLE, ROLLOUTS))


@pytest.mark.parametrize("method", [GRPO, RLCR, CAR])
def test_nothing_to_maximise_is_refused(method):
    with pytest.raises(ConfigError, match=rf"`rewards` of {method.__name__}.*at least one"):
        method(rewards=[])


def test_any_row_is_accepted_and_two_rollouts_are_needed():
    GRPO().check_example(EXAMPLE)
    assert GRPO().known_context(EXAMPLE) is None
    assert GRPO().min_rollouts == 2


class Asks(Reward):
    """Earns what it is told to, or raises it."""

    def __init__(self, earned):
        self._earned = earned

    def __call__(self, example, rollout):
        if isinstance(self._earned, Exception):
            raise self._earned
        return self._earned


@pytest.mark.parametrize("earned", [PermissionError("judge.json"), None, "much"])
def test_a_reward_that_raises_or_earns_no_number_is_named(group_of, earned):
    group = group_of(EXAMPLE, ROLLOUTS)
    with pytest.raises(UserCodeError, match=r"test_grpo\.Asks .*a completion of example '7'"):
        GRPO(rewards=[Correctness(), Asks(earned)]).train_samples(group)
