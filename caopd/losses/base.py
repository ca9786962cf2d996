"""The base of all training losses: hidden states and output heads in, one scalar and sums for the log out.

Shape suffixes: B sequences of a batch, C completion positions, T completion tokens of the batch, V
vocabulary, H hidden size.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from caopd.errors import ConfigError
from caopd.losses.chunks import ModelOutput

Reduction = Literal["sequence_mean", "token_mean"]


@dataclass(frozen=True, slots=True)
class Denominators:
    """The totals that the loss of an optimizer step is divided by, over all processes and all micro-batches.

    Attributes:
        num_sequences: Sum over the sequences of the mean weight of their counted tokens.
        num_tokens: Sum of the weights of all counted tokens.
    """

    num_sequences: float
    num_tokens: float


@dataclass(frozen=True, slots=True)
class LossInputs:
    """What a loss reads beside the models' outputs: what a batch says of its T completion tokens, row by row.

    Attributes:
        weight_T: Weight of the token in the loss, made by :meth:`TrainingLoss.token_weights`.
        confidence_mask_T: True at tokens of the confidence segment.
        target_T: Ids of the tokens, int64.
        sampled_logprob_T: The engine's log-probability of the token, nats, under the model's unscaled distribution;
            NaN where the token does not stand as it was sampled.
        advantage_T: Advantage of the token's sequence; NaN where the method gives none.
        temperature: Temperature at which the rollouts were sampled.
        sequence_T: Which sequence of the batch the token belongs to, int64.
    """

    weight_T: Tensor
    confidence_mask_T: Tensor
    target_T: Tensor
    sampled_logprob_T: Tensor
    advantage_T: Tensor
    temperature: float
    sequence_T: Tensor


class SegmentTotal(NamedTuple):
    """A sum over some tokens, and how many these are; both are scalar tensors and add up over batches."""

    total: Tensor
    num_tokens: Tensor


class LossOutput(NamedTuple):
    """A scalar loss to differentiate, and what is logged of it, detached.

    Attributes:
        loss: This batch's share of its optimizer step's loss.
        totals: The sums behind the logged means, under the names of :attr:`TrainingLoss.logged`.
        teacher_top1_T: The teacher's most likely token at each position, ``None`` where no teacher sees a context.
    """

    loss: Tensor
    totals: dict[str, SegmentTotal]
    teacher_top1_T: Tensor | None


class TrainingLoss(ABC):
    """Base of all losses: which tokens count, and what the sum over them is divided by.

    With x_bt the value of token t of sequence b, w_bt its weight, and n_b the number of counted tokens of the sequence,
    which are its completion tokens after the first ``skip_first_tokens``:

    - ``sequence_mean``: sum_b (1/n_b) sum_t w_bt x_bt / sum_b (1/n_b) sum_t w_bt, over sequences with n_b > 0;
    - ``token_mean``: sum_bt w_bt x_bt / sum_bt w_bt.

    A token counts the same whether or not others of its sequence have weight 0, and what has weight 0 is in no
    denominator. The denominators are those of the whole optimizer step, so the losses of its micro-batches *add up*.
    Where a denominator is zero, the loss is zero.

    Args:
        reduction: How tokens and sequences are averaged.
        skip_first_tokens: Number of tokens at the start of each completion that are left out of the loss.
        chunk_size: Number of tokens whose logits exist at a time; None chooses by vocabulary and device
            (:func:`~caopd.losses.chunks.chunk_tokens`).

    Raises:
        ConfigError: A value outside what is described above.

    Example:
        >>> from caopd.losses import CrossEntropyLoss
        >>> loss = CrossEntropyLoss(skip_first_tokens=1)
        >>> denominators = loss.denominators([[1.0, 1.0, 1.0], [1.0, 1.0], [1.0]])
        >>> denominators  # the third sequence has no counted token
        Denominators(num_sequences=2.0, num_tokens=3.0)
        >>> mask_BC = torch.tensor([[True, True, True], [True, True, False], [True, False, False]])
        >>> loss.token_weights(mask_BC, mask_BC.float(), denominators)
        tensor([0.0000, 0.2500, 0.2500, 0.0000, 0.5000, 0.0000])
    """

    signal: ClassVar[str]
    """What the loss trains on. Methods whose training samples carry the same :class:`caopd.types.Signal` use it."""
    logged: tuple[str, ...]
    """Names under ``train/`` of the means over counted tokens (those with a weight above 0) that are logged."""

    def __init__(
        self, reduction: Reduction = "sequence_mean", skip_first_tokens: int = 0, chunk_size: int | None = None
    ) -> None:
        if reduction not in get_args(Reduction):
            allowed = ", ".join(map(repr, get_args(Reduction)))
            raise ConfigError(f"Expected a reduction of {allowed}, but got {reduction!r}.")
        if skip_first_tokens < 0:
            raise ConfigError(f"Expected `skip_first_tokens` to be 0 or larger, but got {skip_first_tokens}.")
        if chunk_size is not None and chunk_size < 1:
            raise ConfigError(f"Expected `chunk_size` to be an integer larger than 0, but got {chunk_size}.")
        self.reduction: Reduction = reduction
        self.skip_first_tokens = skip_first_tokens
        self.chunk_size = chunk_size

    @property
    def needs_teacher(self) -> bool:
        """Whether the loss compares with a second model; if not, none is made."""
        return False

    @property
    def needs_sampled(self) -> bool:
        """Whether it needs the engine's log-probability of every token, which revised tokens do not have."""
        return False

    def check_sampling(self, temperature: float, truncated: bool, num_steps_per_round: int) -> None:  # noqa: B027
        """Raise where the loss would be wrong for completions sampled in this way; by default none is refused.

        Args:
            temperature: Temperature at which training rollouts are sampled.
            truncated: Whether top-p or top-k leave tokens out.
            num_steps_per_round: Number of optimizer steps on the same rollouts.

        Raises:
            ConfigError: If the loss needs other sampling.
        """

    def denominators(self, weights: Sequence[Sequence[float]]) -> Denominators:
        """Return the totals that one optimizer step divides by.

        Args:
            weights: The weights of the completion tokens of every sequence of the step, on all ranks and in all
                micro-batches. Weights that must not cancel out of the average, such as importance ratios, belong into
                :meth:`token_weights` alone.
        """
        counted = [each for of_sequence in weights if (each := of_sequence[self.skip_first_tokens :])]
        return Denominators(
            num_sequences=float(sum(sum(each) / len(each) for each in counted)),
            num_tokens=float(sum(sum(each) for each in counted)),
        )

    def token_weights(self, completion_mask_BC: Tensor, weight_BC: Tensor, denominators: Denominators) -> Tensor:
        """Return every completion token's weight: sum_t weight_t x_t is this batch's share of the loss.

        Args:
            completion_mask_BC: Boolean, true at completion tokens.
            weight_BC: Weight of every completion token, before anything is averaged.
            denominators: The totals of the whole optimizer step.

        Returns:
            Float32 tensor [T] over the true positions of the mask, row by row.
        """
        position_BC = completion_mask_BC.cumsum(dim=1) - 1
        counted_BC = completion_mask_BC & (position_BC >= self.skip_first_tokens)
        weight_BC = weight_BC.detach().float()
        if self.reduction == "sequence_mean":
            weight_BC = weight_BC / counted_BC.sum(dim=1, keepdim=True).clamp(min=1)
            denominator = denominators.num_sequences
        else:
            denominator = denominators.num_tokens
        weight_BC = torch.zeros_like(weight_BC) if denominator == 0 else weight_BC / denominator
        return (counted_BC * weight_BC)[completion_mask_BC]

    @abstractmethod
    def __call__(self, student: ModelOutput, teacher: ModelOutput | None, inputs: LossInputs) -> LossOutput:
        """Return sum_t weight_t x_t of a batch and its logged sums.

        Args:
            student: Hidden states and head of the trained model.
            teacher: The same of the second model, without gradients; None unless :attr:`needs_teacher` is true.
            inputs: Weights, targets and whatever else the batch says of its tokens.
        """


def total_over(value_T: Tensor, mask_T: Tensor) -> SegmentTotal:
    """Return the sum of the values where the mask is true, and how many those are.

    Example:
        >>> total_over(torch.tensor([1.0, torch.inf, 2.0]), torch.tensor([True, False, True]))
        SegmentTotal(total=tensor(3.), num_tokens=tensor(2))
    """
    return SegmentTotal(value_T.masked_fill(~mask_T, 0.0).sum(), mask_T.sum())
