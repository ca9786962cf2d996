import pytest

from caopd.errors import DataError, UserCodeError
from caopd.methods import SDFT
from caopd.rounds.samples import train_samples
from caopd.types import Example

EXAMPLE = Example("1", "Q", "B", demonstration="DEMONSTRATION")


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
    with pytest.raises(DataError, match=r"test_samples\.Forgets to make 2 TrainSamples of example '1'.*weight 0"):
        train_samples(Forgets(), group)
    with pytest.raises(
        UserCodeError, match=r"test_samples\.Opens .*example '1'.* PermissionError: solutions\.txt"
    ) as error:
        train_samples(Opens(), group)
    assert isinstance(error.value.__cause__, PermissionError)
