"""CrossEntropyLoss against torch's own cross-entropy: values, gradients, reductions."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from caopd.losses import CrossEntropyLoss, LossInputs, ModelOutput

LENGTHS, WEIGHTS = [4, 1, 3], [1.0, 2.0, 0.0]


def make_case(seed=0):
    g = torch.Generator().manual_seed(seed)
    tokens = sum(LENGTHS)
    hidden = torch.randn(tokens, 6, dtype=torch.float64, generator=g).requires_grad_()
    head = torch.randn(17, 6, dtype=torch.float64, generator=g).requires_grad_()
    return hidden, head, torch.randint(17, (tokens,), generator=g)


def batch_of(loss, target):
    mask_BC = torch.arange(4) < torch.tensor(LENGTHS)[:, None]
    weights = [[weight] * length for length, weight in zip(LENGTHS, WEIGHTS, strict=True)]
    weight_BC = torch.tensor(WEIGHTS)[:, None].expand(mask_BC.shape)
    weight_T = loss.token_weights(mask_BC, weight_BC, loss.denominators(weights))
    nowhere_T = torch.full_like(weight_T, torch.nan)
    one_sequence_T = torch.zeros_like(target)
    return LossInputs(weight_T, one_sequence_T.bool(), target, nowhere_T, nowhere_T, 1.0, one_sequence_T)


@pytest.mark.parametrize("chunk_size", [1, 3, 64])
@pytest.mark.parametrize("skip", [0, 1])
@pytest.mark.parametrize("reduction", ["sequence_mean", "token_mean"])
def test_value_and_gradients(reduction, skip, chunk_size):
    hidden, head, target = make_case()
    loss = CrossEntropyLoss(reduction, skip, chunk_size)
    output = loss(ModelOutput(hidden, head), None, batch_of(loss, target))

    expected, denominator, row = 0.0, 0.0, 0
    counted = []
    for length, weight in zip(LENGTHS, WEIGHTS, strict=True):
        tokens = slice(row + skip, row + length)
        row += length
        if tokens.start >= tokens.stop or weight == 0:
            continue
        counted += range(tokens.start, tokens.stop)
        nll = cross_entropy(
            hidden[tokens] @ head.T, target[tokens], reduction="mean" if reduction == "sequence_mean" else "sum"
        )
        expected = expected + weight * nll
        denominator += weight * (1 if reduction == "sequence_mean" else tokens.stop - tokens.start)
    expected = expected / denominator

    close = {"rtol": 1e-6, "atol": 1e-7}  # token weights are float32
    torch.testing.assert_close(output.loss, expected, **close)
    actual = torch.autograd.grad(output.loss, (hidden, head))
    torch.testing.assert_close(actual, torch.autograd.grad(expected, (hidden, head)), **close)
    logits = hidden[counted] @ head.T
    assert set(output.totals) == set(loss.logged)
    total, number = output.totals["cross_entropy"]
    assert number == len(counted)
    torch.testing.assert_close(total, cross_entropy(logits, target[counted], reduction="sum"))
    entropy = torch.distributions.Categorical(logits=logits).entropy()
    torch.testing.assert_close(output.totals["student_entropy"].total, entropy.sum())


def test_no_teacher_is_needed():
    assert not CrossEntropyLoss().needs_teacher
