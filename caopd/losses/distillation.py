"""The loss of on-policy distillation: one divergence for the body of a completion, one for its confidence segment.

Shape suffixes: T completion tokens of the batch, V vocabulary, H hidden size.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from caopd.errors import ConfigError
from caopd.losses.base import LossInputs, LossOutput, Reduction, SegmentTotal, TrainingLoss
from caopd.losses.chunks import Chunk, ModelOutput, Objective, Part, TokenTerm, chunked_loss
from caopd.losses.divergences import Divergence, ReverseKL
from caopd.losses.importance import LOGGED, ImportanceSampling
from caopd.losses.statistics import SEGMENT_TOTALS, TokenStatistics, segment_totals


class DistillationLoss(TrainingLoss):
    """Divergence of student and teacher over the completion's tokens (CaOPD, arXiv 2604.16830, eq. 7).

    x_bt of :class:`TrainingLoss` is the divergence of the token's segment.

    Two options deviate from the paper, which has one divergence and weighs all tokens alike: the confidence segment may
    have a divergence of its own, and tokens may be skipped (SDFT, arXiv 2601.19897, skips 3). Both are off by default.

    Args:
        body: Divergence at the tokens of the body, which is the completion without its confidence segment, such as
            :class:`~caopd.losses.ReverseKL`, :class:`~caopd.losses.ForwardKL`, :class:`~caopd.losses.JSD`, or
            :class:`~caopd.losses.TopK` around any of these.
        confidence: Divergence at the tokens of the confidence segment; ``None`` is the same as ``body``.
        reduction: How tokens and sequences are averaged.
        skip_first_tokens: Number of tokens at the start of each completion that are left out of the loss.
        chunk_size: Number of tokens whose logits exist at a time; None chooses by vocabulary and device.
        importance_sampling: Correction for rollouts that another engine, or earlier weights, have sampled; it needs
            completions as they were sampled, so it does not go with CaOPD. None makes no correction.

    Raises:
        ConfigError: A value outside what is described above.
    """

    signal = "context"
    logged: tuple[str, ...] = SEGMENT_TOTALS

    def __init__(
        self,
        body: Divergence = ReverseKL(),
        confidence: Divergence | None = None,
        reduction: Reduction = "sequence_mean",
        skip_first_tokens: int = 0,
        chunk_size: int | None = None,
        importance_sampling: ImportanceSampling | None = None,
    ) -> None:
        super().__init__(reduction, skip_first_tokens, chunk_size)
        if importance_sampling is not None and importance_sampling.level == "token":
            raise ConfigError(
                "Expected `importance_sampling` of DistillationLoss to have the level `prefix` or `sequence`, but got "
                "`token`: a divergence does not depend on the token that follows, so that token's ratio corrects "
                "nothing. Leave `level` out, which takes what suits `reduction`."
            )
        self.importance_sampling = importance_sampling
        if importance_sampling is not None:
            self.logged = (*self.logged, *LOGGED)
        self.body = body
        self.confidence = body if confidence is None else confidence

    @property
    def needs_teacher(self) -> bool:
        """Always true: the divergence is from the teacher."""
        return True

    @property
    def needs_sampled(self) -> bool:
        """True with importance sampling."""
        return self.importance_sampling is not None

    def check_sampling(self, temperature: float, truncated: bool, num_steps_per_round: int) -> None:
        """Raise where importance ratios would not be those of the distribution that was sampled from.

        Args:
            temperature: Temperature at which training rollouts are sampled.
            truncated: Whether top-p or top-k leave tokens out.
            num_steps_per_round: Not used.

        Raises:
            ConfigError: Importance sampling is combined with top-p, top-k or another temperature than 1.
        """
        if self.importance_sampling is not None and (temperature != 1 or truncated):
            raise ConfigError(
                "Expected temperature 1, top_p 1 and top_k 0 with `importance_sampling`, whose ratios are those of the "
                f"unscaled distributions, but got temperature {temperature}"
                f"{' and top_p or top_k' if truncated else ''}: change `data.sampling`, or leave one out."
            )

    def __call__(self, student: ModelOutput, teacher: ModelOutput | None, inputs: LossInputs) -> LossOutput:
        """Return sum_t weight_t D_t, as :func:`chunked_divergence` computes it, and its logged sums.

        Args:
            student: Hidden states and head of the student.
            teacher: The same of the teacher.
            inputs: Weights and targets of the tokens, and which of them are in the confidence segment.
        """
        assert teacher is not None
        weight_T = inputs.weight_T
        totals: dict[str, SegmentTotal] = {}
        if self.importance_sampling is not None:
            weight_T, totals = self.importance_sampling.corrected(
                student, inputs, self.chunk_size, self.reduction, with_own=False
            )
        corrected = replace(inputs, weight_T=weight_T)
        loss, statistics = chunked_divergence(student, teacher, corrected, self.body, self.confidence, self.chunk_size)
        totals |= segment_totals(statistics, inputs.weight_T, inputs.confidence_mask_T)
        return LossOutput(loss, totals, statistics.teacher_top1_T)


def chunked_divergence(
    student: ModelOutput,
    teacher: ModelOutput,
    inputs: LossInputs,
    body: Divergence,
    confidence: Divergence,
    chunk_size: int | None = None,
) -> tuple[Tensor, TokenStatistics]:
    """Return sum_t weight_t D_t(S_t, T_t), and statistics per token; the logits of the batch never exist.

    S_t = softmax(W_S h_t) and T_t likewise; D_t is ``confidence`` at the tokens of the confidence segment and
    ``body`` elsewhere. Value and gradients equal those of the weighted sum of the divergences
    computed from whole logits. What :func:`~caopd.losses.chunks.chunked_loss` says of gradients, precision, memory and
    weights of 0 holds here.

    Args:
        student: Hidden states and head of the student.
        teacher: The same of the teacher; its hidden size may differ.
        inputs: Weights, targets, and which tokens are in the confidence segment.
        body: Divergence at tokens outside the confidence segment.
        confidence: Divergence at tokens inside it.
        chunk_size: Tokens whose logits exist at a time; None chooses by vocabulary and device.

    Raises:
        ConfigError: Vocabularies or token counts that differ, or ``chunk_size`` below 1.

    Example:
        >>> import torch
        >>> from caopd.losses import ForwardKL
        >>> student = ModelOutput(torch.ones(1, 1), torch.zeros(2, 1, requires_grad=True))
        >>> teacher = ModelOutput(torch.ones(1, 1), torch.tensor([[0.75], [0.25]]).log())
        >>> zero, one = torch.tensor([0]), torch.ones(1)
        >>> inputs = LossInputs(one, zero.bool(), zero, one, one, 1.0, zero)
        >>> loss, statistics = chunked_divergence(student, teacher, inputs, ForwardKL(), ForwardKL())
        >>> loss.backward()
        >>> student.head_VH.grad.T  # S - T
        tensor([[-0.2500,  0.2500]])
    """
    statistics = TokenStatistics.empty(student)

    def objective(divergence: Divergence) -> Objective:
        def term(chunk: Chunk) -> TokenTerm:
            assert chunk.teacher_TV is not None
            statistics.fill(chunk, inputs.target_T)
            value_T, gradient_TV = divergence.values_and_gradients(chunk.student_TV, chunk.teacher_TV)
            statistics.divergence_T[chunk.rows_T] = value_T
            return TokenTerm(value_T, gradient_TV)

        return term

    if body == confidence:
        parts = [Part(objective(body))]
    else:
        mask_T = inputs.confidence_mask_T
        segments = ((~mask_T, body), (mask_T, confidence))
        parts = [Part(objective(divergence), part_T.nonzero().squeeze(-1)) for part_T, divergence in segments]
    loss, _ = chunked_loss(student, teacher, inputs.weight_T, parts, chunk_size)
    return loss, statistics
