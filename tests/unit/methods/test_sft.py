import pytest

from caopd.errors import ConfigError, DataError
from caopd.methods import SFT
from caopd.types import Example, Response, TrainSample, VerifiedGroup

EXAMPLE = Example("7", "Q", "B", demonstration="Because.\nB")


@pytest.mark.parametrize("confidence", [1.0, 0.75, None])
def test_the_demonstration_is_the_completion_and_states_its_confidence(confidence):
    samples = SFT(demonstration_confidence=confidence).train_samples(VerifiedGroup(EXAMPLE, (), None))
    assert samples == [TrainSample(EXAMPLE, Response("Because.\nB"), None, confidence, weight=1.0)]


def test_full_confidence_is_the_default_and_no_rollouts_are_needed():
    assert SFT().demonstration_confidence == 1.0
    assert SFT().min_rollouts == 0
    assert SFT().known_context(EXAMPLE) is None


@pytest.mark.parametrize("demonstration", [None, "", " \n"])
def test_a_row_without_demonstration_is_refused_by_name(demonstration):
    with pytest.raises(DataError, match=r"'row-9'.*demonstration.*SFT"):
        SFT().check_example(Example("row-9", "Q", "B", demonstration=demonstration))


@pytest.mark.parametrize("confidence", [-0.1, 1.5, float("nan")])
def test_an_impossible_confidence_is_refused(confidence):
    with pytest.raises(ConfigError, match=r"demonstration_confidence.*\[0, 1\]"):
        SFT(demonstration_confidence=confidence)
