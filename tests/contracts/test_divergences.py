"""What every divergence promises, and TopK around each."""

import math
from dataclasses import dataclass

import pytest
import torch

from caopd.losses import (
    JSD,
    Divergence,
    ForwardKL,
    LossInputs,
    ModelOutput,
    ReverseKL,
    TopK,
    chunked_divergence,
)
from caopd.losses.distributions import log_probabilities


@dataclass(frozen=True)
class Hellinger(Divergence):
    """One of a user's own, which has no gradient but autograd's: 1 - sum_v sqrt(S_v T_v)."""

    def values(self, student_TV, teacher_TV):
        return 1 - ((student_TV + teacher_TV) / 2).exp().sum(-1)


def kl(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def jsd(w):
    def value(s, t):
        m = [w * b + (1 - w) * a for a, b in zip(s, t, strict=True)]
        return w * kl(t, m) + (1 - w) * kl(s, m)

    return value


DEFINITIONS = {
    ReverseKL(): lambda s, t: kl(s, t),
    ForwardKL(): lambda s, t: kl(t, s),
    JSD(): jsd(0.5),
    JSD(teacher_weight=0.2): jsd(0.2),
    Hellinger(): lambda s, t: sum((math.sqrt(a) - math.sqrt(b)) ** 2 for a, b in zip(s, t, strict=True)) / 2,
}
WHOLE = list(DEFINITIONS)
MERGED = [TopK(divergence, k) for divergence in WHOLE for k in (1, 3, 50)]
every_divergence = pytest.mark.parametrize("divergence", [*WHOLE, *MERGED, TopK(TopK(ReverseKL(), 5), 2)], ids=str)


def softmax(logits):
    exps = [math.exp(x - max(logits)) for x in logits]
    return [x / sum(exps) for x in exps]


def definition(divergence, s, t):
    """One token's divergence with Python floats, by the definition."""
    if not isinstance(divergence, TopK):
        return DEFINITIONS[divergence](s, t)
    order = sorted(range(len(s)), key=lambda v: -s[v])
    events = [*([v] for v in order[: divergence.k]), order[divergence.k :]]
    return definition(divergence.divergence, *([sum(p[v] for v in event) for event in events] for p in (s, t)))


def pairs(tokens=6, vocabulary=11, scale=3.0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return scale * torch.randn(2, tokens, vocabulary, dtype=dtype, generator=generator)


@every_divergence
def test_its_value_is_that_of_its_definition(divergence):
    student, teacher = pairs()
    rows = zip(student.tolist(), teacher.tolist(), strict=True)
    expected = torch.tensor([definition(divergence, softmax(s), softmax(t)) for s, t in rows], dtype=torch.float64)
    torch.testing.assert_close(divergence(student, teacher), expected, rtol=1e-12, atol=1e-14)


@every_divergence
def test_it_is_zero_if_and_only_if_the_distributions_are_equal(divergence):
    student, teacher = pairs(tokens=200, scale=0.3)
    assert divergence(student, teacher).min() > 1e-12
    assert divergence(student, student + 5.0).abs().max() < 1e-14
    close = student + torch.zeros(11, dtype=torch.float64).index_fill(0, student[0].argmax(), 1e-3)
    assert divergence(student[:1], close[:1]).item() > 1e-9


@every_divergence
def test_its_gradient_is_autograds_and_finite_differences(divergence):
    student, teacher = pairs(tokens=4, scale=1.0)
    student.requires_grad_()
    assert torch.autograd.gradcheck(lambda logits: divergence(logits, teacher), (student,))
    value = divergence(student, teacher)
    (expected,) = torch.autograd.grad(value.sum(), student)
    logprobs = log_probabilities(student.detach()), log_probabilities(teacher)
    with torch.no_grad():
        results = divergence.values_and_gradients(*logprobs), Divergence.values_and_gradients(divergence, *logprobs)
    for actual_value, actual in results:
        assert not actual_value.requires_grad
        torch.testing.assert_close(actual_value, value.detach(), rtol=1e-12, atol=1e-15)
        torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-14)


@every_divergence
def test_words_that_neither_can_say_change_nothing(divergence):
    """Two more entries of ``-inf``, as a masked vocabulary has them."""
    student, teacher = pairs()
    masked = torch.full((6, 2), -torch.inf, dtype=torch.float64)
    wider = [torch.cat([masked, logits], dim=1) for logits in (student, teacher)]
    expected_value, expected = divergence.values_and_gradients(*map(log_probabilities, (student, teacher)))
    value, gradient = divergence.values_and_gradients(*map(log_probabilities, wider))
    torch.testing.assert_close(value, expected_value)
    torch.testing.assert_close(gradient, torch.cat([torch.zeros_like(masked), expected], dim=1))


@every_divergence
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_it_reads_half_precision_as_float32(divergence, dtype):
    student, teacher = pairs(dtype=torch.float32).to(dtype)
    value = divergence(student, teacher)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, divergence(student.float(), teacher.float()))


@every_divergence
@pytest.mark.parametrize("chunk_size", [1, 4, 64])
def test_in_chunks_it_is_the_same_in_value_and_gradients(divergence, chunk_size):
    g = torch.Generator().manual_seed(1)
    hidden, head = (torch.randn(n, 5, dtype=torch.float64, generator=g).requires_grad_() for n in (9, 23))
    teacher_hidden, teacher_head = (torch.randn(n, 7, dtype=torch.float64, generator=g) for n in (9, 23))
    weight_T, target_T = torch.rand(9, dtype=torch.float64, generator=g), torch.zeros(9, dtype=torch.int64)
    inputs = LossInputs(weight_T, target_T.bool(), target_T, weight_T, weight_T, 1.0, target_T)
    models = ModelOutput(hidden, head), ModelOutput(teacher_hidden, teacher_head)
    loss, statistics = chunked_divergence(*models, inputs, divergence, divergence, chunk_size)
    value = divergence(hidden @ head.T, teacher_hidden @ teacher_head.T)
    expected = (weight_T * value).sum()
    close = {"rtol": 1e-10, "atol": 1e-13}
    torch.testing.assert_close(loss, expected, **close)
    torch.testing.assert_close(statistics.divergence_T, value.detach(), **close)
    leaves = hidden, head
    torch.testing.assert_close(torch.autograd.grad(loss, leaves), torch.autograd.grad(expected, leaves), **close)
