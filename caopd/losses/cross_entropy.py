"""The loss of supervised fine-tuning."""

from __future__ import annotations

import torch
from torch import Tensor

from caopd.losses.base import LossInputs, LossOutput, TrainingLoss, total_over
from caopd.losses.chunks import ModelOutput
from caopd.losses.targets import Term, chunked_target_loss


class CrossEntropyLoss(TrainingLoss):
    """Negative log-likelihood of the completion's tokens: x_bt of :class:`TrainingLoss` is -log S(y_bt), in nats.

    Args:
        reduction: How tokens and sequences are averaged.
        skip_first_tokens: Number of tokens at the start of each completion that are left out of the loss.
        chunk_size: Number of tokens whose logits exist at a time; None chooses by vocabulary and device.

    Raises:
        ConfigError: A value outside what :class:`TrainingLoss` describes.
    """

    signal = "completion"
    logged = ("cross_entropy", "student_entropy")

    def __call__(self, student: ModelOutput, teacher: ModelOutput | None, inputs: LossInputs) -> LossOutput:
        """Return -sum_t weight_t log S(y_t).

        Args:
            student: Hidden states and head of the trained model.
            teacher: Not used.
            inputs: The target tokens and their weights.
        """
        loss, statistics = chunked_target_loss(
            student, None, inputs.target_T, inputs.weight_T, _negative, chunk_size=self.chunk_size
        )
        counted_T = inputs.weight_T != 0
        totals = {
            "cross_entropy": total_over(-statistics.logprob_T, counted_T),
            "student_entropy": total_over(statistics.entropy_T, counted_T),
        }
        return LossOutput(loss, totals, teacher_top1_T=None)


def _negative(logprob_T: Tensor, rows_T: Tensor) -> Term:
    return Term(-logprob_T, -torch.ones_like(logprob_T))
