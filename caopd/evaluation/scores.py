"""The metrics of an evaluation: those of every task, each of the greedy event and of the sampled one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor
from torchmetrics import SumMetric

from caopd.evaluation.batches import EvaluationBatch, EventCompletions
from caopd.evaluation.events import Event
from caopd.evaluation.part import PartScores
from caopd.evaluation.vote import vote
from caopd.metrics import PassAtK
from caopd.types import VerifiedRollout, verdicts_of

NO_VERDICT = "n_no_verdict"
"""Name of the number of completions without a verdict, which no metric counts."""
Parts = Mapping[str, Mapping[str, float]]
"""Part of a task's scores (``greedy``, ``sampled``, ``vote``, ``vote_stated``) -> metric -> value."""


class SetScores:
    """The metrics of one set of prompts, event by event.

    Args:
        device: Device that the metrics' states are kept on.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.events: dict[str, EventScores] = {}

    def update(self, batch: EvaluationBatch) -> None:
        """Add a batch; a batch without completions only tells which events there are."""
        for name, completed in batch.events.items():
            if name not in self.events:
                self.events[name] = EventScores(completed.event, self._device)
            self.events[name].update(completed)

    def compute(self) -> dict[str, dict[str, float]]:
        """Return every part's metrics, over all processes; a collective operation."""
        parts: dict[str, dict[str, float]] = {}
        for scores in self.events.values():
            parts |= scores.compute()
        return parts


class EventScores:
    """The metrics of one event: of all completions, each with the confidence that it states.

    Args:
        event: The event; several completions of each prompt make it a vote as well.
        device: Device that the metrics' states are kept on.
    """

    def __init__(self, event: Event, device: torch.device) -> None:
        self._event = event
        self.part = PartScores(device, several=event.num_samples > 1)
        self._unjudged = SumMetric().to(device)
        self._several = SeveralScores(event.num_samples, device) if event.num_samples > 1 else None

    def update(self, completed: EventCompletions) -> None:
        """Add completions of whole prompts."""
        self._unjudged.update(completed.num_unjudged)
        if len(completed.correct_N):
            forms = (completed.answered_N, completed.stated_otherwise_N, completed.answered_otherwise_N)
            self.part.update(completed.confidence_N, completed.correct_N, completed.prompt_N, *forms)
        if self._several is not None:
            self._several.update(completed)

    def compute(self) -> dict[str, dict[str, float]]:
        """Return every part's metrics, over all processes; a collective operation."""
        own = {**self.part.compute(), NO_VERDICT: float(self._unjudged.compute())}
        if self._several is None:
            return {self._event.name: own}
        pass_at_k, votes = self._several.compute()
        return {self._event.name: own | pass_at_k, **votes}


class SeveralScores:
    """What several completions of each prompt add to their own metrics: pass@k, and a vote.

    ``vote`` is over prompts: the majority's answer, with the share that agrees as its confidence. ``vote_stated``
    judges the same answers, with the mean confidence that the agreeing completions state: the two confidences can be
    compared.

    A completion without a verdict has no vote, and its prompt is left out of pass@k, which is of N completions.

    Args:
        num_samples: N, the number of completions per prompt.
        device: Device that the metrics' states are kept on.
    """

    def __init__(self, num_samples: int, device: torch.device) -> None:
        self._device = device
        self._vote, self._stated = PartScores(device), PartScores(device)
        self._pass_at_k = PassAtK(num_samples).to(device)
        self._num_samples = num_samples

    def update(self, completed: EventCompletions) -> None:
        """Add completions of whole prompts."""
        device = self._device
        groups = [group for group in completed.groups if group]
        if not groups:
            return
        whole = [_num_correct(group) for group in groups if len(group) == self._num_samples]
        self._pass_at_k.update(torch.tensor(whole, dtype=torch.long, device=device))
        votes = [vote(group) for group in groups]
        correct_P = torch.tensor([each.correct for each in votes])
        answered_P = torch.tensor([each.answer is not None for each in votes])
        agreement_P = _confidences(each.agreement for each in votes)
        stated_P = _confidences(each.stated for each in votes)
        for part, confidence_P in ((self._vote, agreement_P), (self._stated, stated_P)):
            part.update(confidence_P, correct_P, torch.arange(len(votes)), answered_P)

    def compute(self) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
        """Return pass@k, and the metrics of both parts of the vote; a collective operation."""
        pass_at_k = {name: float(value) for name, value in self._pass_at_k.compute().items()}
        return pass_at_k, {"vote": self._vote.compute(), "vote_stated": self._stated.compute()}


class EvaluationScores:
    """The metrics of an evaluation: of all prompts of the tasks that are trained on, and of every named task.

    Args:
        device: Device that the metrics' states are kept on.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.in_domain = SetScores(device)
        self.named: dict[str, SetScores] = {}

    def update(self, batch: EvaluationBatch) -> None:
        """Add a batch to the scores that it counts for: every process calls it for the same tasks in the same order."""
        if batch.in_domain:
            self.in_domain.update(batch)
        if batch.task:
            if batch.task not in self.named:
                self.named[batch.task] = SetScores(self._device)
            self.named[batch.task].update(batch)

    def compute(self) -> tuple[Parts, dict[str, Parts]]:
        """Return the parts of the tasks that are trained on, and those of each named task; a collective operation."""
        return self.in_domain.compute(), {name: scores.compute() for name, scores in self.named.items()}

    def flat(self) -> dict[str, float]:
        """Return every value under the name it is logged by: ``greedy/ece``, ``chemistry/sampled/ece``."""
        in_domain, named = self.compute()
        values = _flat("", in_domain)
        for name, parts in named.items():
            values |= _flat(f"{name}/", parts)
        return values


def _flat(prefix: str, parts: Parts) -> dict[str, float]:
    return {f"{prefix}{part}/{name}": value for part, metrics in parts.items() for name, value in metrics.items()}


def _num_correct(group: Sequence[VerifiedRollout]) -> int:
    return sum(verdict.correct for verdict in verdicts_of(group))


def _confidences(values: Iterable[float | None]) -> Tensor:
    return torch.tensor([torch.nan if value is None else value for value in values])
