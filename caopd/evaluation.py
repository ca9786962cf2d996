"""Completions of held-out prompts, drawn as the evaluation loop asks for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from caopd.errors import ConfigError
from caopd.rollouts import Sampling
from caopd.types import AnswerOutcome, Example, VerifiedRollout


@dataclass(frozen=True)
class EvaluationConfig:
    """How held-out prompts are completed.

    Attributes:
        sampling: Greedy by default (temperature 0); ``max_new_tokens`` does not follow that of training.
        num_examples: How many of a split's examples are used, the first ones; None uses all.
        batch_size: Prompts completed at once in one process.
    """

    sampling: Sampling = field(default_factory=lambda: Sampling(temperature=0.0))
    num_examples: int | None = None
    batch_size: int = 256

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ConfigError(f"Expected `batch_size` of the evaluation to be at least 1, but got {self.batch_size}.")
        if self.num_examples is not None and self.num_examples < 1:
            raise ConfigError(f"Expected `num_examples` to be at least 1 or null, but got {self.num_examples}.")


@dataclass(frozen=True, slots=True)
class ScoredCompletion:
    """A held-out row and what the model made of it."""

    example: Example
    verified: VerifiedRollout


@dataclass(frozen=True)
class EvaluationBatch:
    """Completed and verified prompts.

    Attributes:
        completions: N of them.
    """

    completions: Sequence[ScoredCompletion]

    def to(self, device: torch.device | str, **arguments: Any) -> EvaluationBatch:  # noqa: ANN401 (Tensor.to's own)
        """Return the batch as it is: its tensors are made where they are asked for."""
        return self

    @property
    def confidence_N(self) -> Tensor:
        """Stated confidences, float32; NaN where none was stated."""
        values = [completion.verified.reading.value for completion in self.completions]
        return torch.tensor([torch.nan if value is None else value for value in values])

    @property
    def correct_N(self) -> Tensor:
        """Verdicts, bool."""
        return torch.tensor([completion.verified.verdict.correct for completion in self.completions], dtype=torch.bool)

    @property
    def answered_N(self) -> Tensor:
        """Whether an answer was parsed, bool."""
        outcomes = [completion.verified.verdict.outcome for completion in self.completions]
        return torch.tensor([outcome is AnswerOutcome.PARSED for outcome in outcomes], dtype=torch.bool)


class EvaluationBatches:
    """An iterable over a split that completes its prompts as it goes; every process takes its share.

    All processes yield equally many batches, as collective operations need; the last ones of some may be empty.

    Args:
        examples: The split.
        complete: Completes and verifies some examples.
        batch_size: Prompts at once in one process.
        rank: This process.
        world_size: Processes.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        complete: Callable[[Sequence[Example]], list[VerifiedRollout]],
        batch_size: int,
        rank: int,
        world_size: int,
    ) -> None:
        self._examples = examples
        self._complete = complete
        self._batch_size = batch_size
        self._rank = rank
        self._world_size = world_size

    def __len__(self) -> int:
        """Number of batches, the same in every process."""
        return -(-len(self._examples) // (self._batch_size * self._world_size))

    def __iter__(self) -> Iterator[EvaluationBatch]:
        """Complete and yield batch after batch."""
        step = self._batch_size * self._world_size
        for start in range(0, len(self._examples), step):
            first = start + self._rank * self._batch_size
            mine = self._examples[first : min(first + self._batch_size, start + step)]
            # Generation is collective when the model is sharded: every process completes as many prompts as the first
            # one, and forgets those beyond its own.
            num_completed = min(self._batch_size, len(self._examples) - start)
            filler = [self._examples[start]] * (num_completed - len(mine))
            verified = self._complete([*mine, *filler])
            yield EvaluationBatch([ScoredCompletion(e, v) for e, v in zip(mine, verified, strict=False)])
