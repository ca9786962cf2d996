import math
from dataclasses import replace
from itertools import combinations

import pytest

from caopd.errors import DataError, UserCodeError
from caopd.methods import GRPO, SDFT, SDPO, CaOPD
from caopd.methods.estimators import Estimator, LeaveOneOut, MonteCarlo, Shrinkage
from caopd.rounds.groups import estimated, shown_context
from caopd.types import Example, TeacherContext

EXAMPLE = Example("sum-7", "Q", "B")


class Says(Estimator):
    """Gives what it is told to."""

    def __init__(self, *mu_hats):
        self._mu_hats = mu_hats

    def estimate(self, verdicts, teacher_answers=()):
        return self._mu_hats[0]

    def estimate_each(self, verdicts, teacher_answers=()):
        return self._mu_hats if len(self._mu_hats) > 1 else super().estimate_each(verdicts, teacher_answers)


@pytest.fixture
def group(group_of):
    return group_of(EXAMPLE, [("B", True), ("C", False), ("B", True), ("B", True)])


def test_every_rollout_has_what_the_estimator_makes_of_the_verdicts(group):
    assert estimated(MonteCarlo(), group, ()) == replace(group, mu_hats=(0.75,) * 4)
    assert estimated(LeaveOneOut(), group, ()).mu_hats == pytest.approx((2 / 3, 1, 2 / 3, 2 / 3))
    assert estimated(Says(None), group, ()).mu_hats == (None,) * 4


@pytest.mark.parametrize(
    "estimates", [(1.5,), (-0.1,), (math.nan,), (0.5, 0.5), (0.5, 0.5, 0.5, 75), (2, 0, 0, 0), (0.5,) * 5]
)
def test_what_is_no_success_rate_is_refused(group, estimates):
    with pytest.raises(DataError, match=r"test_groups\.Says .*\[0, 1\] of example 'sum-7'.* 4 verdicts, but got"):
        estimated(Says(*estimates), group, ())


def without_verdict(group, *indices):
    """The group as it is when the verifier did not return for some of its rollouts."""
    rollouts = [replace(each, verdict=None) if i in indices else each for i, each in enumerate(group.rollouts)]
    return replace(group, rollouts=tuple(rollouts))


RIGHT = [True, False, True, True]


@pytest.mark.parametrize("missing", [each for size in range(5) for each in combinations(range(4), size)])
def test_rollouts_without_a_verdict_are_in_neither_part_of_the_estimate(group, missing):
    """Every subset of the four may be missing; the oracle counts what is left by hand."""
    left = [index for index in range(4) if index not in missing]
    mean = sum(RIGHT[index] for index in left) / len(left) if left else None
    found = estimated(MonteCarlo(), without_verdict(group, *missing), ())
    assert found.mu_hats == tuple(mean if index in left else None for index in range(4))
    others = {
        index: sum(RIGHT[other] for other in left if other != index) / (len(left) - 1)
        for index in left
        if len(left) > 1
    }
    found = estimated(LeaveOneOut(), without_verdict(group, *missing), ())
    assert found.mu_hats == pytest.approx(tuple(others.get(index) for index in range(4)))
    found = estimated(Shrinkage(strength=2.0), without_verdict(group, *missing), ())
    shrunk = (sum(RIGHT[index] for index in left) + 1) / (len(left) + 2)
    assert found.mu_hats == tuple(shrunk if index in left else None for index in range(4))


def test_a_context_is_never_a_rollout_without_a_verdict(group):
    context = shown_context(SDPO(), without_verdict(group, 0, 2))
    assert context.response == group.rollouts[3].body
    assert shown_context(SDPO(), without_verdict(group, 0, 2, 3)) is None


def test_an_estimator_that_raises_is_named(group):
    with pytest.raises(UserCodeError, match=r"test_groups\.Says .*example 'sum-7'.*TypeError"):
        estimated(Says("high"), group, ())


@pytest.mark.parametrize("method", [SDFT(), CaOPD(SDFT())])
def test_the_known_context_of_a_demonstration(group_of, method):
    example = Example("1", "Q", "B", demonstration="DEMONSTRATION")
    context = shown_context(method, group_of(example, [("C", False)]))
    assert context == TeacherContext("demonstration", "DEMONSTRATION", 1.0)


@pytest.mark.parametrize("method", [SDPO(), CaOPD(SDPO())])
@pytest.mark.parametrize(
    ("correct", "shown"),
    [((False, False), None), ((True, False), "0"), ((False, True), "1"), ((True, True), "1")],
)
def test_the_known_context_of_a_solution_is_one_of_the_group(group_of, method, correct, shown):
    context = shown_context(method, group_of(EXAMPLE, [(str(n), c) for n, c in enumerate(correct)]))
    assert (None if context is None else context.response) == shown


def test_a_method_without_a_context_shows_none(group):
    assert shown_context(GRPO(), group) is None
