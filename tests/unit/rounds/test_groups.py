import math

import pytest

from caopd.errors import DataError, UserCodeError
from caopd.methods.estimators import Estimator, LeaveOneOut, MonteCarlo
from caopd.rounds.groups import estimated_group
from caopd.types import Example

EXAMPLE = Example("sum-7", "Q", "B")


class Says(Estimator):
    """Gives what it is told to."""

    def __init__(self, mu_hat, mu_hats=()):
        self._answers = mu_hat, mu_hats

    def estimate(self, verdicts, teacher_answers=()):
        return self._answers[0]

    def estimate_each(self, verdicts):
        return self._answers[1]


@pytest.fixture
def rollouts(group_of):
    return group_of(EXAMPLE, [("B", True), ("C", False), ("B", True), ("B", True)]).rollouts


def test_a_group_has_what_the_estimator_makes_of_its_verdicts(rollouts):
    group = estimated_group(MonteCarlo(), EXAMPLE, (1, 2), rollouts, ())
    assert (group.example, group.prompt_ids, group.rollouts) == (EXAMPLE, (1, 2), rollouts)
    assert (group.mu_hat, group.mu_hats) == (0.75, ())
    assert estimated_group(LeaveOneOut(), EXAMPLE, (1, 2), rollouts, ()).mu_hats == pytest.approx(
        (2 / 3, 1, 2 / 3, 2 / 3)
    )
    assert estimated_group(Says(None), EXAMPLE, (1, 2), rollouts, ()).mu_hat is None


@pytest.mark.parametrize(
    "estimates", [(1.5,), (-0.1,), (math.nan,), (0.5, (0.5, 0.5)), (0.5, (0.5, 0.5, 0.5, 75)), (None, (2, 0, 0, 0))]
)
def test_what_is_no_success_rate_is_refused(rollouts, estimates):
    with pytest.raises(DataError, match=r"test_drawing\.Says .*\[0, 1\] of example 'sum-7'.* but got"):
        estimated_group(Says(*estimates), EXAMPLE, (1, 2), rollouts, ())


def test_an_estimator_that_raises_is_named(rollouts):
    with pytest.raises(UserCodeError, match=r"test_drawing\.Says .*example 'sum-7'.*TypeError"):
        estimated_group(Says("high"), EXAMPLE, (1, 2), rollouts, ())
