from dataclasses import dataclass, field

import pytest

from caopd.methods.estimators import EmpiricalBayes, Shrinkage
from caopd.rounds.config import AdaptiveBudget, RoundConfig
from caopd.tasks import DrawTask, Stage, TaskSequence
from caopd.training.round_settings import described
from caopd.types import AnswerOutcome, Verdict


class Plain:
    """As a user writes a part: settings as attributes, the rest under names of its own."""

    def __init__(self, rate, names=()):
        self.rate, self.names, self._seen = rate, names, [object()]


@dataclass
class Holder:
    part: Plain
    rows: dict = field(default_factory=dict)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3, "3"),
        ("a", "'a'"),
        (None, "None"),
        ([1, 2.5], "[1, 2.5]"),
        ({"b", "a"}, "['a', 'b']"),
        ({"k": [True]}, "{'k': [True]}"),
        (len, "builtins.len"),
        (Plain(0.5, ("x",)), "Plain(rate=0.5, names=['x'])"),
        (Holder(Plain(1)), "Holder(part=Plain(rate=1, names=[]), rows={})"),
        (AdaptiveBudget(), "AdaptiveBudget(num_rollouts_per_batch=4, max_deviation=0.1)"),
    ],
)
def test_parts_are_described_by_their_settings(value, text):
    assert described(value) == text


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (RoundConfig(4, 2), RoundConfig(4, 3)),
        (DrawTask(num_train=64), DrawTask(num_train=65)),
        (Shrinkage(), EmpiricalBayes()),
        (TaskSequence([Stage("a", DrawTask(), 1)]), TaskSequence([Stage("a", DrawTask(seed=1), 1)])),
        (Plain(0.5), Plain(0.25)),
    ],
)
def test_other_settings_have_another_description(one, other):
    assert described(one) != described(other)
    assert " at 0x" not in described(one)


@pytest.mark.parametrize("estimator", [Shrinkage, EmpiricalBayes])
def test_what_an_estimator_learns_is_no_setting_of_it(estimator):
    before, used = described(estimator()), estimator()
    verdicts = [Verdict(True, "A", AnswerOutcome.PARSED), Verdict(False, "B", AnswerOutcome.PARSED)]
    used.estimate(verdicts)
    used.load_state_dict({"1/2": 1.0} if estimator is EmpiricalBayes else {"mean": 0.5})
    assert described(used) == before
