"""Makes micro-batches and optimizer steps of a round's token ids, the same steps for any number of processes.

Shape suffixes: B sequences, C padded completion length.
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
from caopd.models.layout import PackingCost
from caopd.models.packing import PackedSequences, pack
from caopd.rounds.filling import Share, TokenizedSample, fill, split
from caopd.seeds import derive_seed


@dataclass(frozen=True)
class TokenBatch:
    """A micro-batch of B training samples; completions are right-padded.

    Attributes:
        student: The student's prompts with the completions, as rows that it reads at once.
        teacher: The teacher's prompts with the completions.
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

    student: PackedSequences
    teacher: PackedSequences
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
            name: value.to(device, **arguments)
            for name, value in values.items()
            if isinstance(value, Tensor | PackedSequences)
        }
        return replace(self, **moved)


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """How a round's samples are shared out to optimizer steps, processes and micro-batches.

    An optimizer step takes the next ``batch_size * accumulate * world_size`` samples; a process takes a contiguous
    share of them, so groups stay whole where they fit. Without a limit of tokens, ``accumulate`` micro-batches of
    ``batch_size`` samples make a share. With one, as many as the round's largest share needs do: whole groups go
    together as long as they fit.

    Attributes:
        batch_size: Sequences in a micro-batch of one process.
        accumulate: Number of micro-batches of one process per optimizer step.
        world_size: Number of processes.
        max_tokens: Largest number of tokens in a micro-batch, of the student's or of the teacher's; a prompt of several
            samples counts once. A sample that is longer has a micro-batch of its own. None sets no limit.
    """

    batch_size: int
    accumulate: int
    world_size: int
    max_tokens: int | None = None

    def check(self, num_samples: int) -> None:
        """Raise unless every process gets equally many full micro-batches.

        Args:
            num_samples: Number of training samples in a round.

        Raises:
            ConfigError: ``num_samples`` is not a multiple of that, or the limit of tokens is below 1.
        """
        share = self.batch_size * self.world_size
        if self.batch_size < 1 or num_samples % share:
            raise ConfigError(
                f"Expected a round's {num_samples} training samples (num_prompts_per_round x num_trained_rollouts) to "
                f"be a multiple of batch_size x processes = {self.batch_size} x {self.world_size}, but it is not: "
                "change `data.batch_size` or `data.round.num_prompts_per_round`."
            )
        if self.max_tokens is not None and self.max_tokens < 1:
            raise ConfigError(
                f"Expected `data.tokens_per_batch` to be at least 1, or null for no limit, but got {self.max_tokens}."
            )

    def num_steps(self, num_samples: int) -> int:
        """Return the number of optimizer steps that train on so many samples."""
        return -(-num_samples // (self.batch_size * self.accumulate * self.world_size))

    def steps(self, samples: Sequence[TokenizedSample]) -> list[list[list[Share]]]:
        """Return the samples of every micro-batch: step by step, process by process.

        Every process has as many micro-batches of a step as the others, and every step as many as the others; the last
        may have fewer.

        Args:
            samples: All samples of the round.
        """
        size = self.batch_size * self.accumulate * self.world_size
        shares: list[list[Sequence[TokenizedSample]]] = []
        for start in range(0, len(samples), size):
            step = samples[start : start + size]
            share = len(step) // self.world_size
            shares.append([step[rank * share : (rank + 1) * share] for rank in range(self.world_size)])
        if self.max_tokens is None:
            return [[_chunks(share, self.batch_size) for share in step] for step in shares]
        filled = [[fill(share, self.max_tokens) for share in step] for step in shares]
        most = max(len(parts) for step in filled for parts in step)
        return [
            [split(parts, min(most, len(share))) for parts, share in zip(*pair, strict=True)]
            for pair in zip(filled, shares, strict=True)
        ]

    def micro_batches(
        self,
        samples: Sequence[TokenizedSample],
        rank: int,
        loss: TrainingLoss,
        temperature: float,
        packing: Packing,
    ) -> list[list[TokenBatch]]:
        """Return the micro-batches of one process, step by step; each knows the denominators of its optimizer step.

        Args:
            samples: All samples of the round, the same in every process.
            rank: Number of this process.
            loss: Says what the denominators count.
            temperature: Temperature at which the completions were sampled.
            packing: How student and teacher read rows.
        """
        steps = []
        for step in self.steps(samples):
            denominators = step_denominators([each for share in step for part in share for each in part], loss)
            steps.append([collate(part, denominators, temperature, packing) for part in step[rank]])
        return steps


def _chunks(share: Sequence[TokenizedSample], size: int) -> list[Share]:
    return [list(share[first : first + size]) for first in range(0, len(share), size)]


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


@dataclass(frozen=True, slots=True)
class Packing:
    """How rows of token ids are made for the student and for the teacher.

    Attributes:
        pad_token_id: Id that fills the right of shorter rows.
        student: What reading rows costs the student; None where it cannot share a prompt.
        teacher: The same of the teacher.
    """

    pad_token_id: int
    student: PackingCost | None = None
    teacher: PackingCost | None = None


def collate(
    samples: Sequence[TokenizedSample], denominators: Denominators, temperature: float, packing: Packing
) -> TokenBatch:
    """Return samples as one batch.

    Args:
        samples: The samples, at least one.
        denominators: Totals over the whole optimizer step.
        temperature: Temperature at which the completions were sampled.
        packing: How student and teacher read rows.
    """
    ids = [s.completion.token_ids for s in samples]
    pad = packing.pad_token_id
    completions = [torch.tensor(each) for each in ids]
    logprobs = [_or_nan(s.completion.sampled_logprobs) for s in samples]
    return TokenBatch(
        student=pack([s.student_prompt_ids for s in samples], ids, pad, packing.student),
        teacher=pack([s.teacher_prompt_ids for s in samples], ids, pad, packing.teacher),
        completion_ids_BC=pad_sequence(completions, batch_first=True, padding_value=pad),
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
