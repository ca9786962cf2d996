"""What every training method promises."""

import itertools

import pytest

from caopd.errors import DataError
from caopd.losses import LOSSES
from caopd.methods import CAR, GRPO, RLCR, SDFT, SDPO, SFT, CaOPD, PlainDistillation
from caopd.prompts import CONTEXT_TEMPLATES
from caopd.types import Example, Signal, VerifiedGroup

DISTILLATIONS = [SDFT(), SDPO(), SDPO(feedback=True), CaOPD(SDFT()), CaOPD(SDPO()), CaOPD(CaOPD(SDFT()))]
DISTILLATIONS += [CaOPD(SDPO(), calibrate_all=False)]
WITHOUT_ROLLOUTS = [SFT(), SFT(demonstration_confidence=None)]
POLICY_GRADIENTS = [GRPO(), GRPO(scale_by_std=False), RLCR(), CAR()]
PLAIN = [PlainDistillation(), PlainDistillation(rollouts_of="teacher")]
METHODS = [*DISTILLATIONS, *PLAIN, *POLICY_GRADIENTS, *WITHOUT_ROLLOUTS]
EXAMPLE = Example("7", "Q", "B", demonstration="DEMONSTRATION")
CORRECT = [*itertools.product([True, False], repeat=3)]
every_method = pytest.mark.parametrize("method", METHODS, ids=repr)
every_distillation = pytest.mark.parametrize("method", DISTILLATIONS, ids=repr)
every_policy_gradient = pytest.mark.parametrize("method", POLICY_GRADIENTS, ids=repr)
every_method_with_rollouts = pytest.mark.parametrize("method", [*DISTILLATIONS, *PLAIN, *POLICY_GRADIENTS], ids=repr)


def group_with(group_of, correct, mu_hat):
    completions = [(f"answer {n}\nConfidence: 0.{n}5", is_correct) for n, is_correct in enumerate(correct)]
    return group_of(EXAMPLE, completions, mu_hat)


@pytest.fixture(scope="module")
def groups(group_of):
    """Every group of three verdicts, with every kind of estimate."""
    return [group_with(group_of, correct, mu_hat) for correct in CORRECT for mu_hat in (None, 0.0, 0.4, 1.0)]


@every_method_with_rollouts
def test_every_rollout_makes_one_sample_in_order(method, groups):
    for group in groups:
        samples = method.train_samples(group)
        assert [sample.rollout for sample in samples] == list(group.rollouts), group
        assert {sample.example.id for sample in samples} == {"7"}, group


@every_distillation
def test_only_samples_with_a_teacher_have_weight(method, groups):
    for group in groups:
        for sample in method.train_samples(group):
            assert sample.weight >= 0, group
            if sample.weight:
                assert sample.context is not None, group
                assert sample.context.kind in CONTEXT_TEMPLATES, group
                assert sample.context.response or not sample.body_weight, group


@every_distillation
def test_completion_and_context_state_the_same_value_or_the_completion_is_as_sampled(method, groups):
    for group in groups:
        for sample, mu_hat in zip(method.train_samples(group), group.mu_hats, strict=True):
            if sample.weight and sample.confidence is not None:
                assert sample.confidence == sample.context.confidence == mu_hat, group
                assert sample.context.empirical, group


@every_distillation
def test_a_context_says_its_confidence_as_a_field_only(method, groups):
    for group in groups:
        for sample in method.train_samples(group):
            if sample.context is not None:
                assert "onfidence" not in (sample.context.response or ""), group


@every_distillation
def test_no_sample_is_taught_its_own_completion(method, groups):
    for group in groups:
        for index, sample in enumerate(method.train_samples(group)):
            if sample.context is not None:
                assert sample.context.response != f"answer {index}", group


@every_method
def test_a_group_of_the_smallest_size_works(group_of, method):
    samples = method.train_samples(group_with(group_of, [True] * method.min_rollouts, 1.0))
    assert len(samples) == max(method.min_rollouts, 1)
    assert all(sample.weight for sample in samples)


@every_method
def test_the_known_context_is_the_one_that_samples_get(group_of, method):
    known = method.known_context(EXAMPLE)
    if known is not None:
        for sample in method.train_samples(group_with(group_of, [False, False], 1.0)):
            assert sample.context == known


@every_method
def test_what_is_trained_on_has_a_loss_and_a_context_only_where_a_teacher_is_the_signal(group_of, method):
    assert method.signal in LOSSES
    samples = method.train_samples(group_with(group_of, [True, True], 0.5))
    sees_more = method.signal is Signal.CONTEXT and method.privileged
    assert all((sample.context is not None) == sees_more for sample in samples)


@every_method
def test_samples_have_an_advantage_where_it_is_the_signal(group_of, method):
    samples = method.train_samples(group_with(group_of, [True, False], 0.5))
    assert all((sample.advantage is not None) == (method.signal is Signal.ADVANTAGE) for sample in samples)


@every_method
def test_statistics_have_the_same_names_in_every_group(group_of, method):
    names = [method.statistics(method.train_samples(group_with(group_of, correct, 0.4))).keys() for correct in CORRECT]
    assert all(each == names[0] for each in names), names


@every_policy_gradient
def test_advantages_of_a_group_add_up_to_nothing(method, groups):
    for group in groups:
        samples = method.train_samples(group)
        assert sum(sample.advantage for sample in samples) == pytest.approx(0, abs=1e-9), group
        assert {sample.weight for sample in samples} == {1.0}, f"{group} is dropped"


@every_policy_gradient
def test_a_correct_completion_is_better_than_a_wrong_one_of_the_same_confidence(group_of, method):
    group = group_of(EXAMPLE, [("B\nConfidence: 0.60", True), ("C\nConfidence: 0.60", False)], None)
    right, wrong = method.train_samples(group)
    assert right.advantage > 0 > wrong.advantage


@pytest.mark.parametrize("method", WITHOUT_ROLLOUTS, ids=repr)
def test_without_rollouts_a_prompt_makes_one_sample(method):
    (sample,) = method.train_samples(VerifiedGroup(EXAMPLE, (1,), (), ()))
    assert (sample.example, sample.weight) == (EXAMPLE, 1.0)


@every_method
def test_a_row_is_refused_before_training_or_not_at_all(group_of, method):
    row = Example("row-9", "Q", "B")
    group = group_of(row, [("B", True), ("B", True)], 1.0)
    try:
        method.check_example(row)
    except DataError as error:
        assert "'row-9'" in str(error)  # noqa: PT017 (either outcome is right)
    else:
        assert all(sample.weight for sample in method.train_samples(group))
