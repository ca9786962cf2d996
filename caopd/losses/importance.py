"""Truncated importance sampling: a correction for rollouts that another engine, or earlier weights, have sampled.

An inference engine rounds otherwise than the trainer, and after the first optimizer step of a round the student is no
longer the one that sampled. The ratio of the two probabilities of a token corrects for both. It is cut off so that its
variance stays bounded (SDFT, arXiv 2601.19897, cuts at 2).

Shape suffixes: T completion tokens of the batch, H hidden size, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from caopd.errors import ConfigError
from caopd.losses.base import LossInputs, SegmentTotal, total_over
from caopd.losses.chunks import ModelOutput
from caopd.losses.logprobs import target_logprobs

LOGGED = ("importance_ratio", "importance_truncated")
"""Names of the means that :meth:`ImportanceSampling.corrected` gives."""


@dataclass(frozen=True, slots=True)
class ImportanceSampling:
    """Multiplies the weight of every token by min(ratio, cap); ratios carry no gradient.

    - ``token``: the ratio of a token is S(y_t) / E(y_t), S the student now, E the engine that sampled y_t;
    - ``sequence``: all tokens of a completion have the ratio of the whole completion, prod_t S(y_t) / E(y_t).

    Args:
        level: Which of these two ratios is taken.
        cap: Largest ratio.

    Raises:
        ConfigError: A cap that is not positive.
    """

    level: Literal["token", "sequence"] = "token"
    cap: float = 2.0

    def __post_init__(self) -> None:
        if not self.cap > 0:
            raise ConfigError(f"Expected `cap` of ImportanceSampling to be positive, but got {self.cap}.")

    def ratios(self, logprob_T: Tensor, sampled_logprob_T: Tensor, sequence_T: Tensor) -> Tensor:
        """Return every token's truncated ratio.

        Args:
            logprob_T: The student's log-probabilities of the completion tokens, nats.
            sampled_logprob_T: The engine's log-probabilities of the same tokens, nats.
            sequence_T: Which sequence of the batch a token belongs to, int64.

        Example:
            >>> import torch
            >>> student, engine = torch.tensor([0.5, 0.5, 0.9]).log(), torch.tensor([0.4, 0.2, 1.0]).log()
            >>> ImportanceSampling("token").ratios(student, engine, torch.tensor([0, 0, 1]))
            tensor([1.2500, 2.0000, 0.9000])
            >>> ImportanceSampling("sequence", cap=4.0).ratios(student, engine, torch.tensor([0, 0, 1]))
            tensor([3.1250, 3.1250, 0.9000])
        """
        difference_T = logprob_T.float() - sampled_logprob_T.float()
        if self.level == "sequence" and len(difference_T):
            sums_B = difference_T.new_zeros(int(sequence_T.max()) + 1).index_add_(0, sequence_T, difference_T)
            difference_T = sums_B[sequence_T]
        return difference_T.exp().clamp(max=self.cap)

    def corrected(
        self, student: ModelOutput, inputs: LossInputs, chunk_size: int
    ) -> tuple[Tensor, dict[str, SegmentTotal]]:
        """Return the tokens' weights times their ratios [T], and sums of the ratios for the log.

        Args:
            student: Hidden states and head of the student.
            inputs: Targets, weights and the engine's log-probabilities.
            chunk_size: Tokens whose logits exist at a time.
        """
        logprob_T = target_logprobs(student, inputs.target_T, chunk_size)
        ratio_T = self.ratios(logprob_T, inputs.sampled_logprob_T, inputs.sequence_T)
        counted_T = inputs.weight_T != 0
        totals = {
            "importance_ratio": total_over(ratio_T, counted_T),
            "importance_truncated": total_over((ratio_T >= self.cap).float(), counted_T),
        }
        return torch.where(counted_T, inputs.weight_T * ratio_T, 0.0), totals
