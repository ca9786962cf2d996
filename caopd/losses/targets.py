"""Losses of the log-probability of one given token, the *target*: cross-entropy and policy gradients.

A divergence from a reference model may be added.

Shape suffixes: T tokens (of the batch or of one chunk), V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from caopd.losses.chunks import Chunk, ModelOutput, Part, TokenTerm, chunked_loss
from caopd.losses.distributions import expectation, log_probability_of
from caopd.losses.divergences import ReverseKL

REFERENCE_DIVERGENCE = ReverseKL()


class Term(NamedTuple):
    """The value and the derivative of a function of every token's log-probability, both [T]."""

    value_T: Tensor
    slope_T: Tensor


TargetFunction = Callable[[Tensor, Tensor], Term]
"""Takes the log-probabilities of the target tokens [T] and the tokens' indices within the batch [T]."""


class TargetStatistics(NamedTuple):
    """What a pass over the logits tells about every token, detached and in float32 (float64 for float64 inputs).

    Attributes:
        logprob_T: The student's log-probability of the target, nats.
        entropy_T: Entropy of the student's distribution, nats.
        reference_kl_T: KL(student||reference), nats; 0 without a reference.
    """

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
    chunk_size: int | None = None,
) -> tuple[Tensor, TargetStatistics]:
    """Return sum_t weight_t (f(log S_t(y_t)) + beta KL(S_t||R_t)), and statistics per token.

    The gradient with respect to a token's logits is f' (e_y - S) plus beta S (log S - log R - KL). What
    :func:`~caopd.losses.chunks.chunked_loss` says of gradients, precision, memory and weights of 0 holds here.

    Args:
        student: Hidden states and head of the trained model.
        reference: The same of the model to stay close to; None without one.
        target_T: The tokens y_t, int64.
        weight_T: Weight of every token in the loss.
        function: The function f, which also gives its derivative.
        kl_coefficient: beta, the weight of the divergence from the reference.
        chunk_size: Tokens whose logits exist at a time; None chooses by vocabulary and device.

    Example:
        >>> import torch
        >>> student = ModelOutput(torch.ones(1, 1), torch.zeros(4, 1, requires_grad=True))
        >>> def cross_entropy(logprob_T, rows_T):
        ...     return Term(-logprob_T, -torch.ones_like(logprob_T))
        >>> loss, _ = chunked_target_loss(student, None, torch.tensor([2]), torch.ones(1), cross_entropy)
        >>> loss.backward()
        >>> student.head_VH.grad.T  # S - e_y
        tensor([[ 0.2500,  0.2500, -0.7500,  0.2500]])
    """
    statistics = TargetStatistics(*(student.zeros_T() for _ in TargetStatistics._fields))

    def objective(chunk: Chunk) -> TokenTerm:
        rows_T, target_T1 = chunk.rows_T, target_T[chunk.rows_T].unsqueeze(-1)
        logprob_T = log_probability_of(chunk.student_TV, target_T[rows_T])
        value_T, slope_T = function(logprob_T, rows_T)
        probability_TV, slope_T1 = chunk.student_TV.exp(), slope_T.unsqueeze(-1)
        statistics.logprob_T[rows_T] = logprob_T
        statistics.entropy_T[rows_T] = -expectation(probability_TV, chunk.student_TV)
        gradient_TV = probability_TV.mul_(-slope_T1).scatter_add_(-1, target_T1, slope_T1)
        if chunk.teacher_TV is not None:
            kl_T, kl_gradient_TV = REFERENCE_DIVERGENCE.values_and_gradients(chunk.student_TV, chunk.teacher_TV)
            statistics.reference_kl_T[rows_T] = kl_T
            value_T = value_T + kl_coefficient * kl_T
            gradient_TV.add_(kl_gradient_TV, alpha=kl_coefficient)
        return TokenTerm(value_T, gradient_TV)

    loss, _ = chunked_loss(student, reference, weight_T, [Part(objective)], chunk_size)
    return loss, statistics
