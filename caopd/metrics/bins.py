"""Reliability bins as plain data, for tables, plots and JSON."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from caopd.errors import DataError
from caopd.metrics.functional.binning import equal_width_bins
from caopd.metrics.functional.counts import ValueCounts, value_counts
from caopd.metrics.functional.validation import check_n_bins, check_pair


@dataclass(frozen=True, slots=True)
class ReliabilityBins:
    """What a reliability diagram shows: completions, confidence and accuracy per equal-width bin.

    Attributes:
        edges: M+1 edges from 0 to 1; bins are left-closed, the last one is closed.
        counts: Completions per bin, M.
        mean_confidence: Mean stated confidence per bin, M; NaN where a bin is empty.
        accuracy: Share of correct completions per bin, M; NaN where a bin is empty.

    Raises:
        DataError: the lengths do not fit together.

    Example:
        >>> bins = ReliabilityBins((0.0, 0.5, 1.0), (1, 3), (0.25, 1.0), (0.0, 0.5))
        >>> bins.gap
        (0.25, 0.5)
        >>> bins.ece, bins.ocg
        (0.4375, 0.4375)
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    mean_confidence: tuple[float, ...]
    accuracy: tuple[float, ...]

    def __post_init__(self) -> None:
        per_bin = (len(self.counts), len(self.mean_confidence), len(self.accuracy))
        if {*per_bin, len(self.edges) - 1} != {len(self.counts)} or not self.counts:
            raise DataError(
                "Expected M+1 `edges` for M >= 1 `counts`, `mean_confidence` and `accuracy`, but got "
                f"{len(self.edges)} for {per_bin}."
            )

    @classmethod
    def from_counts(cls, counts: ValueCounts, n_bins: int = 10) -> ReliabilityBins:
        """Put the values of one set of completions into bins.

        Args:
            counts: Counts per value, ``[V]`` each.
            n_bins: M, the number of bins.

        Returns:
            The bins, as Python numbers.

        Example:
            >>> import torch
            >>> from caopd.metrics.functional.counts import value_counts
            >>> counts = value_counts(torch.tensor([0.5, 1.0]), torch.tensor([True, False]))
            >>> bins = ReliabilityBins.from_counts(counts, n_bins=2)
            >>> bins.counts, bins.mean_confidence, bins.accuracy
            ((0, 2), (nan, 0.75), (nan, 0.5))
        """
        bin_V, zeros_M = equal_width_bins(counts.values, n_bins), counts.counts.new_zeros(n_bins)
        columns = (counts.counts, counts.counts * counts.values.to(zeros_M.dtype), counts.correct)
        total, confidence, correct = (zeros_M.index_add(0, bin_V, column).tolist() for column in columns)
        return cls(
            edges=tuple(k / n_bins for k in range(n_bins + 1)),
            counts=tuple(map(int, total)),
            mean_confidence=_divide(confidence, total),
            accuracy=_divide(correct, total),
        )

    @property
    def n_completions(self) -> int:
        """Number of completions in all bins."""
        return sum(self.counts)

    @property
    def gap(self) -> tuple[float, ...]:
        """Mean confidence minus accuracy per bin, M: positive where overconfident, NaN where empty."""
        return tuple(q - r for q, r in zip(self.mean_confidence, self.accuracy, strict=True))

    @property
    def ece(self) -> float:
        """Expected calibration error: the mean of ``|gap|`` over completions; NaN without completions."""
        return self._mean_over_completions(tuple(abs(gap) for gap in self.gap))

    @property
    def ocg(self) -> float:
        """Overconfidence gap: mean confidence minus accuracy over completions; NaN without completions."""
        return self.overall_confidence - self.overall_accuracy

    @property
    def overall_confidence(self) -> float:
        """Mean confidence over completions; NaN without completions."""
        return self._mean_over_completions(self.mean_confidence)

    @property
    def overall_accuracy(self) -> float:
        """Accuracy over completions; NaN without completions."""
        return self._mean_over_completions(self.accuracy)

    def _mean_over_completions(self, per_bin: tuple[float, ...]) -> float:
        if self.n_completions == 0:
            return math.nan
        filled = [(count, value) for count, value in zip(self.counts, per_bin, strict=True) if count]
        return math.fsum(count * value for count, value in filled) / self.n_completions


def reliability_bins(confidence: Tensor, correct: Tensor, n_bins: int = 10) -> ReliabilityBins:
    """Return the reliability bins of one set of completions, with the edges of the expected calibration error.

    Args:
        confidence: Stated confidences, float tensor ``[N]`` in [0, 1].
        correct: Verified correctness, ``[N]`` of {0, 1}.
        n_bins: M, the number of bins.

    Returns:
        The bins, as Python numbers.

    Raises:
        ConfigError: ``n_bins`` is not an integer larger than 0.
        DataError: wrong shapes, NaN or out-of-range confidences, or other values of ``correct``.

    Example:
        >>> import torch
        >>> bins = reliability_bins(torch.tensor([0.25, 0.5, 1.0]), torch.tensor([0, 1, 1]), n_bins=2)
        >>> bins.counts, bins.mean_confidence, bins.accuracy, bins.ece
        ((1, 2), (0.25, 0.75), (0.0, 1.0), 0.25)
    """
    check_n_bins(n_bins)
    return ReliabilityBins.from_counts(value_counts(*check_pair(confidence, correct)), n_bins)


def _divide(sums: list[float], counts: list[float]) -> tuple[float, ...]:
    return tuple(total / count if count else math.nan for total, count in zip(sums, counts, strict=True))
