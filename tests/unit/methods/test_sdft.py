import pytest

from caopd.errors import DataError
from caopd.methods import SDFT
from caopd.types import Example, TeacherContext

EXAMPLE = Example("7", "Q", "B", demonstration="Because.\nB")
ROLLOUTS = [("B\nConfidence: 0.90", True), ("C\nConfidence: 0.80", False)]


def test_every_rollout_is_trained_on_as_sampled_beside_the_demonstration(group_of):
    group = group_of(EXAMPLE, ROLLOUTS, mu_hat=0.5)
    samples = SDFT().train_samples(group)
    assert [sample.rollout for sample in samples] == list(group.rollouts)
    for sample in samples:
        assert sample.context == TeacherContext("demonstration", "Because.\nB", 1.0, empirical=False)
        assert (sample.confidence, sample.weight) == (None, 1.0)


def test_the_demonstrations_confidence_is_a_setting(group_of):
    (sample,) = SDFT(demonstration_confidence=0.75).train_samples(group_of(EXAMPLE, ROLLOUTS[:1]))
    assert sample.context.confidence == 0.75


def test_the_context_is_known_before_any_rollout(group_of):
    (sample,) = SDFT().train_samples(group_of(EXAMPLE, ROLLOUTS[:1]))
    assert SDFT().known_context(EXAMPLE) == sample.context


@pytest.mark.parametrize("demonstration", [None, "", " \n"])
def test_a_row_without_demonstration_is_refused_by_name(demonstration):
    with pytest.raises(DataError, match=r"'row-9'.*demonstration.*SDPO"):
        SDFT().check_example(Example("row-9", "Q", "B", demonstration=demonstration))
