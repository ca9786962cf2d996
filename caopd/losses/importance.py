"""Truncated importance sampling: a correction for rollouts that another engine, or earlier weights, have sampled.

An inference engine rounds otherwise than the trainer, and after the first optimizer step of a round the student is no
longer the one that sampled. Then the prefixes at which the loss is taken are not those that the student would reach. A
ratio of probabilities corrects the tokens that it is a ratio of, and no others: rho_s = S(y_s) / E(y_s), S the student
now, E the engine, has mean 1 over y_s ~ E, whatever precedes y_s. A divergence at position t depends on the tokens
before y_t alone, so prod_{s<t} rho_s corrects it (*per-decision* importance sampling: Precup, Sutton and Singh, ICML
2000; for language models arXiv 2601.22718 and 2605.07331), while rho_t leaves its mean as it is and adds variance. A
product is cut off so that its variance stays bounded (Ionides, J. Comput. Graph. Statist. 17, 2008; SDFT, arXiv
2601.19897, cuts at 2).

Shape suffixes: T completion tokens of the batch, t those of one sequence, H hidden size, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from caopd.errors import ConfigError
from caopd.losses.base import LossInputs, Reduction, SegmentTotal, total_over
from caopd.losses.chunks import ModelOutput
from caopd.losses.logprobs import target_logprobs

LOGGED = ("importance_ratio", "importance_truncated")
"""Names of the means that :meth:`ImportanceSampling.corrected` gives."""

Level = Literal["token", "prefix", "sequence"]


@dataclass(frozen=True, slots=True)
class ImportanceSampling:
    """Multiplies the weight of every token by min(ratio, cap); ratios carry no gradient.

    With rho_s = S(y_s) / E(y_s), S the student now, E the engine that sampled y_s, the ratio of token t is

    - ``prefix``: the product of rho_s over the tokens that the loss's value at t depends on: those before t for a
      divergence, token t too for the sampled gradient of :class:`~caopd.losses.VOPDLoss`. Without a cap the expectation
      of a sum over tokens is the student's own.
    - ``sequence``: the product over the whole completion. Without a cap every expectation is the student's own, that of
      a mean over the completion's tokens too, whose length depends on the last of them. It has more variance, and is
      truncated more often.
    - ``token``: rho_t alone, as policy gradients have it: the token is corrected given its prefix, the prefix is not.
      For a divergence this would correct nothing, and it is refused.

    ``benchmarks/results/importance.md`` has the bias and the variance of each, enumerated.

    Args:
        level: Which of these ratios is taken; None takes the one that makes the loss's reduction unbiased: ``sequence``
            for ``sequence_mean``, ``prefix`` for ``token_mean``.
        cap: Largest ratio; infinity truncates none.

    Raises:
        ConfigError: A cap that is not positive.
    """

    level: Level | None = None
    cap: float = 2.0

    def __post_init__(self) -> None:
        if not self.cap > 0:
            raise ConfigError(f"Expected `cap` of ImportanceSampling to be positive, but got {self.cap}.")

    def ratios(
        self,
        logprob_T: Tensor,
        sampled_logprob_T: Tensor,
        sequence_T: Tensor,
        reduction: Reduction,
        with_own: bool,
    ) -> Tensor:
        """Return every token's truncated ratio.

        Args:
            logprob_T: The student's log-probabilities of the completion tokens, nats.
            sampled_logprob_T: The engine's log-probabilities of the same tokens, nats.
            sequence_T: Which sequence of the batch a token belongs to, int64, ascending.
            reduction: How the loss averages tokens and sequences.
            with_own: Whether the loss's value at a token depends on the token itself.

        Example:
            >>> import torch
            >>> student, engine = torch.tensor([0.5, 0.5, 0.9]).log(), torch.tensor([0.4, 0.2, 1.0]).log()
            >>> ImportanceSampling().ratios(student, engine, torch.tensor([0, 0, 1]), "token_mean", with_own=False)
            tensor([1.0000, 1.2500, 1.0000])
            >>> ImportanceSampling(cap=4.0).ratios(
            ...     student, engine, torch.tensor([0, 0, 1]), "sequence_mean", with_own=False
            ... )
            tensor([3.1250, 3.1250, 0.9000])
        """
        level = self.level or ("sequence" if reduction == "sequence_mean" else "prefix")
        difference_T = logprob_T.float() - sampled_logprob_T.float()
        if level != "token" and len(difference_T):
            parts = torch.split(difference_T, torch.bincount(sequence_T).tolist())
            difference_T = torch.cat([_summed(part_t, level, with_own) for part_t in parts])
        return difference_T.exp().clamp(max=self.cap)

    def corrected(
        self, student: ModelOutput, inputs: LossInputs, chunk_size: int | None, reduction: Reduction, with_own: bool
    ) -> tuple[Tensor, dict[str, SegmentTotal]]:
        """Return the tokens' weights times their ratios [T], and sums of the ratios for the log.

        Args:
            student: Hidden states and head of the student.
            inputs: Targets, weights and the engine's log-probabilities.
            chunk_size: Tokens whose logits exist at a time; None chooses by vocabulary and device.
            reduction: How the loss averages tokens and sequences.
            with_own: Whether the loss's value at a token depends on the token itself.
        """
        logprob_T = target_logprobs(student, inputs.target_T, chunk_size)
        ratio_T = self.ratios(logprob_T, inputs.sampled_logprob_T, inputs.sequence_T, reduction, with_own)
        counted_T = inputs.weight_T != 0
        totals = {
            "importance_ratio": total_over(ratio_T, counted_T),
            "importance_truncated": total_over((ratio_T >= self.cap).float(), counted_T),
        }
        return torch.where(counted_T, inputs.weight_T * ratio_T, 0.0), totals


def _summed(difference_t: Tensor, level: Level, with_own: bool) -> Tensor:
    """Return the sum of log-ratios that is each token's, in one sequence."""
    if level == "sequence":
        return difference_t.sum().expand_as(difference_t)
    if with_own:
        return difference_t.cumsum(0)
    return torch.cat([difference_t.new_zeros(1), difference_t.cumsum(0)])[:-1]
