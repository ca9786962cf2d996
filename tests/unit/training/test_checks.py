import itertools
from dataclasses import dataclass

import numpy as np
import pytest

from caopd.errors import ConfigError
from caopd.losses import DistillationLoss
from caopd.methods import CAR, GRPO, RLCR, SDFT, CaOPD, Method
from caopd.methods.estimators import MonteCarlo, SelfConsistency
from caopd.methods.grpo import group_advantages
from caopd.rounds.config import AdaptiveBudget, RoundConfig
from caopd.rounds.diagnostics import TeacherProbe
from caopd.training.checks import check_baseline, check_teacher
from caopd.types import TrainSample


@dataclass(frozen=True)
class OfItsOwn(Method):
    """Shows a context in its samples, and does not say before them which."""

    def train_samples(self, group):
        return [TrainSample(group.example, each, SDFT().known_context(group.example)) for each in group.rollouts]

    def check_example(self, example):
        pass

    def known_context(self, example):
        return None


@dataclass(frozen=True)
class SaysIt(OfItsOwn):
    def teacher_context(self, example, rollouts, index):
        return SDFT().teacher_context(example, rollouts, index)


def advantage_gradient(policy, rewards, is_adaptive):
    """The expected gradient, at the logits of three outcomes, of the first two rollouts of a group of two or four.

    The first outcome alone is right. By enumeration of four rollouts; under an adaptive budget two equal verdicts stop.
    """
    gradient = np.zeros(3)
    for group in itertools.product(range(3), repeat=4):
        equal = (group[0] == 0) == (group[1] == 0)
        seen = group[:2] if equal or not is_adaptive else group
        advantages = group_advantages([rewards[outcome] for outcome in seen], scale_by_std=False)
        for outcome, advantage in zip(group[:2], advantages[:2], strict=True):
            gradient += np.prod(policy[list(group)]) * advantage * (np.eye(3)[outcome] - policy) / 2
    return gradient


def test_stopping_turns_the_gradient_of_advantages_which_is_why_it_is_refused():
    policy, rewards = np.array([0.1, 0.6, 0.3]), np.array([1.0, 0.0, -1.0])
    exact = policy * (rewards - policy @ rewards)
    fixed, adaptive = (advantage_gradient(policy, rewards, each) for each in (False, True))
    np.testing.assert_allclose(fixed, exact / 2, atol=1e-12)  # 1 - 1/2, as a rollout is in its own baseline
    assert np.ptp(adaptive / exact) > 0.2
    budget = RoundConfig(num_trained_rollouts=2, adaptive=AdaptiveBudget())
    for method in (GRPO(), RLCR(), CAR()):
        with pytest.raises(ConfigError, match=rf"{type(method).__name__}.*`data\.round\.adaptive` to null"):
            check_baseline(method, budget)
        check_baseline(method, RoundConfig())
    check_baseline(CaOPD(), budget)


def test_who_asks_the_teacher_before_there_are_samples_needs_a_method_that_says_what_it_sees():
    """Without a context the teacher would be listened to by nobody, and no group would have weight."""
    with pytest.raises(ConfigError, match=r"OfItsOwn to say by `teacher_context`.*SelfConsistency asks"):
        check_teacher(DistillationLoss(), OfItsOwn(), SelfConsistency(), TeacherProbe())
    for method in (SaysIt(), CaOPD(SDFT())):
        check_teacher(DistillationLoss(), method, SelfConsistency(), TeacherProbe())
    check_teacher(DistillationLoss(), OfItsOwn(), MonteCarlo(), TeacherProbe())
