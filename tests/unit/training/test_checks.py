from dataclasses import dataclass

import pytest

from caopd.errors import ConfigError
from caopd.losses import DistillationLoss
from caopd.methods import SDFT, CaOPD, Method
from caopd.methods.estimators import MonteCarlo, SelfConsistency
from caopd.rounds.diagnostics import TeacherProbe
from caopd.training.checks import check_teacher
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


def test_who_asks_the_teacher_before_there_are_samples_needs_a_method_that_says_what_it_sees():
    """Without a context the teacher would be listened to by nobody, and no group would have weight."""
    with pytest.raises(ConfigError, match=r"OfItsOwn to say by `teacher_context`.*SelfConsistency asks"):
        check_teacher(DistillationLoss(), OfItsOwn(), SelfConsistency(), TeacherProbe())
    for method in (SaysIt(), CaOPD(SDFT())):
        check_teacher(DistillationLoss(), method, SelfConsistency(), TeacherProbe())
    check_teacher(DistillationLoss(), OfItsOwn(), MonteCarlo(), TeacherProbe())
