"""The divergence from hidden states, a few tokens at a time, with the gradient formed in the forward pass.

A batch's logits over a vocabulary of 151,936 cost 0.6 MB per token and model and several times that with
autograd. Here only one chunk of them exists at a time: memory beyond the gradients themselves is flat in the
number of tokens.

Shape suffixes: T tokens (of the batch or of one chunk), V vocabulary, H hidden size (student and teacher may
differ).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from caopd.errors import ConfigError
from caopd.losses.blocks import ModelOutput, run_chunk
from caopd.losses.divergence import (
    Divergence,
    divergence_of,
    expectation,
    log_probabilities,
    value_and_logit_gradient,
)
from caopd.losses.gradients import LossGradients, with_gradients


class TokenStatistics(NamedTuple):
    """What a pass over the logits tells about every token; detached, float32 (float64 for float64 inputs).

    Attributes:
        divergence_T: Divergence of student and teacher, nats; unweighted.
        student_entropy_T: Entropy of the student's distribution, nats.
        teacher_entropy_T: Entropy of the teacher's distribution, nats.
        teacher_top1_T: The teacher's most likely token id, int64.
        student_logprob_T: The student's log-probability of the target token, nats; ``None`` without targets.
        teacher_logprob_T: The teacher's, likewise.
    """

    divergence_T: Tensor
    student_entropy_T: Tensor
    teacher_entropy_T: Tensor
    teacher_top1_T: Tensor
    student_logprob_T: Tensor | None
    teacher_logprob_T: Tensor | None


class TokenTerm(NamedTuple):
    """What some tokens add to the loss.

    Attributes:
        value_T: Their values, unweighted.
        divergence_T: Divergence of student and teacher, for the log; may be the value itself.
        gradient_TV: Gradient of the values with respect to the student's logits; None where none is asked for.
    """

    value_T: Tensor
    divergence_T: Tensor
    gradient_TV: Tensor | None


TokenObjective = Callable[[Tensor, Tensor, Tensor, bool], TokenTerm]
"""Takes log-probabilities of student and teacher [T, V], their rows [T], and whether a gradient is wanted."""


def chunked_divergence(
    student_hidden_TH: Tensor,
    student_head_VH: Tensor,
    teacher_hidden_TH: Tensor,
    teacher_head_VH: Tensor,
    weight_T: Tensor,
    confidence_mask_T: Tensor,
    reasoning: Divergence,
    confidence: Divergence,
    target_T: Tensor | None = None,
    chunk_size: int = 64,
) -> tuple[Tensor, TokenStatistics]:
    """Return sum_t weight_t D_t(S_t, T_t), and statistics per token; the batch's logits never exist.

    S_t = softmax(W_S h_t) and T_t likewise; D_t is ``confidence`` at the tokens of the confidence segment and
    ``reasoning`` elsewhere. Equal to the weighted sum of :func:`~caopd.losses.divergence.token_divergence`,
    value and gradients. The gradients with respect to the logits have closed forms (w the teacher's weight):

    - reverse KL: S (log S - log T - KL(S||T));
    - forward KL: S - T;
    - JSD: (1-w) S (log S - log M - KL(S||M)).

    Gradients flow to ``student_hidden_TH`` and ``student_head_VH`` only, and are formed only where they are
    required. They are scaled in place in the backward pass, so it runs once: a second one through the same
    loss raises. Under autocast the matrix products run in its dtype and the softmax in float32. A token of
    weight 0 has statistics, and no part in loss or gradients even where its divergence is infinite. An
    infinite divergence of positive weight makes the loss ``inf`` and the gradients NaN.

    Args:
        student_hidden_TH: Last hidden states of the student, after the final norm.
        student_head_VH: The student's output embedding; tied heads are just the same tensor.
        teacher_hidden_TH: Hidden states of the teacher for the same tokens; its hidden size may differ.
        teacher_head_VH: The teacher's output embedding, over the same vocabulary.
        weight_T: Weight of every token in the loss.
        confidence_mask_T: Boolean, true in the confidence segment.
        reasoning: Divergence outside the confidence segment.
        confidence: Divergence inside it.
        target_T: Token ids whose log-probabilities to report, int64.
        chunk_size: Tokens whose logits exist at a time. A chunk reads and writes the head's whole gradient,
            so larger chunks are faster where matrix products are fast.

    Returns:
        The scalar loss (float32, or float64 for float64 inputs) and the statistics.

    Raises:
        ConfigError: Vocabularies or token counts that differ, or ``chunk_size`` below 1.

    Example:
        >>> hidden, student_head = torch.ones(1, 1), torch.zeros(2, 1, requires_grad=True)
        >>> teacher_head, no_confidence = torch.tensor([[0.75], [0.25]]).log(), torch.tensor([False])
        >>> loss, statistics = chunked_divergence(hidden, student_head, hidden, teacher_head, torch.ones(1),
        ...     no_confidence, Divergence("forward_kl"), Divergence("forward_kl"))
        >>> loss.backward()
        >>> student_head.grad.T  # S - T
        tensor([[-0.2500,  0.2500]])
    """
    _check_token_counts(student_hidden_TH, teacher_hidden_TH, weight_T, confidence_mask_T, target_T)
    parts = _segments(confidence_mask_T, reasoning, confidence)
    student = ModelOutput(student_hidden_TH, student_head_VH)
    teacher = ModelOutput(teacher_hidden_TH, teacher_head_VH)
    return chunked_objective(student, teacher, weight_T, parts, target_T, chunk_size)


def chunked_objective(
    student: ModelOutput,
    teacher: ModelOutput,
    weight_T: Tensor,
    parts: Sequence[tuple[Tensor, TokenObjective]],
    target_T: Tensor | None = None,
    chunk_size: int = 64,
) -> tuple[Tensor, TokenStatistics]:
    """Return sum_t weight_t x_t for any x_t of both distributions whose gradient is known, and statistics per token.

    What :func:`chunked_divergence` says of gradients, precision, memory and weights of 0 holds here.

    Args:
        student: Hidden states and head of the student.
        teacher: The same of the teacher, over the same vocabulary and for the same tokens.
        weight_T: Weight of every token in the loss.
        parts: Rows, and what is summed over them; together they name every token once.
        target_T: Token ids whose log-probability under the student to report, int64.
        chunk_size: Tokens whose logits exist at a time.

    Raises:
        ConfigError: Vocabularies or token counts that differ, or ``chunk_size`` below 1.
    """
    _check_vocabularies(student.head_VH, teacher.head_VH)
    _check_token_counts(student.hidden_TH, teacher.hidden_TH, weight_T, target_T)
    if chunk_size < 1:
        raise ConfigError(f"Expected `chunk_size` to be an integer larger than 0, but got {chunk_size}.")
    gradients = LossGradients.wanted(student.hidden_TH, student.head_VH, weight_T)
    statistics = _empty_statistics(student.hidden_TH, target_T is not None)
    value_T = torch.zeros_like(statistics.divergence_T)
    operands, others = student.operands(), teacher.operands()
    with torch.no_grad(), torch.autocast(weight_T.device.type, enabled=False):
        for part_T, objective in parts:

            def consume(
                student_logits_TV: Tensor,
                teacher_logits_TV: Tensor | None,
                rows_T: Tensor,
                objective: TokenObjective = objective,
            ) -> None:
                assert teacher_logits_TV is not None
                student_TV, teacher_TV = log_probabilities(student_logits_TV), log_probabilities(teacher_logits_TV)
                _fill(statistics, student_TV, teacher_TV, rows_T, target_T)
                term = objective(student_TV, teacher_TV, rows_T, gradients is not None)
                value_T[rows_T], statistics.divergence_T[rows_T] = term.value_T, term.divergence_T
                if gradients is not None and term.gradient_TV is not None:
                    weight_T1 = gradients.relative_weight_T[rows_T].unsqueeze(-1)
                    student_logits_TV.copy_(term.gradient_TV.mul_(weight_T1).masked_fill_(weight_T1 == 0, 0.0))

            for rows_T in torch.split(part_T, chunk_size):
                if len(rows_T):
                    run_chunk(operands, others, rows_T, consume, gradients)
        loss = (value_T.masked_fill(weight_T == 0, 0.0) * weight_T.to(value_T.dtype)).sum()
    if gradients is not None:
        loss = with_gradients(loss, student.hidden_TH, student.head_VH, gradients)
    return loss, statistics


def _fill(
    statistics: TokenStatistics, student_TV: Tensor, teacher_TV: Tensor, rows_T: Tensor, target_T: Tensor | None
) -> None:
    """Fill some tokens' statistics from log-probabilities."""
    statistics.student_entropy_T[rows_T] = -expectation(student_TV.exp(), student_TV)
    statistics.teacher_entropy_T[rows_T] = -expectation(teacher_TV.exp(), teacher_TV)
    statistics.teacher_top1_T[rows_T] = teacher_TV.argmax(-1)
    if target_T is not None:
        assert statistics.student_logprob_T is not None
        assert statistics.teacher_logprob_T is not None
        statistics.student_logprob_T[rows_T] = log_probability_of(student_TV, target_T[rows_T])
        statistics.teacher_logprob_T[rows_T] = log_probability_of(teacher_TV, target_T[rows_T])


def log_probability_of(logprob_TV: Tensor, target_T: Tensor) -> Tensor:
    """Return every row's log-probability of its target.

    Example:
        >>> log_probability_of(torch.tensor([[-1.0, -2.0], [-3.0, -4.0]]), torch.tensor([1, 0]))
        tensor([-2., -3.])
    """
    return logprob_TV.gather(-1, target_T.unsqueeze(-1)).squeeze(-1)


def _objective(divergence: Divergence) -> TokenObjective:
    def term(student_TV: Tensor, teacher_TV: Tensor, rows_T: Tensor, with_gradient: bool) -> TokenTerm:
        if not with_gradient:
            value_T = divergence_of(student_TV, teacher_TV, divergence)
            return TokenTerm(value_T, value_T, None)
        value_T, gradient_TV = value_and_logit_gradient(student_TV, teacher_TV, divergence)
        return TokenTerm(value_T, value_T, gradient_TV)

    return term


def _empty_statistics(hidden_TH: Tensor, with_targets: bool) -> TokenStatistics:
    dtype = torch.promote_types(hidden_TH.dtype, torch.float32)
    value_T = torch.zeros(len(hidden_TH), dtype=dtype, device=hidden_TH.device)
    return TokenStatistics(
        divergence_T=value_T,
        student_entropy_T=value_T.clone(),
        teacher_entropy_T=value_T.clone(),
        teacher_top1_T=value_T.long(),
        student_logprob_T=value_T.clone() if with_targets else None,
        teacher_logprob_T=value_T.clone() if with_targets else None,
    )


def _check_vocabularies(student_head_VH: Tensor, teacher_head_VH: Tensor) -> None:
    if student_head_VH.shape[0] != teacher_head_VH.shape[0]:
        raise ConfigError(
            "Expected student and teacher to share one vocabulary, but the student's head has "
            f"{student_head_VH.shape[0]} rows and the teacher's {teacher_head_VH.shape[0]}. Use a teacher "
            "with the student's tokenizer, and cut rows that only pad the larger head."
        )


def _check_token_counts(student_hidden_TH: Tensor, *others: Tensor | None) -> None:
    counts = [other.shape[0] for other in others if other is not None]
    if any(count != student_hidden_TH.shape[0] for count in counts):
        raise ConfigError(
            "Expected as many teacher states, weights, mask entries and targets as the student has tokens, "
            f"{student_hidden_TH.shape[0]}, but got {counts}."
        )


def _segments(
    confidence_mask_T: Tensor, reasoning: Divergence, confidence: Divergence
) -> list[tuple[Tensor, TokenObjective]]:
    """Split the tokens into those of either divergence."""
    if reasoning == confidence:
        return [(torch.arange(len(confidence_mask_T), device=confidence_mask_T.device), _objective(reasoning))]
    return [
        (mask_T.nonzero().squeeze(-1), _objective(divergence))
        for mask_T, divergence in ((~confidence_mask_T, reasoning), (confidence_mask_T, confidence))
    ]
