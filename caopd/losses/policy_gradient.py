"""The clipped policy-gradient loss of GRPO and its relatives.

Shape suffixes: T completion tokens of the batch, V vocabulary, H hidden size.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from caopd.errors import ConfigError
from caopd.losses.base import LossInputs, LossOutput, Reduction, TrainingLoss, total_over
from caopd.losses.chunks import ModelOutput
from caopd.losses.targets import Term, chunked_target_loss


class PolicyGradientLoss(TrainingLoss):
    """The clipped surrogate of PPO (arXiv 1707.06347, eq. 7), with a divergence from a reference model.

    With A the advantage of the sequence, rho = S(y_t) / S_old(y_t), and R the reference, x_bt of
    :class:`TrainingLoss` is

        -min(rho A, clip(rho, 1 - clip_low, 1 + clip_high) A) + kl_coefficient KL(S||R).

    S is the distribution that is sampled from: logits over the sampling's temperature. S_old is that of the weights
    that sampled, by the engine's log-probabilities, recorded with the rollout. These log-probabilities are of
    temperature 1. At any other temperature rho is taken as 1, with the gradient of log S, which is exact in a round's
    first optimizer step, and a second one is refused. A token that does not stand as it was sampled has no ratio; only
    the divergence counts there.

    The reference is the teacher, by default the frozen model of the start. Where ``kl_coefficient`` is 0 there is
    none.

    Deviation from GRPO, which estimates the divergence from the sampled token: KL(S||R) is over the full vocabulary.

    Args:
        clip_low: How far below 1 the ratio counts before it is clipped, in [0, 1].
        clip_high: How far above 1 the ratio counts before it is clipped, 0 or larger.
        kl_coefficient: Weight of the divergence from the reference, 0 or larger.
        reduction: How tokens and sequences are averaged.
        skip_first_tokens: Number of tokens at the start of each completion that are left out of the loss.
        chunk_size: Number of tokens whose logits exist at a time; None chooses by vocabulary and device.

    Raises:
        ConfigError: A value outside what is described above.
    """

    signal = "advantage"

    def __init__(
        self,
        clip_low: float = 0.2,
        clip_high: float = 0.2,
        kl_coefficient: float = 0.0,
        reduction: Reduction = "sequence_mean",
        skip_first_tokens: int = 0,
        chunk_size: int | None = None,
    ) -> None:
        super().__init__(reduction, skip_first_tokens, chunk_size)
        if not 0 <= clip_low <= 1:
            raise ConfigError(f"Expected `clip_low` to be in [0, 1], but got {clip_low}.")
        for name, value in {"clip_high": clip_high, "kl_coefficient": kl_coefficient}.items():
            if not value >= 0:
                raise ConfigError(f"Expected `{name}` to be 0 or larger, but got {value}.")
        self.clip_low = clip_low
        self.clip_high = clip_high
        self.kl_coefficient = kl_coefficient
        self.logged = ("student_entropy", "kl_sampler", "clipped", *(["kl_reference"] if self.needs_teacher else []))

    @property
    def needs_teacher(self) -> bool:
        """True where there is a divergence from the reference."""
        return self.kl_coefficient > 0

    @property
    def needs_sampled(self) -> bool:
        """Always true: the ratio compares with the probability that the engine gave the token."""
        return True

    def check_sampling(self, temperature: float, truncated: bool, num_steps_per_round: int) -> None:
        """Raise unless the rollouts come from the distribution whose gradient this loss takes.

        Args:
            temperature: Temperature at which training rollouts are sampled.
            truncated: Whether top-p or top-k leave tokens out.
            num_steps_per_round: Optimizer steps on the same rollouts.

        Raises:
            ConfigError: Sampling is greedy or truncated, or several steps use rollouts of a temperature other than 1.
        """
        if temperature == 0 or truncated:
            raise ConfigError(
                "Expected policy gradients to sample from the whole distribution of the policy, but got temperature "
                f"{temperature}{' with top_p or top_k' if truncated else ''}: set `data.sampling` to a temperature "
                "above 0, top_p 1 and top_k 0."
            )
        if temperature != 1 and num_steps_per_round > 1:
            raise ConfigError(
                f"Expected one optimizer step a round where the temperature is not 1, but got {num_steps_per_round} at "
                f"temperature {temperature}: recorded log-probabilities are those of temperature 1, so a later step "
                "has no ratio. Raise `trainer.accumulate_grad_batches`, or set `data.sampling.temperature` to 1."
            )

    def __call__(self, student: ModelOutput, teacher: ModelOutput | None, inputs: LossInputs) -> LossOutput:
        """Return this batch's share of the loss, and entropy, divergences and the share of clipped tokens.

        Args:
            student: Hidden states and head of the trained model.
            teacher: The same of the reference model, None without one.
            inputs: Targets, weights, advantages and the sampler's log-probabilities.
        """

        def function(logprob_T: Tensor, rows_T: Tensor) -> Term:
            surrogate = self._surrogate(logprob_T, inputs, rows_T)
            return Term(surrogate.value_T, surrogate.slope_T)

        loss, statistics = chunked_target_loss(
            _tempered(student, inputs.temperature),
            None if teacher is None else _tempered(teacher, inputs.temperature),
            inputs.target_T,
            inputs.weight_T,
            function,
            self.kl_coefficient,
            self.chunk_size,
        )
        everywhere_T = torch.arange(len(inputs.target_T), device=inputs.target_T.device)
        surrogate = self._surrogate(statistics.logprob_T, inputs, everywhere_T)
        counted_T = inputs.weight_T != 0
        sampled_T = counted_T & ~surrogate.log_ratio_T.isnan()
        totals = {
            "student_entropy": total_over(statistics.entropy_T, counted_T),
            "kl_sampler": total_over(surrogate.log_ratio_T.expm1() - surrogate.log_ratio_T, sampled_T),
            "clipped": total_over(surrogate.clipped_T.to(statistics.entropy_T.dtype), sampled_T),
        }
        if teacher is not None:
            totals["kl_reference"] = total_over(statistics.reference_kl_T, counted_T)
        return LossOutput(loss, totals, teacher_top1_T=None)

    def _surrogate(self, logprob_T: Tensor, inputs: LossInputs, rows_T: Tensor) -> _Surrogate:
        old_T = inputs.sampled_logprob_T[rows_T].to(logprob_T.dtype)
        if inputs.temperature != 1:
            old_T = torch.where(old_T.isnan(), old_T, logprob_T)
        advantage_T = inputs.advantage_T[rows_T].to(logprob_T.dtype)
        log_ratio_T = logprob_T - old_T
        gain_T = log_ratio_T.exp() * advantage_T
        bounded_T = log_ratio_T.exp().clamp(1 - self.clip_low, 1 + self.clip_high) * advantage_T
        clipped_T, unsampled_T = bounded_T < gain_T, old_T.isnan()
        return _Surrogate(
            value_T=-torch.minimum(gain_T, bounded_T).masked_fill(unsampled_T, 0.0),
            slope_T=-gain_T.masked_fill(clipped_T | unsampled_T, 0.0),
            log_ratio_T=log_ratio_T,
            clipped_T=clipped_T,
        )


class _Surrogate(NamedTuple):
    """Value, derivative with respect to the log-probability, log rho (NaN if not sampled), and where it is clipped."""

    value_T: Tensor
    slope_T: Tensor
    log_ratio_T: Tensor
    clipped_T: Tensor


def _tempered(output: ModelOutput, temperature: float) -> ModelOutput:
    """Return states whose logits are those of ``output`` over the temperature."""
    return output if temperature == 1 else ModelOutput(output.hidden_TH / temperature, output.head_VH)
