"""The configurable loss of on-policy distillation: divergences per segment, and the weights that reduce them.

Shape suffixes: B sequences of a batch, C completion positions, T completion tokens of the batch, V
vocabulary, H hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from caopd.errors import ConfigError
from caopd.losses.chunked import TokenStatistics, chunked_divergence
from caopd.losses.divergence import Divergence, DivergenceName

Reduction = Literal["sequence_mean", "token_mean"]


@dataclass(frozen=True, slots=True)
class Denominators:
    """What a whole optimizer step divides by: totals over all ranks and all micro-batches.

    Attributes:
        num_sequences: Sum of the weights of the sequences that have counted tokens.
        num_tokens: Sum over sequences of weight times number of counted tokens.
    """

    num_sequences: float
    num_tokens: float


class LossOutput(NamedTuple):
    """A scalar loss to differentiate, and detached statistics of every token."""

    loss: Tensor
    statistics: TokenStatistics


class DistillationLoss:
    """Divergence of student and teacher over the completion's tokens (CaOPD, arXiv 2604.16830, eq. 7).

    With D the divergence of the token's segment, w_b the weight of sequence b, and n_b its counted tokens,
    which are its completion tokens after the first ``skip_first_tokens``:

    - ``sequence_mean``: sum_b w_b (1/n_b) sum_t D_bt / sum_b w_b, over sequences with n_b > 0;
    - ``token_mean``: sum_b w_b sum_t D_bt / sum_b w_b n_b.

    The denominators are those of the whole optimizer step, so the losses of its micro-batches *add up*. Where
    a denominator is zero, the loss is zero.

    Deviation from the paper, which has one divergence and weighs all tokens alike: a divergence of its own for the
    confidence segment, and skipped tokens (SDFT, arXiv 2601.19897, skips 3). Both are off by default.

    Args:
        reasoning: Divergence outside the confidence segment: ``reverse_kl`` is KL(student||teacher),
            ``forward_kl`` is KL(teacher||student), ``jsd`` the mixture of both.
        confidence: Divergence inside the confidence segment; ``None``: the same as ``reasoning``.
        jsd_teacher_weight: The teacher's weight in the mixture of ``jsd``, strictly between 0 and 1.
        reduction: How tokens and sequences are averaged.
        skip_first_tokens: Number of tokens at the start of each completion that are left out of the loss.
        chunk_size: Number of tokens whose logits exist at a time.

    Raises:
        ConfigError: A value outside what is described above.

    Example:
        >>> loss = DistillationLoss(skip_first_tokens=1)
        >>> denominators = loss.denominators(completion_lengths=[3, 2, 1], sample_weights=[1.0, 1.0, 1.0])
        >>> denominators  # the third sequence has no counted token
        Denominators(num_sequences=2.0, num_tokens=3.0)
        >>> mask_BC = torch.tensor([[True, True, True], [True, True, False], [True, False, False]])
        >>> loss.token_weights(mask_BC, torch.ones(3), denominators)
        tensor([0.0000, 0.2500, 0.2500, 0.0000, 0.5000, 0.0000])
    """

    def __init__(
        self,
        reasoning: DivergenceName = "reverse_kl",
        confidence: DivergenceName | None = None,
        jsd_teacher_weight: float = 0.5,
        reduction: Reduction = "sequence_mean",
        skip_first_tokens: int = 0,
        chunk_size: int = 64,
    ) -> None:
        if reduction not in get_args(Reduction):
            allowed = ", ".join(map(repr, get_args(Reduction)))
            raise ConfigError(f"Expected a reduction of {allowed}, but got {reduction!r}.")
        if skip_first_tokens < 0:
            raise ConfigError(f"Expected `skip_first_tokens` to be 0 or larger, but got {skip_first_tokens}.")
        if chunk_size < 1:
            raise ConfigError(f"Expected `chunk_size` to be an integer larger than 0, but got {chunk_size}.")
        self.reasoning = Divergence(reasoning, jsd_teacher_weight)
        self.confidence = Divergence(reasoning if confidence is None else confidence, jsd_teacher_weight)
        self.reduction: Reduction = reduction
        self.skip_first_tokens = skip_first_tokens
        self.chunk_size = chunk_size

    def denominators(self, completion_lengths: Sequence[int], sample_weights: Sequence[float]) -> Denominators:
        """Return the totals that one optimizer step divides by.

        Args:
            completion_lengths: Number of completion tokens of every sequence of the step, on all ranks and in
                all micro-batches.
            sample_weights: Their weights, as many. Weights that must not cancel out of the average, such as
                importance ratios, belong into :meth:`token_weights` alone.
        """
        counted = [max(length - self.skip_first_tokens, 0) for length in completion_lengths]
        pairs = list(zip(sample_weights, counted, strict=True))
        return Denominators(
            num_sequences=float(sum(weight for weight, tokens in pairs if tokens)),
            num_tokens=float(sum(weight * tokens for weight, tokens in pairs)),
        )

    def token_weights(self, completion_mask_BC: Tensor, sample_weight_B: Tensor, denominators: Denominators) -> Tensor:
        """Return every completion token's weight: sum_t weight_t D_t is this batch's share of the loss.

        Args:
            completion_mask_BC: Boolean, true at completion tokens.
            sample_weight_B: Weight of every sequence.
            denominators: Totals of the whole optimizer step.

        Returns:
            Float32 tensor [T] over the true positions of the mask, row by row.
        """
        position_BC = completion_mask_BC.cumsum(dim=1) - 1
        counted_BC = completion_mask_BC & (position_BC >= self.skip_first_tokens)
        weight_B = sample_weight_B.detach().float()
        if self.reduction == "sequence_mean":
            weight_B = weight_B / counted_BC.sum(dim=1).clamp(min=1)
            denominator = denominators.num_sequences
        else:
            denominator = denominators.num_tokens
        weight_B = torch.zeros_like(weight_B) if denominator == 0 else weight_B / denominator
        return (counted_BC * weight_B.unsqueeze(1))[completion_mask_BC]

    def __call__(
        self,
        student_hidden_TH: Tensor,
        student_head_VH: Tensor,
        teacher_hidden_TH: Tensor,
        teacher_head_VH: Tensor,
        weight_T: Tensor,
        confidence_mask_T: Tensor,
        target_T: Tensor | None = None,
    ) -> LossOutput:
        """Return sum_t weight_t D_t and the statistics: :func:`~caopd.losses.chunked.chunked_divergence`."""
        loss, statistics = chunked_divergence(
            student_hidden_TH,
            student_head_VH,
            teacher_hidden_TH,
            teacher_head_VH,
            weight_T,
            confidence_mask_T,
            self.reasoning,
            self.confidence,
            target_T,
            self.chunk_size,
        )
        return LossOutput(loss, statistics)


class SegmentTotal(NamedTuple):
    """A sum over some tokens and their number, both scalar tensors; over batches, either adds up."""

    total: Tensor
    num_tokens: Tensor


def segment_totals(statistics: TokenStatistics, weight_T: Tensor, confidence_mask_T: Tensor) -> dict[str, SegmentTotal]:
    """Return sums over the counted tokens (weight not 0) for logging, in nats.

    Args:
        statistics: What the loss reported.
        weight_T: The weights that the loss was given; only whether they are 0 matters.
        confidence_mask_T: Boolean, true in the confidence segment.

    Returns:
        ``kl_reasoning`` and ``kl_confidence``, the divergence in either segment (whichever divergence was
        configured); ``student_entropy`` and ``teacher_entropy``, over both.
    """
    counted_T = weight_T != 0
    streams = {
        "kl_reasoning": (statistics.divergence_T, counted_T & ~confidence_mask_T),
        "kl_confidence": (statistics.divergence_T, counted_T & confidence_mask_T),
        "student_entropy": (statistics.student_entropy_T, counted_T),
        "teacher_entropy": (statistics.teacher_entropy_T, counted_T),
    }
    return {
        name: SegmentTotal(value_T.masked_fill(~mask_T, 0.0).sum(), mask_T.sum())
        for name, (value_T, mask_T) in streams.items()
    }


def segment_means(statistics: TokenStatistics, weight_T: Tensor, confidence_mask_T: Tensor) -> dict[str, Tensor]:
    """Return the means of :func:`segment_totals`; a name is absent where there is no counted token.

    Example:
        >>> one_T = torch.ones(2)
        >>> statistics = TokenStatistics(torch.tensor([1.0, 3.0]), one_T, one_T, one_T.long(), None)
        >>> segment_means(statistics, one_T, confidence_mask_T=torch.tensor([False, False]))
        {'kl_reasoning': tensor(2.), 'student_entropy': tensor(1.), 'teacher_entropy': tensor(1.)}
    """
    totals = segment_totals(statistics, weight_T, confidence_mask_T)
    return {name: item.total / item.num_tokens for name, item in totals.items() if item.num_tokens > 0}
