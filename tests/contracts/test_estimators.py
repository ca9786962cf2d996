"""What every estimator of mu_hat promises."""

import itertools
import json

import pytest

from caopd.methods.estimators import (
    EmpiricalBayes,
    LeaveOneOut,
    MonteCarlo,
    SelfConsistency,
    Shrinkage,
)
from caopd.types import AnswerOutcome, Verdict


def learned():
    estimator = Shrinkage(strength=3.0)
    estimator.end_round([[Verdict(True, "A", AnswerOutcome.PARSED)] * 9, [verdict_of("B")]])
    return estimator


def learned_prior():
    estimator = EmpiricalBayes(momentum=0.5)
    estimator.end_round([[verdict_of("A")] * 9, [verdict_of("B")] * 2, [verdict_of("A"), verdict_of("B")]])
    return estimator


def verdict_of(answer):
    outcome = AnswerOutcome.MISSING if answer is None else AnswerOutcome.PARSED
    return Verdict(answer == "A", answer, outcome)


ESTIMATORS = {
    "monte_carlo": MonteCarlo,
    "shrinkage": Shrinkage,
    "shrinkage_learned": learned,
    "shrinkage_without_strength": lambda: Shrinkage(strength=0.0),
    "leave_one_out": LeaveOneOut,
    "empirical_bayes": EmpiricalBayes,
    "empirical_bayes_learned": learned_prior,
    "self_consistency": SelfConsistency,
}
every_estimator = pytest.mark.parametrize("make", ESTIMATORS.values(), ids=ESTIMATORS)
GROUPS = [
    list(map(verdict_of, answers))
    for size in (1, 2, 4)
    for answers in itertools.combinations_with_replacement(["A", "B", None], size)
]
TEACHER = ["A", "B", "A", None]


def estimates(estimator, group, teacher=TEACHER):
    return estimator.estimate(group, teacher[: max(estimator.num_teacher_rollouts, 0)])


@every_estimator
def test_the_estimate_is_in_range_and_depends_on_no_order(make):
    estimator = make()
    for group in GROUPS:
        values = {estimates(estimator, list(order)) for order in itertools.permutations(group)}
        deviations = {estimator.deviation(order) for order in itertools.permutations(group)}
        assert len(values) == len(deviations) == 1, group
        (value,) = values
        assert 0 <= value <= 1, group


@every_estimator
def test_one_more_success_never_lowers_the_estimate(make):
    estimator = make()
    for size in (1, 3, 8):
        values = [estimates(estimator, [verdict_of("A")] * n + [verdict_of("B")] * (size - n)) for n in range(size + 1)]
        assert values == sorted(values)
        assert len(set(values)) == size + 1, values


@pytest.mark.parametrize("make", [MonteCarlo, LeaveOneOut, SelfConsistency])
def test_shares_are_multiples_of_one_over_g(make):
    for group in GROUPS:
        scaled = estimates(make(), group) * len(group)
        assert scaled == pytest.approx(round(scaled), abs=1e-12), group


@every_estimator
def test_the_state_is_plain_data_that_restores_the_estimate(make):
    estimator, restored = make(), make()
    estimator.end_round(GROUPS)
    restored.load_state_dict(json.loads(json.dumps(estimator.state_dict())))
    for group in GROUPS:
        assert estimates(restored, group) == estimates(estimator, group)


@every_estimator
def test_estimating_changes_nothing(make):
    estimator = make()
    before = estimator.state_dict()
    first = [estimates(estimator, group) for group in GROUPS]
    assert [estimates(estimator, group) for group in GROUPS] == first
    assert estimator.state_dict() == before


@every_estimator
def test_an_estimate_per_rollout_has_the_groups_estimate_as_its_mean(make):
    estimator = make()
    for group in GROUPS:
        each = estimator.estimate_each(group, TEACHER[: estimator.num_teacher_rollouts])
        assert len(each) == len(group), group
        assert sum(each) / len(each) == pytest.approx(estimates(estimator, group), abs=1e-12), group


@every_estimator
def test_many_rollouts_make_any_success_rate_certain(make):
    estimator = make()
    for share in (0.0, 0.5, 1.0):
        sizes = [4, 40, 400]
        groups = [[verdict_of("A")] * round(n * share) + [verdict_of("B")] * round(n * (1 - share)) for n in sizes]
        deviations = [estimator.deviation(group) for group in groups]
        assert deviations == sorted(deviations, reverse=True)
        assert 0 <= deviations[-1] < 0.03 < deviations[0]
