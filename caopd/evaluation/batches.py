"""Completions of held-out prompts, sampled as the evaluation loop asks for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from caopd.evaluation.events import Event
from caopd.types import ConfidenceReading, Example, Form, Verdict, VerifiedRollout


@dataclass(frozen=True, slots=True)
class ScoredCompletion:
    """A held-out row and what the model made of it."""

    example: Example
    verified: VerifiedRollout


@dataclass(frozen=True)
class EventCompletions:
    """The completions of some prompts that one event is about, verified.

    Attributes:
        event: The event, which says how they were drawn.
        completions: N completions with their rows, prompt by prompt.
    """

    event: Event
    completions: Sequence[ScoredCompletion]

    @property
    def groups(self) -> list[list[VerifiedRollout]]:
        """The completions that have a verdict, grouped by prompt."""
        size = self.event.num_samples
        every = [completion.verified for completion in self.completions]
        groups = [every[start : start + size] for start in range(0, len(every), size)]
        return [[verified for verified in group if verified.verdict is not None] for group in groups]

    @property
    def num_unjudged(self) -> int:
        """Number of completions without a verdict, which are in no metric."""
        return len(self.completions) - len(self._judged)

    @property
    def confidence_N(self) -> Tensor:
        """The stated confidences of the completions that have a verdict, float32; NaN where none was stated."""
        values = [reading.value for reading, _ in self._judged]
        return torch.tensor([torch.nan if value is None else value for value in values], dtype=torch.float32)

    @property
    def correct_N(self) -> Tensor:
        """The verdicts, bool."""
        return torch.tensor([verdict.correct for _, verdict in self._judged], dtype=torch.bool)

    @property
    def prompt_N(self) -> Tensor:
        """Which of the prompts each completes, int64, from 0."""
        sizes = torch.tensor([len(group) for group in self.groups])
        return torch.arange(len(sizes)).repeat_interleave(sizes)

    @property
    def answered_N(self) -> Tensor:
        """Whether an answer was read, in whatever form, bool."""
        return torch.tensor([verdict.outcome.form is not Form.NONE for _, verdict in self._judged], dtype=torch.bool)

    @property
    def answered_otherwise_N(self) -> Tensor:
        """Whether an answer was read that is not in the form asked for, bool."""
        return torch.tensor([verdict.outcome.form is Form.OTHER for _, verdict in self._judged], dtype=torch.bool)

    @property
    def stated_otherwise_N(self) -> Tensor:
        """Whether a confidence is stated, but not in the form asked for, bool."""
        return torch.tensor([reading.outcome.form is Form.OTHER for reading, _ in self._judged], dtype=torch.bool)

    @property
    def _judged(self) -> list[tuple[ConfidenceReading, Verdict]]:
        every = (completion.verified for completion in self.completions)
        return [(verified.reading, verified.verdict) for verified in every if verified.verdict is not None]


@dataclass(frozen=True)
class EvaluationBatch:
    """Some prompts of one task with their completions: every event is about the same prompts.

    Attributes:
        events: Name of the event (``greedy``, ``sampled``) -> its completions.
        task: Name of the task that the prompts belong to; empty where a single task is trained on and this is it.
        in_domain: Whether that task is one that is trained on, so that the batch counts for the metrics without a
            task's name.
    """

    events: Mapping[str, EventCompletions]
    task: str = ""
    in_domain: bool = True

    def to(self, device: torch.device | str, **arguments: Any) -> EvaluationBatch:  # noqa: ANN401 (Tensor.to's own)
        """Return the batch as it is: it holds no tensors, and makes them where they are asked for."""
        return self


@dataclass(frozen=True)
class EvaluationPass:
    """One way through one task's held-out prompts.

    Attributes:
        examples: The held-out examples.
        complete: Completes some examples as an event asks, verifies this, and returns the completions of each example.
        events: The events.
        task: Name of the task, as in :class:`EvaluationBatch`.
        in_domain: Whether the task is trained on, as in :class:`EvaluationBatch`.
    """

    examples: Sequence[Example]
    complete: Callable[[Sequence[Example], Event], Sequence[Sequence[VerifiedRollout]]]
    events: Sequence[Event]
    task: str = ""
    in_domain: bool = True

    def batch(self, examples: Sequence[Example], num_kept: int) -> EvaluationBatch:
        """Complete some examples, and return a batch of the first ``num_kept`` of them."""
        events = {}
        for event in self.events:
            completed = zip(examples[:num_kept], self.complete(examples, event), strict=False)
            completions = [ScoredCompletion(example, verified) for example, group in completed for verified in group]
            events[event.name] = EventCompletions(event, completions)
        return EvaluationBatch(events, self.task, self.in_domain)


class EvaluationBatches:
    """Iterates over one pass after the other, completing prompts as it goes; every process takes its share.

    All processes yield equally many batches, as collective operations need; the last ones of some may be empty.

    Args:
        passes: The passes: which prompts, and how they are completed.
        batch_size: Prompts that one process completes at once.
        rank: Number of this process.
        world_size: Number of processes.
        on_end: Called when the last batch is complete, before it is yielded: no further batch is asked for.
    """

    def __init__(
        self,
        passes: Sequence[EvaluationPass],
        batch_size: int,
        rank: int,
        world_size: int,
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        self._passes = passes
        self._batch_size = batch_size
        self._rank = rank
        self._world_size = world_size
        self._on_end = on_end

    def __len__(self) -> int:
        """Number of batches, the same in every process."""
        return sum(-(-len(each.examples) // (self._batch_size * self._world_size)) for each in self._passes)

    @property
    def num_events(self) -> int:
        """Number of events that every prompt is completed for."""
        return max((len(each.events) for each in self._passes), default=1)

    @property
    def num_completions(self) -> int:
        """Number of completions of all processes, of all passes and events."""
        return sum(len(each.examples) * sum(event.num_samples for event in each.events) for each in self._passes)

    def __iter__(self) -> Iterator[EvaluationBatch]:
        """Complete and yield batch after batch."""
        last = len(self) - 1
        for index, batch in enumerate(chain.from_iterable(map(self._batches, self._passes))):
            if index == last:
                self._on_end()
            yield batch

    def _batches(self, each: EvaluationPass) -> Iterator[EvaluationBatch]:
        step = self._batch_size * self._world_size
        for start in range(0, len(each.examples), step):
            first = start + self._rank * self._batch_size
            mine = each.examples[first : min(first + self._batch_size, start + step)]
            # Generation is collective when the model is sharded: every process completes as many prompts as the first
            # one, and forgets those beyond its own.
            num_completed = min(self._batch_size, len(each.examples) - start)
            filler = [each.examples[start]] * (num_completed - len(mine))
            yield each.batch([*mine, *filler], len(mine))
