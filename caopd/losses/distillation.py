"""The configurable loss of on-policy distillation: a divergence per segment.

Shape suffixes: T completion tokens of the batch, V vocabulary, H hidden size.
"""

from __future__ import annotations

from torch import Tensor

from caopd.errors import ConfigError
from caopd.losses.base import LossOutput, Reduction, SegmentTotal, TokenStreams, TrainingLoss, total_over
from caopd.losses.blocks import ModelOutput
from caopd.losses.chunked import TokenStatistics, chunked_divergence
from caopd.losses.divergence import Divergence, DivergenceName
from caopd.losses.importance import LOGGED, ImportanceSampling

SEGMENT_TOTALS = (
    "kl_reasoning",
    "kl_confidence",
    "student_entropy",
    "teacher_entropy",
    "information_gap",
    "teacher_log_ratio",
)
"""Names of what :func:`segment_totals` sums."""


class DistillationLoss(TrainingLoss):
    """Divergence of student and teacher over the completion's tokens (CaOPD, arXiv 2604.16830, eq. 7).

    x_bt of :class:`TrainingLoss` is the divergence of the token's segment.

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
        importance_sampling: Correction for samples of another engine, for completions as sampled; None for none.
        top_k: Compare only the student's k most likely tokens and one bucket for the rest (SDPO, arXiv 2601.20802, has
            k = 100); None compares the full vocabulary. It changes what is learnt and saves no memory here.

    Raises:
        ConfigError: A value outside what is described above.
    """

    signal = "context"
    logged: tuple[str, ...] = SEGMENT_TOTALS

    def __init__(
        self,
        reasoning: DivergenceName = "reverse_kl",
        confidence: DivergenceName | None = None,
        jsd_teacher_weight: float = 0.5,
        reduction: Reduction = "sequence_mean",
        skip_first_tokens: int = 0,
        chunk_size: int = 64,
        importance_sampling: ImportanceSampling | None = None,
        top_k: int | None = None,
    ) -> None:
        super().__init__(reduction, skip_first_tokens, chunk_size)
        self.importance_sampling = importance_sampling
        if importance_sampling is not None:
            self.logged = (*self.logged, *LOGGED)
        self.reasoning = Divergence(reasoning, jsd_teacher_weight, top_k)
        self.confidence = Divergence(reasoning if confidence is None else confidence, jsd_teacher_weight, top_k)

    @property
    def needs_teacher(self) -> bool:
        """Always."""
        return True

    @property
    def needs_sampled(self) -> bool:
        """With importance sampling."""
        return self.importance_sampling is not None

    def check_sampling(self, temperature: float, truncated: bool, num_steps_per_round: int) -> None:
        """Raise where importance ratios would not be those of the distribution that was sampled from.

        Args:
            temperature: Of training rollouts.
            truncated: Whether top-p or top-k leave tokens out.
            num_steps_per_round: Not used.

        Raises:
            ConfigError: Importance sampling beside another temperature than 1, top-p or top-k.
        """
        if self.importance_sampling is not None and (temperature != 1 or truncated):
            raise ConfigError(
                "Expected temperature 1, top_p 1 and top_k 0 with `importance_sampling`, whose ratios are those of the "
                f"unscaled distributions, but got temperature {temperature}"
                f"{' and top_p or top_k' if truncated else ''}: change `data.sampling`, or leave one out."
            )

    def __call__(self, student: ModelOutput, teacher: ModelOutput | None, tokens: TokenStreams) -> LossOutput:
        """Return sum_t weight_t D_t: :func:`~caopd.losses.chunked.chunked_divergence`.

        Args:
            student: Hidden states and head of the student.
            teacher: The same of the teacher.
            tokens: Their weights and segments.
        """
        assert teacher is not None
        weight_T = tokens.weight_T
        totals: dict[str, SegmentTotal] = {}
        if self.importance_sampling is not None:
            weight_T, totals = self.importance_sampling.corrected(student, tokens, self.chunk_size)
        loss, statistics = chunked_divergence(
            student.hidden_TH,
            student.head_VH,
            teacher.hidden_TH,
            teacher.head_VH,
            weight_T,
            tokens.confidence_mask_T,
            self.reasoning,
            self.confidence,
            tokens.target_T,
            self.chunk_size,
        )
        totals |= segment_totals(statistics, tokens.weight_T, tokens.confidence_mask_T)
        return LossOutput(loss, totals, statistics.teacher_top1_T)


def segment_totals(statistics: TokenStatistics, weight_T: Tensor, confidence_mask_T: Tensor) -> dict[str, SegmentTotal]:
    """Return sums over the counted tokens (weight not 0) for logging, in nats.

    Args:
        statistics: What the loss reported.
        weight_T: The weights that the loss was given; only whether they are 0 matters.
        confidence_mask_T: Boolean, true in the confidence segment.

    Returns:
        ``kl_reasoning`` and ``kl_confidence``, the divergence in either segment (whichever divergence was
        configured); ``student_entropy`` and ``teacher_entropy``, over both; in the reasoning, ``information_gap``,
        H(S) - H(T), and with targets ``teacher_log_ratio``, log T - log S of the target.
    """
    counted_T = weight_T != 0
    reasoning_T = counted_T & ~confidence_mask_T
    gap_T = statistics.student_entropy_T - statistics.teacher_entropy_T
    totals = {
        "kl_reasoning": total_over(statistics.divergence_T, reasoning_T),
        "kl_confidence": total_over(statistics.divergence_T, counted_T & confidence_mask_T),
        "student_entropy": total_over(statistics.student_entropy_T, counted_T),
        "teacher_entropy": total_over(statistics.teacher_entropy_T, counted_T),
        "information_gap": total_over(gap_T, reasoning_T),
    }
    if statistics.student_logprob_T is not None and statistics.teacher_logprob_T is not None:
        ratio_T = statistics.teacher_logprob_T - statistics.student_logprob_T
        totals["teacher_log_ratio"] = total_over(ratio_T, reasoning_T)
    return totals
