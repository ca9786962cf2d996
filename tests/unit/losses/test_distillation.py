"""DistillationLoss: reductions against loops, global denominators, settings and logged means."""

import pytest
import torch

from caopd.errors import ConfigError
from caopd.losses import (
    JSD,
    Denominators,
    DistillationLoss,
    ForwardKL,
    LossInputs,
    ModelOutput,
    ReverseKL,
    TopK,
)

LENGTHS = [4, 1, 0, 6, 2]
WEIGHTS = [1.0, 2.0, 1.0, 0.0, 0.5]
TOKEN_WEIGHTS = [[weight] * length for length, weight in zip(LENGTHS, WEIGHTS, strict=True)]


def completion_mask(lengths, offset=2, width=9):
    """Completions start somewhere in the row; what surrounds them is prompt and padding."""
    mask = torch.zeros(len(lengths), width, dtype=torch.bool)
    for row, length in enumerate(lengths):
        mask[row, offset : offset + length] = True
    return mask


def placed(weights, mask_BC):
    """Weights of the sequences' tokens, where the mask has these tokens; elsewhere what must not count."""
    weight_BC = torch.full(mask_BC.shape, 7.0)
    weight_BC[mask_BC] = torch.tensor([each for of_sequence in weights for each in of_sequence])
    return weight_BC


def loop_loss(value_BC, lengths, weights, reduction, skip, offset=2):
    total, sequences, tokens = 0.0, 0.0, 0.0
    for row, (length, weight) in enumerate(zip(lengths, weights, strict=True)):
        counted = value_BC[row, offset + skip : offset + length].tolist()
        if not counted:
            continue
        sequences += weight
        tokens += weight * len(counted)
        total += weight * (sum(counted) / len(counted) if reduction == "sequence_mean" else sum(counted))
    return total / (sequences if reduction == "sequence_mean" else tokens)


@pytest.mark.parametrize("skip", [0, 1, 3])
@pytest.mark.parametrize("reduction", ["sequence_mean", "token_mean"])
def test_weights_against_a_loop_and_micro_batches_add_up(reduction, skip):
    loss = DistillationLoss(reduction=reduction, skip_first_tokens=skip)
    denominators = loss.denominators(TOKEN_WEIGHTS)
    value_BC = torch.rand(5, 9, generator=torch.Generator().manual_seed(0))
    mask_BC = completion_mask(LENGTHS)
    weight_BC = placed(TOKEN_WEIGHTS, mask_BC)

    def share(rows):
        weight_T = loss.token_weights(mask_BC[rows], weight_BC[rows], denominators)
        return (weight_T * value_BC[rows][mask_BC[rows]]).sum().item()

    expected = loop_loss(value_BC, LENGTHS, WEIGHTS, reduction, skip)
    assert share(slice(0, 5)) == pytest.approx(expected)
    assert share([0]) + share([1, 2]) + share([3, 4]) == pytest.approx(expected)


@pytest.mark.parametrize("reduction", ["sequence_mean", "token_mean"])
def test_a_token_counts_alike_whether_or_not_others_of_its_sequence_have_no_weight(reduction):
    """Else a sequence that is trained at its last tokens alone would teach these tokens more than others do."""
    loss, mask_BC = DistillationLoss(reduction=reduction), completion_mask([4, 4])
    weights = [[1.0] * 4, [0.0, 0.0, 1.0, 1.0]]
    weight_T = loss.token_weights(mask_BC, placed(weights, mask_BC), loss.denominators(weights))
    assert weight_T.tolist() == pytest.approx([1 / 6] * 4 + [0, 0] + [1 / 6] * 2)


@pytest.mark.parametrize("reduction", ["sequence_mean", "token_mean"])
def test_nothing_counted_is_zero_not_nan(reduction):
    loss = DistillationLoss(reduction=reduction, skip_first_tokens=3)
    denominators = loss.denominators([[1.0] * 2, [1.0] * 3])
    assert denominators == Denominators(0.0, 0.0)
    mask_BC = completion_mask([2, 3])
    assert loss.token_weights(mask_BC, torch.ones(mask_BC.shape), denominators).tolist() == [0.0] * 5


def test_denominators_of_sequences_without_counted_tokens():
    assert DistillationLoss(skip_first_tokens=1).denominators(TOKEN_WEIGHTS) == Denominators(1.5, 3.5)
    assert DistillationLoss().denominators(TOKEN_WEIGHTS) == Denominators(3.5, 7.0)


def test_left_padded_rows_give_the_same_weights():
    loss = DistillationLoss(skip_first_tokens=1)
    denominators = loss.denominators(TOKEN_WEIGHTS)
    masks = completion_mask(LENGTHS, offset=0), completion_mask(LENGTHS, offset=3, width=20)
    torch.testing.assert_close(
        *(loss.token_weights(mask_BC, placed(TOKEN_WEIGHTS, mask_BC), denominators) for mask_BC in masks)
    )


def test_loss_of_two_segments_against_the_dense_divergence():
    g = torch.Generator().manual_seed(1)
    mask_BC = completion_mask(LENGTHS)
    tokens = int(mask_BC.sum())
    hidden, teacher_hidden = torch.randn(2, tokens, 6, dtype=torch.float64, generator=g)
    head, teacher_head = torch.randn(2, 17, 6, dtype=torch.float64, generator=g)
    confidence_T = torch.rand(tokens, generator=g) < 0.5
    loss = DistillationLoss(ReverseKL(), confidence=JSD(0.3), chunk_size=4)
    weight_T = loss.token_weights(mask_BC, placed(TOKEN_WEIGHTS, mask_BC), loss.denominators(TOKEN_WEIGHTS))
    target_T = torch.randint(17, (tokens,), generator=g)
    nowhere_T = torch.full_like(weight_T, torch.nan)
    student, teacher = ModelOutput(hidden, head), ModelOutput(teacher_hidden, teacher_head)
    output = loss(
        student,
        teacher,
        LossInputs(weight_T, confidence_T, target_T, nowhere_T, nowhere_T, 1.0, torch.zeros_like(target_T)),
    )

    logits = hidden @ head.T, teacher_hidden @ teacher_head.T
    value_T = torch.where(confidence_T, JSD(0.3)(*logits), ReverseKL()(*logits))
    value_BC = torch.zeros(5, 9, dtype=torch.float64)
    value_BC[mask_BC] = value_T
    expected = loop_loss(value_BC, LENGTHS, WEIGHTS, "sequence_mean", 0)
    assert output.loss.item() == pytest.approx(expected, rel=1e-6)

    means = {name: total / number for name, (total, number) in output.totals.items()}
    assert set(means) == set(loss.logged)
    counted_T = weight_T != 0
    for name, mask_T in (("kl_body", ~confidence_T), ("kl_confidence", confidence_T)):
        values = value_T[mask_T & counted_T].tolist()
        assert means[name].item() == pytest.approx(sum(values) / len(values))
    teacher = torch.distributions.Categorical(logits=logits[1][counted_T])
    assert means["teacher_entropy"].item() == pytest.approx(teacher.entropy().mean().item())
    assert output.teacher_top1_T.tolist() == logits[1].argmax(-1).tolist()

    reasoning_T = counted_T & ~confidence_T
    student, teacher = (torch.distributions.Categorical(logits=each[reasoning_T]) for each in logits)
    gap_T = student.entropy() - teacher.entropy()
    assert means["information_gap"].item() == pytest.approx(gap_T.mean().item())
    ratio_T = teacher.log_prob(target_T[reasoning_T]) - student.log_prob(target_T[reasoning_T])
    assert means["teacher_log_ratio"].item() == pytest.approx(ratio_T.mean().item())


@pytest.mark.parametrize("divergence", [ReverseKL(), ForwardKL(), JSD(0.3)], ids=str)
def test_top_k_is_the_divergence_of_distributions_whose_tail_is_merged(divergence):
    """The tail is merged by hand, densely; gradients by autograd through the merged probabilities."""
    g = torch.Generator().manual_seed(2)
    hidden, teacher_hidden = torch.randn(2, 9, 6, dtype=torch.float64, generator=g)
    head, teacher_head = torch.randn(2, 17, 6, dtype=torch.float64, generator=g)
    leaves = hidden.requires_grad_(), head.requires_grad_()
    weight_T, target_T = torch.rand(9, dtype=torch.float64, generator=g), torch.zeros(9, dtype=torch.int64)
    tokens = LossInputs(weight_T, target_T.bool(), target_T, weight_T, weight_T, 1.0, target_T)
    loss = DistillationLoss(TopK(divergence, 5), chunk_size=4)
    output = loss(ModelOutput(hidden, head), ModelOutput(teacher_hidden, teacher_head), tokens)

    s_TV, t_TV = (hidden @ head.T).softmax(-1), (teacher_hidden @ teacher_head.T).softmax(-1)
    order_TV = s_TV.argsort(descending=True)
    s, t = (
        torch.cat([p.gather(1, order_TV)[:, :5], p.gather(1, order_TV)[:, 5:].sum(1, keepdim=True)], 1)
        for p in (s_TV, t_TV)
    )
    m = 0.3 * t + 0.7 * s
    value_T = {
        ReverseKL: (s * (s / t).log()).sum(1),
        ForwardKL: (t * (t / s).log()).sum(1),
        JSD: (0.3 * t * (t / m).log() + 0.7 * s * (s / m).log()).sum(1),
    }[type(divergence)]
    expected = (weight_T * value_T).sum()
    torch.testing.assert_close(output.loss, expected, rtol=1e-12, atol=1e-14)
    actual = torch.autograd.grad(output.loss, leaves)
    torch.testing.assert_close(actual, torch.autograd.grad(expected, leaves), rtol=1e-10, atol=1e-13)


def test_confidence_defaults_to_body():
    loss = DistillationLoss(ForwardKL())
    assert loss.confidence == loss.body == ForwardKL()
    assert DistillationLoss().body == ReverseKL()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reduction": "mean"}, "'sequence_mean', 'token_mean'.*'mean'"),
        ({"skip_first_tokens": -1}, "skip_first_tokens.*-1"),
        ({"chunk_size": 0}, "chunk_size.*larger than 0.*0"),
    ],
)
def test_bad_settings_fail_at_construction(settings, message):
    with pytest.raises(ConfigError, match=message):
        DistillationLoss(**settings)
