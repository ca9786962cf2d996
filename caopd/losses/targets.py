"""Losses that depend on the log-probability of one given token, a few tokens at a time, gradients formed forwards.

Cross-entropy and policy gradients are such losses; a divergence from a reference may be added.

Shape suffixes: T tokens (of the batch or of one chunk), V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from caopd.losses.blocks import ModelOutput, run_chunk
from caopd.losses.divergence import Divergence, expectation, log_probabilities, value_and_logit_gradient
from caopd.losses.gradients import LossGradients, with_gradients

REFERENCE_DIVERGENCE = Divergence("reverse_kl")


class Term(NamedTuple):
    """A function of every token's log-probability: its value, and its derivative there. Both [T]."""

    value_T: Tensor
    slope_T: Tensor


TargetFunction = Callable[[Tensor, Tensor], Term]
"""Takes log-probabilities of the target tokens [T] and their rows [T]."""


class TargetStatistics(NamedTuple):
    """What a pass over the logits tells about every token; detached, float32 (float64 for float64 inputs).

    Attributes:
        value_T: The function's value, without the reference's part.
        logprob_T: The student's log-probability of the target, nats.
        entropy_T: Entropy of the student's distribution, nats.
        reference_kl_T: KL(student||reference), nats; 0 without a reference.
    """

    value_T: Tensor
    logprob_T: Tensor
    entropy_T: Tensor
    reference_kl_T: Tensor


def chunked_target_loss(
    student: ModelOutput,
    reference: ModelOutput | None,
    target_T: Tensor,
    weight_T: Tensor,
    function: TargetFunction,
    kl_coefficient: float = 0.0,
    chunk_size: int = 64,
) -> tuple[Tensor, TargetStatistics]:
    """Return sum_t weight_t (f(log S_t(y_t)) + beta KL(S_t||R_t)), and statistics per token.

    The gradient with respect to a token's logits is f' (e_y - S) plus beta S (log S - log R - KL). Only one chunk's
    logits exist at a time. Gradients flow to the student's hidden states and head; the backward pass runs once. A token
    of weight 0 has statistics, and no part in loss or gradients.

    Args:
        student: Hidden states and head of the trained model.
        reference: The same of the model to stay close to; None without one.
        target_T: The tokens y_t, int64.
        weight_T: Weight of every token in the loss.
        function: f with its derivative.
        kl_coefficient: beta.
        chunk_size: Tokens whose logits exist at a time.

    Example:
        >>> student = ModelOutput(torch.ones(1, 1), torch.zeros(4, 1, requires_grad=True))
        >>> def cross_entropy(logprob_T, rows_T):
        ...     return Term(-logprob_T, -torch.ones_like(logprob_T))
        >>> loss, _ = chunked_target_loss(student, None, torch.tensor([2]), torch.ones(1), cross_entropy)
        >>> loss.backward()
        >>> student.head_VH.grad.T  # S - e_y
        tensor([[ 0.2500,  0.2500, -0.7500,  0.2500]])
    """
    gradients = LossGradients.wanted(student.hidden_TH, student.head_VH, weight_T)
    statistics = _empty_statistics(student.hidden_TH)

    def consume(student_logits_TV: Tensor, reference_logits_TV: Tensor | None, rows_T: Tensor) -> None:
        student_TV, target_T1 = log_probabilities(student_logits_TV), target_T[rows_T].unsqueeze(-1)
        logprob_T = student_TV.gather(-1, target_T1).squeeze(-1)
        term = function(logprob_T, rows_T)
        probability_TV = student_TV.exp()
        statistics.value_T[rows_T] = term.value_T
        statistics.logprob_T[rows_T] = logprob_T
        statistics.entropy_T[rows_T] = -expectation(probability_TV, student_TV)
        slope_T1 = term.slope_T.unsqueeze(-1)
        gradient_TV = probability_TV.mul_(-slope_T1).scatter_add_(-1, target_T1, slope_T1)
        if reference_logits_TV is not None:
            reference_TV = log_probabilities(reference_logits_TV)
            kl_T, kl_gradient_TV = value_and_logit_gradient(student_TV, reference_TV, REFERENCE_DIVERGENCE)
            statistics.reference_kl_T[rows_T] = kl_T
            gradient_TV.add_(kl_gradient_TV, alpha=kl_coefficient)
        if gradients is not None:
            relative_T1 = gradients.relative_weight_T[rows_T].unsqueeze(-1)
            student_logits_TV.copy_(gradient_TV.mul_(relative_T1).masked_fill_(relative_T1 == 0, 0.0))

    operands, others = student.operands(), None if reference is None else reference.operands()
    with torch.no_grad(), torch.autocast(student.hidden_TH.device.type, enabled=False):
        for rows_T in torch.split(torch.arange(len(target_T), device=target_T.device), chunk_size):
            if len(rows_T):
                run_chunk(operands, others, rows_T, consume, gradients)
        total_T = statistics.value_T + kl_coefficient * statistics.reference_kl_T
        loss = (total_T.masked_fill(weight_T == 0, 0.0) * weight_T.to(total_T.dtype)).sum()
    if gradients is not None:
        loss = with_gradients(loss, student.hidden_TH, student.head_VH, gradients)
    return loss, statistics


def _empty_statistics(hidden_TH: Tensor) -> TargetStatistics:
    dtype = torch.promote_types(hidden_TH.dtype, torch.float32)
    return TargetStatistics(*(torch.zeros(len(hidden_TH), dtype=dtype, device=hidden_TH.device) for _ in range(4)))
