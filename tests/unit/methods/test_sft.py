from statistics import fmean

import pytest

from caopd.errors import ConfigError, DataError
from caopd.methods import SFT
from caopd.types import Example, Response, TrainSample, VerifiedGroup

EXAMPLE = Example("7", "Q", "B", demonstration="Because.\nB")


@pytest.mark.parametrize("confidence", [1.0, 0.75, None])
def test_the_demonstration_is_the_completion_and_states_its_confidence(confidence):
    samples = SFT(demonstration_confidence=confidence).train_samples(VerifiedGroup(EXAMPLE, (1,), (), ()))
    assert samples == [TrainSample(EXAMPLE, Response("Because.\nB"), None, confidence, weight=1.0)]


def test_some_prompts_show_a_context_whose_confidence_is_repeated():
    examples = [Example(f"row-{n}", "Q", "B", demonstration="Because.\nB") for n in range(2000)]
    method = SFT(context_share=0.25)
    (first, second) = ([method.train_samples(VerifiedGroup(e, (1,), (), ()))[0] for e in examples] for _ in range(2))
    assert first == second, "it depends on the example alone"
    shown = [sample for sample in first if sample.context is not None]
    assert 430 < len(shown) < 570
    for sample in shown:
        assert sample.student_sees_context
        assert sample.context.response == "Because.\nB"
        assert sample.context.empirical
        assert sample.context.confidence == sample.confidence
    stated = {sample.confidence for sample in shown}
    assert len(stated) > 90
    assert {min(stated), max(stated)} <= {0.0, 0.01, 0.02, 0.98, 0.99, 1.0}
    assert {sample.context.kind for sample in shown} == {"demonstration", "solution"}
    assert all(not s.student_sees_context and s.confidence == 1.0 for s in first if s.context is None)


def test_uniform_confidences_depend_on_the_example_alone_and_are_in_no_context():
    groups = [VerifiedGroup(Example(f"row-{n}", "Q", "B", demonstration="B"), (1,), (), ()) for n in range(2000)]
    method = SFT(demonstration_confidence="uniform", context_share=0.25)
    (first, second) = ([method.train_samples(group)[0] for group in groups] for _ in range(2))
    assert first == second
    stated = [sample.confidence for sample in first if sample.context is None]
    assert len(stated) > 1400
    assert fmean(stated) == pytest.approx(0.5, abs=0.03)
    assert set(stated) == {number / 100 for number in range(101)}


@pytest.mark.parametrize("weight", [0.1, 0.25, 1.0])
def test_a_confidence_that_can_be_known_weighs_as_much_as_the_rest_and_any_other_what_is_asked(weight):
    groups = [VerifiedGroup(Example(f"row-{n}", "Q", "B", demonstration="B"), (1,), (), ()) for n in range(40)]
    method = SFT(demonstration_confidence="uniform", confidence_weight=weight, context_share=0.5)
    samples = [method.train_samples(group)[0] for group in groups]
    assert {(s.weight, s.weight * s.body_weight) for s in samples if s.context is not None} == {(1.0, 1.0)}
    assert {(s.weight, s.weight * s.body_weight) for s in samples if s.context is None} == {(weight, 1.0)}


def test_a_demonstration_without_a_confidence_has_its_full_weight():
    (sample,) = SFT(None, confidence_weight=0.1).train_samples(VerifiedGroup(EXAMPLE, (1,), (), ()))
    assert (sample.weight, sample.body_weight) == (1.0, 1.0)


@pytest.mark.parametrize("weight", [0.0, -1.0, 1.5, float("nan")])
def test_an_impossible_weight_of_the_confidence_is_refused(weight):
    with pytest.raises(ConfigError, match=rf"`confidence_weight` of SFT to be in \(0, 1\], but got {weight}"):
        SFT(confidence_weight=weight)


@pytest.mark.parametrize(
    "arguments", [{"context_share": 1.1}, {"context_share": 0.5, "demonstration_confidence": None}]
)
def test_an_impossible_share_is_refused(arguments):
    with pytest.raises(ConfigError, match=r"context_share.*\[0, 1\]"):
        SFT(**arguments)


def test_full_confidence_is_the_default_and_no_rollouts_are_needed():
    assert SFT().demonstration_confidence == 1.0
    assert SFT().min_rollouts == 0
    assert SFT().known_context(EXAMPLE) is None


@pytest.mark.parametrize("demonstration", [None, "", " \n"])
def test_a_row_without_demonstration_is_refused_by_name(demonstration):
    with pytest.raises(DataError, match=r"'row-9'.*demonstration.*SFT"):
        SFT().check_example(Example("row-9", "Q", "B", demonstration=demonstration))


@pytest.mark.parametrize("confidence", [-0.1, 1.5, float("nan"), "high"])
def test_an_impossible_confidence_is_refused(confidence):
    with pytest.raises(ConfigError, match=r"demonstration_confidence.*\[0, 1\]"):
        SFT(demonstration_confidence=confidence)
