"""One part of a task's scores: the metrics of its completions, and how certain their calibration error is."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from caopd.metrics import CalibrationMetrics, ReliabilityBins
from caopd.metrics.base import ConfidenceMetric, concatenated
from caopd.metrics.catalogue import FLOOR, P_VALUE
from caopd.metrics.functional import CalibrationCertainty, calibration_certainty


class PartScores:
    """The metrics of one part, such as those of the greedy completions.

    Args:
        device: Device that the metrics' states are kept on.
        several: Whether a prompt may have several completions.
    """

    def __init__(self, device: torch.device, several: bool = False) -> None:
        self._device, self._several = device, several
        self._metrics = CalibrationMetrics().to(device)
        self._stated = StatedConfidences().to(device)
        self._certainty: CalibrationCertainty | None = None

    def update(self, confidence_N: Tensor, correct_N: Tensor, prompt_N: Tensor, *forms_N: Tensor) -> None:
        """Add completions of whole prompts, at least one.

        Args:
            confidence_N: Stated confidences, float32 ``[N]``; NaN where none is stated.
            correct_N: Verdicts, bool ``[N]``.
            prompt_N: Which prompt each completion answers, int64 ``[N]``, from 0 within these completions.
            forms_N: Further arguments of :meth:`caopd.metrics.CalibrationMetrics.update`.
        """
        columns = (confidence_N, correct_N, *forms_N)
        self._metrics.update(*(column_N.to(self._device) for column_N in columns))
        self._stated.update(confidence_N.to(self._device), correct_N.to(self._device), prompt_N.to(self._device))
        self._certainty = None

    def compute(self) -> dict[str, float]:
        """Return every metric and the certainty of the ECE, over all processes; a collective operation."""
        values = {name: float(value) for name, value in self._metrics.compute().items()}
        found = self.certainty()
        if self._several:  # that of the metrics takes completions of a prompt for independent
            values["debiased_ece"] = found.debiased
        return values | {
            "ece_low": found.low,
            "ece_high": found.high,
            FLOOR: found.floor,
            f"{FLOOR}_low": found.floor_low,
            f"{FLOOR}_high": found.floor_high,
            P_VALUE: found.p_value,
        }

    def bins(self) -> ReliabilityBins:
        """Return the reliability bins, over all processes; a collective operation."""
        return self._metrics.bins()

    def certainty(self) -> CalibrationCertainty:
        """Return how certain the ECE is, over all processes; a collective operation."""
        if self._certainty is None:
            confidence_N, correct_N, prompt_N = self._stated.compute()
            self._certainty = calibration_certainty(confidence_N, correct_N, prompt_N.to(torch.int64))
        return self._certainty


class StatedConfidences(ConfidenceMetric):
    """Keeps each stated confidence with its verdict, prompt by prompt: completions of a prompt depend on each other.

    Args:
        kwargs: Settings of :class:`torchmetrics.Metric`.
    """

    confidence: list[Tensor] | Tensor
    correct: list[Tensor] | Tensor
    sizes: list[Tensor] | Tensor

    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs)
        for name in ("confidence", "correct", "sizes"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, confidence: Tensor, correct: Tensor, prompt: Tensor) -> None:
        """Add completions of whole prompts; arguments as in :meth:`PartScores.update`."""
        order = prompt.argsort(stable=True)
        self.confidence = [*self.confidence, confidence[order].to(torch.float64)]
        self.correct = [*self.correct, correct[order].to(torch.float64)]
        self.sizes = [*self.sizes, prompt.bincount().to(torch.float64)]

    def compute(self) -> Tensor:
        """Return confidence, verdict and number of the prompt of each completion that states one, float64 ``[3, N]``.

        They are in an order of their values, so that batches and processes do not change what is computed from them.
        """
        columns = (concatenated(state, self.device) for state in (self.confidence, self.correct, self.sizes))
        confidence, correct, sizes = (column.tolist() for column in columns)
        prompts, start = [], 0
        for size in map(int, sizes):
            both = zip(confidence[start : start + size], correct[start : start + size], strict=True)
            prompts.append(sorted(pair for pair in both if not math.isnan(pair[0])))
            start += size
        rows = [(*pair, number) for number, pairs in enumerate(sorted(prompts)) for pair in pairs]
        return torch.tensor(rows, dtype=torch.float64).reshape(len(rows), 3).T
