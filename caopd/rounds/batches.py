"""Makes micro-batches and optimizer steps of a round's token ids, the same steps for any number of processes.

Shape suffixes: B sequences, L padded length, C padded completion length.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from caopd.errors import ConfigError
from caopd.losses import Denominators, TrainingLoss
from caopd.rounds.splice import Completion
from caopd.seeds import derive_seed


@dataclass(frozen=True, slots=True)
class TokenizedSample:
    """One training sample as token ids: a completion, with the prompt of the student and that of the teacher.

    Attributes:
        student_prompt_ids: Ids of the student's prompt.
        teacher_prompt_ids: Ids of the teacher's prompt, with its privileged context.
        completion: The completion, which follows either prompt.
        weights: Weight of every token of the completion in the loss.
        copies_context: Whether the completion states the confidence that stands in the teacher's context.
        advantage: Advantage of the sample, None where the method gives none.
    """

    student_prompt_ids: tuple[int, ...]
    teacher_prompt_ids: tuple[int, ...]
    completion: Completion
    weights: tuple[float, ...]
    copies_context: bool
    advantage: float | None = None


@dataclass(frozen=True)
class TokenBatch:
    """A micro-batch of training samples, right-padded. A *predictor* is a position before a completion token.

    Attributes:
        student_ids_BL: Ids of the student's prompt and the completion, long.
        student_mask_BL: 1 at tokens.
        student_predictors_BL: True at predictors.
        teacher_ids_BL: Ids of the teacher's prompt and the completion, long.
        teacher_mask_BL: 1 at tokens.
        teacher_predictors_BL: True at predictors.
        completion_ids_BC: Completion ids, long.
        completion_mask_BC: True at completion tokens.
        confidence_mask_BC: True at tokens of the confidence segment.
        sampled_logprob_BC: The engine's log-probabilities (nats) of the completion ids, under the model's unscaled
            distribution, float32; NaN at tokens that do not stand as they were sampled, 0 at padding.
        weight_BC: Weight of the token in the loss, before anything is averaged, float32; 0 at padding.
        advantage_B: Advantage of the sample, float32; NaN where the method gives none.
        copies_context_B: Whether the completion states the confidence that stands in the teacher's context.
        denominators: What the loss is divided by: totals over all micro-batches and processes of the optimizer step.
        temperature: Temperature at which the completions were sampled.
    """

    student_ids_BL: Tensor
    student_mask_BL: Tensor
    student_predictors_BL: Tensor
    teacher_ids_BL: Tensor
    teacher_mask_BL: Tensor
    teacher_predictors_BL: Tensor
    completion_ids_BC: Tensor
    completion_mask_BC: Tensor
    confidence_mask_BC: Tensor
    sampled_logprob_BC: Tensor
    weight_BC: Tensor
    advantage_B: Tensor
    copies_context_B: Tensor
    denominators: Denominators
    temperature: float

    @property
    def confidence_alone_B(self) -> Tensor:
        """Whether the sequence is trained at tokens of its confidence segment, and at no others."""
        trained_BC = self.weight_BC != 0
        return trained_BC.any(dim=1) & ~(trained_BC & ~self.confidence_mask_BC).any(dim=1)

    def to(self, device: torch.device | str, **arguments: Any) -> TokenBatch:  # noqa: ANN401 (Tensor.to's own)
        """Return the batch on ``device``."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        moved: dict[str, Any] = {
            name: value.to(device, **arguments) for name, value in values.items() if isinstance(value, Tensor)
        }
        return replace(self, **moved)


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """How a round's samples are shared out to optimizer steps, processes and micro-batches.

    Attributes:
        batch_size: Sequences in a micro-batch of one process.
        accumulate: Number of micro-batches of one process per optimizer step.
        world_size: Number of processes.
    """

    batch_size: int
    accumulate: int
    world_size: int

    def check(self, num_samples: int) -> None:
        """Raise unless every process gets equally many full micro-batches.

        Args:
            num_samples: Number of training samples in a round.

        Raises:
            ConfigError: ``num_samples`` is not a multiple of that.
        """
        share = self.batch_size * self.world_size
        if self.batch_size < 1 or num_samples % share:
            raise ConfigError(
                f"Expected a round's {num_samples} training samples (num_prompts_per_round x num_trained_rollouts) to "
                f"be a multiple of batch_size x processes = {self.batch_size} x {self.world_size}, but it is not: "
                "change `data.batch_size` or `data.round.num_prompts_per_round`."
            )

    def num_steps(self, num_samples: int) -> int:
        """Return the number of optimizer steps that train on so many samples."""
        return -(-num_samples // (self.batch_size * self.accumulate * self.world_size))

    def micro_batches(
        self,
        samples: Sequence[TokenizedSample],
        rank: int,
        loss: TrainingLoss,
        temperature: float,
        pad_token_id: int,
    ) -> list[TokenBatch]:
        """Return the micro-batches of one process, in order; each knows the denominators of its optimizer step.

        An optimizer step takes the next ``batch_size * accumulate * world_size`` samples; a process takes a
        contiguous share of them, so groups stay whole where they fit.

        Args:
            samples: All samples of the round, the same in every process.
            rank: Number of this process.
            loss: Says what the denominators count.
            temperature: Temperature at which the completions were sampled.
            pad_token_id: Id that fills shorter sequences.
        """
        step_size = self.batch_size * self.accumulate * self.world_size
        batches = []
        for start in range(0, len(samples), step_size):
            step = samples[start : start + step_size]
            denominators = step_denominators(step, loss)
            share = len(step) // self.world_size
            mine = step[rank * share : (rank + 1) * share]
            for first in range(0, share, self.batch_size):
                some = mine[first : first + self.batch_size]
                batches.append(collate(some, denominators, temperature, pad_token_id))
        return batches


def step_denominators(step: Sequence[TokenizedSample], loss: TrainingLoss) -> Denominators:
    """Return the totals over all samples of one optimizer step."""
    return loss.denominators([sample.weights for sample in step])


class RoundBatches:
    """The micro-batches of a round, without those that a resumed run has already trained on.

    Each begins with random numbers of its own, so that dropout, where a model has it, is the same after a resume.

    Args:
        batches: The micro-batches of this process that are left to train on.
        num_done: Number of micro-batches that came before.
        seed: Seed of the round's random numbers in this process.
    """

    def __init__(self, batches: Sequence[TokenBatch], num_done: int = 0, seed: int = 0) -> None:
        self._batches = batches
        self._num_done = num_done
        self._seed = seed

    def __len__(self) -> int:
        """Number of micro-batches of the whole round."""
        return self._num_done + len(self._batches)

    def __iter__(self) -> Iterator[TokenBatch]:
        """Yield the micro-batches that are left."""
        for index, batch in enumerate(self._batches, start=self._num_done):
            torch.manual_seed(derive_seed(self._seed, "batch", index))
            yield batch


def collate(
    samples: Sequence[TokenizedSample], denominators: Denominators, temperature: float, pad_token_id: int
) -> TokenBatch:
    """Pad samples to one batch.

    Args:
        samples: The samples, at least one.
        denominators: Totals over the whole optimizer step.
        temperature: Temperature at which the completions were sampled.
        pad_token_id: Id that fills the right of shorter sequences.
    """
    student = _pad_side([s.student_prompt_ids for s in samples], samples, pad_token_id)
    teacher = _pad_side([s.teacher_prompt_ids for s in samples], samples, pad_token_id)
    completions = [torch.tensor(s.completion.token_ids) for s in samples]
    logprobs = [_or_nan(s.completion.sampled_logprobs) for s in samples]
    return TokenBatch(
        *student,
        *teacher,
        completion_ids_BC=pad_sequence(completions, batch_first=True, padding_value=pad_token_id),
        completion_mask_BC=pad_sequence([torch.ones_like(c, dtype=torch.bool) for c in completions], True),
        confidence_mask_BC=pad_sequence([torch.tensor(s.completion.confidence_mask) for s in samples], True),
        sampled_logprob_BC=pad_sequence(logprobs, batch_first=True),
        weight_BC=pad_sequence([torch.tensor(s.weights, dtype=torch.float32) for s in samples], True),
        advantage_B=_or_nan([s.advantage for s in samples]),
        copies_context_B=torch.tensor([s.copies_context for s in samples]),
        denominators=denominators,
        temperature=temperature,
    )


def _or_nan(values: Sequence[float | None]) -> Tensor:
    """Return the values as a float32 tensor, with NaN for None."""
    return torch.tensor([torch.nan if value is None else value for value in values], dtype=torch.float32)


def _pad_side(
    prompts: Sequence[tuple[int, ...]], samples: Sequence[TokenizedSample], pad_token_id: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return ids, attention mask and predictor mask [B, L] of prompts followed by their completions."""
    ids, masks, predictors = [], [], []
    for prompt, sample in zip(prompts, samples, strict=True):
        row = torch.tensor((*prompt, *sample.completion.token_ids))
        position = torch.arange(len(row))
        ids.append(row)
        masks.append(torch.ones_like(row))
        predictors.append((position >= len(prompt) - 1) & (position < len(row) - 1))
    return (
        pad_sequence(ids, batch_first=True, padding_value=pad_token_id),
        pad_sequence(masks, batch_first=True),
        pad_sequence(predictors, batch_first=True),
    )
