"""What a pass over the logits of student and teacher tells about every token, and the sums of it that are logged.

Shape suffixes: T tokens of the batch.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from caopd.losses.base import SegmentTotal, total_over
from caopd.losses.chunks import Chunk, ModelOutput
from caopd.losses.distributions import entropy, log_probability_of

SEGMENT_TOTALS = (
    "kl_body",
    "kl_confidence",
    "student_entropy",
    "teacher_entropy",
    "information_gap",
    "teacher_log_ratio",
)
"""Names of the sums that :func:`segment_totals` returns."""


class TokenStatistics(NamedTuple):
    """What is known of every token, detached and in float32 (float64 for float64 inputs).

    Attributes:
        divergence_T: Divergence of student and teacher, nats, not weighted.
        student_entropy_T: Entropy of the student's distribution, nats.
        teacher_entropy_T: Entropy of the teacher's distribution, nats.
        teacher_top1_T: The teacher's most likely token id, int64.
        student_logprob_T: The student's log-probability of the target token, nats.
        teacher_logprob_T: The teacher's log-probability of the target token, nats.
    """

    divergence_T: Tensor
    student_entropy_T: Tensor
    teacher_entropy_T: Tensor
    teacher_top1_T: Tensor
    student_logprob_T: Tensor
    teacher_logprob_T: Tensor

    @classmethod
    def empty(cls, student: ModelOutput) -> TokenStatistics:
        """Return zeros for every token of the student, to be filled chunk by chunk."""
        statistics = cls(*(student.zeros_T() for _ in cls._fields))
        return statistics._replace(teacher_top1_T=statistics.teacher_top1_T.long())

    def fill(self, chunk: Chunk, target_T: Tensor) -> None:
        """Fill in the values of a chunk's tokens, except for the divergence.

        Args:
            chunk: The distributions of student and teacher at these tokens.
            target_T: Token ids of the whole batch, int64.
        """
        assert chunk.teacher_TV is not None
        rows_T = chunk.rows_T
        self.student_entropy_T[rows_T] = entropy(chunk.student_TV)
        self.teacher_entropy_T[rows_T] = entropy(chunk.teacher_TV)
        self.teacher_top1_T[rows_T] = chunk.teacher_TV.argmax(-1)
        self.student_logprob_T[rows_T] = log_probability_of(chunk.student_TV, target_T[rows_T])
        self.teacher_logprob_T[rows_T] = log_probability_of(chunk.teacher_TV, target_T[rows_T])


def segment_totals(statistics: TokenStatistics, weight_T: Tensor, confidence_mask_T: Tensor) -> dict[str, SegmentTotal]:
    """Return, for the log, sums in nats over the counted tokens (those whose weight is not 0).

    Args:
        statistics: The values of every token.
        weight_T: The weights that the loss was given; only whether they are 0 matters.
        confidence_mask_T: Boolean, true in the confidence segment.

    Returns:
        ``kl_body`` and ``kl_confidence``, the divergence (whichever is configured) outside and inside the confidence
        segment; ``student_entropy`` and ``teacher_entropy``, over all tokens; and, outside the confidence segment,
        ``information_gap``, H(S) - H(T), and ``teacher_log_ratio``, log T - log S of the target.
    """
    counted_T = weight_T != 0
    body_T = counted_T & ~confidence_mask_T
    gap_T = statistics.student_entropy_T - statistics.teacher_entropy_T
    ratio_T = statistics.teacher_logprob_T - statistics.student_logprob_T
    return {
        "kl_body": total_over(statistics.divergence_T, body_T),
        "kl_confidence": total_over(statistics.divergence_T, counted_T & confidence_mask_T),
        "student_entropy": total_over(statistics.student_entropy_T, counted_T),
        "teacher_entropy": total_over(statistics.teacher_entropy_T, counted_T),
        "information_gap": total_over(gap_T, body_T),
        "teacher_log_ratio": total_over(ratio_T, body_T),
    }
