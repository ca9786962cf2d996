"""Laws that the divergences obey for all logits, weights and chunk sizes."""

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from caopd.losses import JSD, DistillationLoss, ForwardKL, LossInputs, ModelOutput, ReverseKL, TopK, chunked_divergence

LAWFUL = settings(derandomize=True, deadline=None, max_examples=60)
divergences = st.just(ReverseKL()) | st.just(ForwardKL()) | st.builds(JSD, st.floats(0.05, 0.95))
merged = st.builds(TopK, divergences, st.integers(1, 12))
seeds = st.integers(0, 2**31)
logits = st.lists(st.floats(-30, 30), min_size=3, max_size=3)


def row(values):
    return torch.tensor([values], dtype=torch.float64)


@LAWFUL
@given(logits, logits, divergences)
def test_never_negative_and_zero_only_for_equal_distributions(student, teacher, divergence):
    value = divergence(row(student), row(teacher)).item()
    assert value >= -1e-12
    distance = (row(student).softmax(-1) - row(teacher).softmax(-1)).abs().sum().item()
    w = getattr(divergence, "teacher_weight", None)
    # Pinsker: KL(P||Q) >= |P-Q|^2 / 2, and T - M = (1-w)(T-S), S - M = w(S-T)
    floor = 0.5 * distance**2 * (1.0 if w is None else w * (1 - w))
    assert value >= floor - 1e-12


@LAWFUL
@given(logits, st.floats(-20, 20), divergences)
def test_equal_distributions_have_none(student, shift, divergence):
    assert abs(divergence(row(student), row(student) + shift).item()) < 1e-12


@LAWFUL
@given(logits, logits, st.floats(0.05, 0.95))
def test_jsd_is_bounded_and_symmetric_under_exchange(student, teacher, w):
    value = JSD(w)(row(student), row(teacher)).item()
    swapped = JSD(1 - w)(row(teacher), row(student)).item()
    assert math.isclose(value, swapped, rel_tol=1e-9, abs_tol=1e-12)
    assert value <= -w * math.log(w) - (1 - w) * math.log(1 - w) + 1e-12


@LAWFUL
@given(seeds, st.integers(0, 9), st.integers(1, 12), divergences | merged, divergences | merged)
def test_chunked_is_dense(seed, tokens, chunk_size, body, confidence):
    g = torch.Generator().manual_seed(seed)
    hidden, teacher_hidden = torch.randn(2, tokens, 4, dtype=torch.float64, generator=g)
    head, teacher_head = torch.randn(2, 9, 4, dtype=torch.float64, generator=g)
    weight, mask = (
        torch.randn(tokens, dtype=torch.float64, generator=g),
        torch.rand(tokens, generator=g) < 0.5,
    )
    leaves = hidden.requires_grad_(), head.requires_grad_()
    target = torch.zeros(tokens, dtype=torch.int64)
    inputs = LossInputs(weight, mask, target, weight, weight, 1.0, target)
    student, teacher = ModelOutput(hidden, head), ModelOutput(teacher_hidden, teacher_head)
    loss, _ = chunked_divergence(student, teacher, inputs, body, confidence, chunk_size)
    pair = hidden @ head.T, teacher_hidden @ teacher_head.T
    value = torch.where(mask, confidence(*pair), body(*pair))
    expected = (value * weight).sum()
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(
        torch.autograd.grad(loss, leaves), torch.autograd.grad(expected, leaves), rtol=1e-8, atol=1e-11
    )


@LAWFUL
@given(
    st.lists(st.lists(st.floats(0, 3), max_size=7), min_size=1, max_size=6),
    st.integers(0, 4),
    st.sampled_from(["sequence_mean", "token_mean"]),
)
def test_a_constant_divergence_is_its_own_mean(weights, skip, reduction):
    """Weights of a whole step sum to 1, or to 0 where nothing is counted."""
    loss = DistillationLoss(reduction=reduction, skip_first_tokens=skip)
    weight_BC = torch.tensor([[*of_sequence, *[7.0] * (8 - len(of_sequence))] for of_sequence in weights])
    mask_BC = torch.arange(8) < torch.tensor([len(of_sequence) for of_sequence in weights]).unsqueeze(1)
    weight_T = loss.token_weights(mask_BC, weight_BC, loss.denominators(weights))
    counted = [weight for of_sequence in weights for weight in of_sequence[skip:]]
    assert len(weight_T) == sum(map(len, weights))
    if any(weight > 1e-30 for weight in counted):
        assert math.isclose(weight_T.sum().item(), 1.0, rel_tol=1e-5)
    elif not any(counted):
        assert not weight_T.any()
