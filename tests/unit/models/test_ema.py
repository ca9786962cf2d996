import copy

import pytest
import torch

from caopd.models import LanguageModel, make_teacher, update_teacher


def weights(module):
    return [parameter.detach().clone() for parameter in module.parameters()]


def shaken(policy: LanguageModel, seed: int) -> LanguageModel:
    generator = torch.Generator().manual_seed(seed)
    student = copy.deepcopy(policy)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return student


@pytest.mark.parametrize("rate", [0.0, 0.01, 0.05, 0.5, 1.0])
def test_many_updates_follow_the_formula_in_float64(policy, rate):
    """theta_T <- (1 - r) theta_T + r theta, against a loop over steps in float64."""
    students = [shaken(policy, seed) for seed in range(5)]
    teacher = make_teacher(policy)
    expected = [weight.double() for weight in weights(policy)]
    for student in students:
        update_teacher(teacher, student, rate)
        expected = [(1 - rate) * old + rate * new.double() for old, new in zip(expected, weights(student), strict=True)]
    for actual, wanted in zip(weights(teacher), expected, strict=True):
        torch.testing.assert_close(actual.double(), wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("rate", [0.01, 0.3, 1.0])
def test_a_teacher_equal_to_its_student_stays_to_the_bit(policy, rate):
    teacher = make_teacher(policy)
    for _ in range(20):
        update_teacher(teacher, policy, rate)
    for teacher_weight, student_weight in zip(weights(teacher), weights(policy), strict=True):
        assert torch.equal(teacher_weight, student_weight)


def test_rates_zero_and_one_are_exact(policy):
    student = shaken(policy, 0)
    teacher = make_teacher(policy)
    update_teacher(teacher, student, 0.0)
    assert all(map(torch.equal, weights(teacher), weights(policy)))
    update_teacher(teacher, student, 1.0)
    assert all(map(torch.equal, weights(teacher), weights(student)))


def test_the_student_is_not_touched(policy):
    student = shaken(policy, 0)
    before = weights(student)
    update_teacher(make_teacher(policy), student, 0.5)
    assert all(map(torch.equal, before, weights(student)))


def test_the_teacher_is_a_frozen_copy_in_evaluation_mode(policy):
    student = copy.deepcopy(policy).train()
    teacher = make_teacher(student)
    assert student.training
    assert not any(module.training for module in teacher.modules())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert all(parameter.requires_grad for parameter in student.parameters())
    with torch.no_grad():
        next(student.parameters()).zero_()
    assert next(teacher.parameters()).abs().sum() > 0, "the copy has weights of its own"


def test_tied_weights_stay_tied_and_are_averaged_once(policy):
    teacher, student = make_teacher(policy), shaken(policy, 0)
    update_teacher(teacher, student, 0.25)
    embedding = teacher.hf.get_input_embeddings().weight
    assert embedding is teacher.hf.get_output_embeddings().weight
    old, new = (model.hf.get_input_embeddings().weight for model in (policy, student))
    torch.testing.assert_close(embedding, (0.75 * old + 0.25 * new).detach())
