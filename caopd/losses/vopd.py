"""The loss of vOPD: reverse KL as a policy gradient, its variance lowered by a control variate.

Shape suffixes: T completion tokens of the batch, V vocabulary, H hidden size.
"""

from __future__ import annotations

import torch
from torch import Tensor

from caopd.errors import ConfigError
from caopd.losses.base import LossInputs, LossOutput, Reduction, SegmentTotal, TrainingLoss
from caopd.losses.chunks import Chunk, ModelOutput, Part, TokenTerm, chunked_loss
from caopd.losses.distributions import log_probability_of
from caopd.losses.divergences import ReverseKL
from caopd.losses.importance import LOGGED, ImportanceSampling
from caopd.losses.statistics import SEGMENT_TOTALS, TokenStatistics, segment_totals
from caopd.losses.top_k import TopK


class VOPDLoss(TrainingLoss):
    """On-policy distillation by policy gradients, with a control variate (vOPD, arXiv 2605.07865).

    x_bt of :class:`TrainingLoss` is -A_t log S(y_t), with A_t = log T(y_t) - log S(y_t) + KL(S_t||T_t) held fixed.

    The reward of a token, log T(y_t) - log S(y_t), has the expectation -KL(S_t||T_t) over y_t ~ S_t: what is subtracted
    is the reward's own mean. A baseline that does not depend on y_t leaves the expected gradient as it is, that of
    KL(S_t||T_t), whatever ``baseline_top_k`` is. ``baseline_top_k`` changes the baseline, hence the variance: the KL
    over the student's k most likely tokens and one bucket for the rest lies between 0 and the whole KL, so as an
    estimate of it, it is biased downwards. The value of the loss does not say how far apart student and teacher are;
    that is logged, over the full vocabulary.

    The expectation is over tokens that the current student has sampled. After a round's first optimizer step they are
    no longer, so several steps on one round need ``importance_sampling``. A token's weight must not depend on what is
    sampled either: ``sequence_mean`` divides by the completion's length, which a sampled end decides, and turns the
    gradient away from reverse KL's; with ``token_mean`` this error is of the order of one over the number of
    completions of the step.

    Args:
        baseline_top_k: The baseline is the KL over so many of the student's most likely tokens and a bucket for the
            rest; None takes the full vocabulary, 0 no baseline, which is the plain sampled estimator.
        reduction: How tokens and sequences are averaged; see above.
        skip_first_tokens: Number of tokens at the start of each completion that are left out of the loss.
        chunk_size: Number of tokens whose logits exist at a time; None chooses by vocabulary and device.
        importance_sampling: Correction for rollouts of another engine or of earlier weights; None makes no correction.

    Raises:
        ConfigError: A value outside what is described above.

    Example:
        >>> student = ModelOutput(torch.ones(1, 1), torch.zeros(2, 1, requires_grad=True))
        >>> teacher = ModelOutput(torch.ones(1, 1), torch.tensor([[0.75], [0.25]]).log())
        >>> zero, one = torch.tensor([0]), torch.ones(1)
        >>> inputs = LossInputs(one, zero.bool(), zero, one, one, 1.0, zero)
        >>> VOPDLoss()(student, teacher, inputs).loss.backward()
        >>> student.head_VH.grad.T  # A (S - e_y), A = log 3/2 + (log 2/3 + log 2) / 2
        tensor([[-0.2747,  0.2747]])
    """

    signal = "context"
    logged: tuple[str, ...] = SEGMENT_TOTALS

    def __init__(
        self,
        baseline_top_k: int | None = None,
        reduction: Reduction = "token_mean",
        skip_first_tokens: int = 0,
        chunk_size: int | None = None,
        importance_sampling: ImportanceSampling | None = None,
    ) -> None:
        super().__init__(reduction, skip_first_tokens, chunk_size)
        if baseline_top_k is not None and baseline_top_k < 0:
            raise ConfigError(
                f"Expected `baseline_top_k` to be 0 or larger, or null for all tokens, but got {baseline_top_k}."
            )
        self.baseline_top_k = baseline_top_k
        self.importance_sampling = importance_sampling
        if importance_sampling is not None:
            self.logged = (*self.logged, *LOGGED)

    @property
    def needs_teacher(self) -> bool:
        """Always true: the reward is the teacher's log-probability minus the student's."""
        return True

    @property
    def needs_sampled(self) -> bool:
        """Always true: the expectation is over what the student samples, and nobody sampled a revised token."""
        return True

    def check_sampling(self, temperature: float, truncated: bool, num_steps_per_round: int) -> None:
        """Raise unless the rollouts come from the distribution that the expectation is over.

        Args:
            temperature: Temperature at which training rollouts are sampled.
            truncated: Whether top-p or top-k leave tokens out.
            num_steps_per_round: Optimizer steps on the same rollouts.

        Raises:
            ConfigError: Sampling has top-p, top-k or another temperature than 1, or a round has several optimizer steps
                without importance sampling.
        """
        if temperature != 1 or truncated:
            raise ConfigError(
                "Expected VOPDLoss to learn from samples of the student's own distribution, but got temperature "
                f"{temperature}{' with top_p or top_k' if truncated else ''}: set `data.sampling` to temperature 1, "
                "top_p 1 and top_k 0, or use DistillationLoss, which takes any completion."
            )
        if num_steps_per_round > 1 and self.importance_sampling is None:
            raise ConfigError(
                f"Expected one optimizer step a round with VOPDLoss, but got {num_steps_per_round}: after the first, "
                "rollouts are no longer the student's samples. Raise `trainer.accumulate_grad_batches`, or set "
                "`model.loss.importance_sampling`."
            )

    def __call__(self, student: ModelOutput, teacher: ModelOutput | None, inputs: LossInputs) -> LossOutput:
        """Return -sum_t weight_t A_t log S(y_t).

        Args:
            student: Hidden states and head of the student.
            teacher: The same of the teacher.
            inputs: Targets and weights of the tokens, which of them are in the confidence segment, and the engine's
                log-probabilities.
        """
        assert teacher is not None
        weight_T = inputs.weight_T
        totals: dict[str, SegmentTotal] = {}
        if self.importance_sampling is not None:
            weight_T, totals = self.importance_sampling.corrected(
                student, inputs, self.chunk_size, self.reduction, with_own=True
            )
        statistics = TokenStatistics.empty(student)

        def objective(chunk: Chunk) -> TokenTerm:
            assert chunk.teacher_TV is not None
            statistics.fill(chunk, inputs.target_T)
            kl_T = ReverseKL().values(chunk.student_TV, chunk.teacher_TV)
            statistics.divergence_T[chunk.rows_T] = kl_T
            baseline_T = self._baseline(kl_T, chunk.student_TV, chunk.teacher_TV)
            return _term(chunk.student_TV, chunk.teacher_TV, inputs.target_T[chunk.rows_T], baseline_T)

        loss, _ = chunked_loss(student, teacher, weight_T, [Part(objective)], self.chunk_size)
        totals |= segment_totals(statistics, inputs.weight_T, inputs.confidence_mask_T)
        return LossOutput(loss, totals, statistics.teacher_top1_T)

    def _baseline(self, kl_T: Tensor, student_TV: Tensor, teacher_TV: Tensor) -> Tensor:
        if self.baseline_top_k is None:
            return kl_T
        if self.baseline_top_k == 0:
            return torch.zeros_like(kl_T)
        return TopK(ReverseKL(), self.baseline_top_k).values(student_TV, teacher_TV)


def _term(student_TV: Tensor, teacher_TV: Tensor, target_T: Tensor, baseline_T: Tensor) -> TokenTerm:
    """Return -A log S(y), and its gradient A (S - e_y) with respect to the student's logits."""
    logprob_T = log_probability_of(student_TV, target_T)
    advantage_T = log_probability_of(teacher_TV, target_T) - logprob_T + baseline_T
    minus_one_T1 = -torch.ones_like(logprob_T).unsqueeze(-1)
    gradient_TV = student_TV.exp().scatter_add_(-1, target_T.unsqueeze(-1), minus_one_T1)
    return TokenTerm(-advantage_T * logprob_T, gradient_TV.mul_(advantage_T.unsqueeze(-1)))
