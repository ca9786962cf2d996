"""The metrics of an evaluation: those of every task, of one completion per prompt and of several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torchmetrics import SumMetric

from caopd.evaluation.batches import EvaluationBatch
from caopd.evaluation.vote import vote
from caopd.metrics import CalibrationMetrics, PassAtK
from caopd.types import VerifiedRollout, verdicts_of

NO_VERDICT = "n_no_verdict"
"""Name of the number of completions without a verdict, which no metric counts."""
Parts = Mapping[str, Mapping[str, float]]
"""Part of a task's scores (``greedy``, ``sampled``, ``vote``, ``vote_stated``) -> metric -> value."""


class SetScores:
    """The metrics of one set of prompts.

    Args:
        device: Device that the metrics' states are kept on.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.greedy = CalibrationMetrics().to(device)
        self._unjudged = SumMetric().to(device)
        self.sampled: SampledScores | None = None

    def update(self, batch: EvaluationBatch) -> None:
        """Add a batch; a batch without completions only tells which parts there will be."""
        if batch.num_samples is None:
            _add(self.greedy, self._unjudged, batch, self._device)
            return
        if self.sampled is None:
            self.sampled = SampledScores(batch.num_samples, self._device)
        self.sampled.update(batch)

    def compute(self) -> dict[str, dict[str, float]]:
        """Return every part's metrics, over all processes; a collective operation."""
        parts = {"greedy": _values(self.greedy, self._unjudged)}
        return parts if self.sampled is None else parts | self.sampled.compute()


class SampledScores:
    """The metrics where several completions of each prompt are sampled.

    ``sampled`` is over all completions, each with the confidence that it states, with pass@k beside it. ``vote`` is
    over prompts: the majority's answer, with the share that agrees as its confidence. ``vote_stated`` judges the same
    answers, with the mean confidence that the agreeing completions state: the two confidences can be compared.

    A completion without a verdict has no vote, and its prompt is left out of pass@k, which is of N completions.

    Args:
        num_samples: N, the number of completions per prompt.
        device: Device that the metrics' states are kept on.
    """

    def __init__(self, num_samples: int, device: torch.device) -> None:
        self._device = device
        self._sampled, self._vote, self._stated = (CalibrationMetrics().to(device) for _ in range(3))
        self._pass_at_k = PassAtK(num_samples).to(device)
        self._unjudged = SumMetric().to(device)
        self._num_samples = num_samples

    def update(self, batch: EvaluationBatch) -> None:
        """Add a batch of whole prompts."""
        device = self._device
        _add(self._sampled, self._unjudged, batch, device)
        groups = [group for group in batch.groups if group]
        if not groups:
            return
        whole = [_num_correct(group) for group in groups if len(group) == self._num_samples]
        self._pass_at_k.update(torch.tensor(whole, dtype=torch.long, device=device))
        votes = [vote(group) for group in groups]
        correct_P = torch.tensor([each.correct for each in votes], device=device)
        answered_P = torch.tensor([each.answer is not None for each in votes], device=device)
        agreement_P = _confidences([each.agreement for each in votes], device)
        self._vote.update(agreement_P, correct_P, answered_P)
        self._stated.update(_confidences([each.stated for each in votes], device), correct_P, answered_P)

    def compute(self) -> dict[str, dict[str, float]]:
        """Return every part's metrics, over all processes; a collective operation."""
        return {
            "sampled": _values(self._sampled, self._unjudged) | _floats(self._pass_at_k.compute()),
            "vote": _floats(self._vote.compute()),
            "vote_stated": _floats(self._stated.compute()),
        }


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
        """Return every value under the name it is logged by: ``ece``, ``chemistry/ece``, ``chemistry/vote/ece``."""
        in_domain, named = self.compute()
        values = _flat("", in_domain)
        for name, parts in named.items():
            values |= _flat(f"{name}/", parts)
        return values


def _flat(prefix: str, parts: Parts) -> dict[str, float]:
    return {
        f"{prefix}{'' if part == 'greedy' else f'{part}/'}{metric}": value
        for part, metrics in parts.items()
        for metric, value in metrics.items()
    }


def _add(metrics: CalibrationMetrics, unjudged: SumMetric, batch: EvaluationBatch, device: torch.device) -> None:
    unjudged.update(batch.num_unjudged)
    if len(batch.correct_N):
        columns = (batch.answered_N, batch.stated_otherwise_N, batch.answered_otherwise_N)
        metrics.update(
            batch.confidence_N.to(device), batch.correct_N.to(device), *(each.to(device) for each in columns)
        )


def _values(metrics: CalibrationMetrics, unjudged: SumMetric) -> dict[str, float]:
    return {**_floats(metrics.compute()), NO_VERDICT: float(unjudged.compute())}


def _num_correct(group: Sequence[VerifiedRollout]) -> int:
    return sum(verdict.correct for verdict in verdicts_of(group))


def _confidences(values: Sequence[float | None], device: torch.device) -> Tensor:
    return torch.tensor([torch.nan if value is None else value for value in values], device=device)


def _floats(values: Mapping[str, Tensor]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items()}
