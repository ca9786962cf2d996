"""Every headline number of an evaluation from one pass over the completions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from caopd.metrics.base import ConfidenceMetric, concatenated
from caopd.metrics.bins import ReliabilityBins
from caopd.metrics.functional.binning import BinSums, calibration_error_of_sums, equal_width_sums
from caopd.metrics.functional.brier import squared_error_sum
from caopd.metrics.functional.ranking import count_pairs
from caopd.metrics.functional.validation import (
    check_binary,
    check_confidence,
    check_n_bins,
    check_same_length,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class CalibrationMetrics(ConfidenceMetric):
    r"""Accuracy, calibration and ranking of stated confidences, with missing ones kept apart.

    A completion without a parsed confidence is *missing*, not zero. Headline metrics run over the completions
    that state a confidence and stand next to ``format_adherence``; the ``_strict`` ones take a missing
    confidence as 0.0, as the published evaluations do. ``accuracy`` is over all completions, while ``ece``,
    ``ocg`` and ``brier`` see the correctness of the parsed ones alone: ``ocg`` is ``mean_confidence`` minus
    the accuracy *among the parsed*.

    As input to ``forward`` and ``update`` the metric accepts:

    - ``confidence``: stated confidences, float tensor ``[N]`` in [0, 1]; NaN where none could be parsed.
    - ``correct``: verified correctness, tensor ``[N]`` of {0, 1}, bool, integer or float.
    - ``answered``: whether an answer could be parsed, tensor ``[N]`` of {0, 1}; None when it is not known.

    As output of ``forward`` and ``compute``: a dict of float64 scalars, ready to be logged.

    ================================ ========================================================================
    ``accuracy``                     share of correct completions, over all
    ``ece``, ``brier``, ``ocg``      expected calibration error, Brier score and signed gap, over the parsed
    ``spr``, ``auroc``, ``tie_rate`` ranking over (correct, wrong) pairs of parsed completions
    ``mean_confidence``              over the parsed
    ``format_adherence``             share of completions with a parsed confidence
    ``answer_parse_rate``            share of completions with a parsed answer, where ``answered`` was given
    ``ece_strict`` and so on         ``ece``, ``brier``, ``ocg``, ``mean_confidence`` over all, missing = 0.0
    ``n``, ``n_parsed``              completions, and those with a parsed confidence
    ================================ ========================================================================

    A value without completions behind it is NaN; ``spr``, ``auroc`` and ``tie_rate`` also where no parsed
    completion, or every one, is correct.

    Args:
        n_bins: Equal-width bins of the ECE.
        kwargs: Settings of :class:`torchmetrics.Metric`.

    Raises:
        ConfigError: ``n_bins`` is not an integer larger than 0.
        DataError: from ``update``, for wrong shapes, out-of-range confidences, or other values than 0 and 1.

    Example:
        >>> from torch import nan, tensor
        >>> metrics = CalibrationMetrics()
        >>> metrics.update(tensor([0.75, 0.5, nan, 0.5]), tensor([1, 0, 1, 1]), answered=tensor([1, 1, 1, 0]))
        >>> values = metrics.compute()
        >>> [float(values[k]) for k in ("accuracy", "format_adherence", "spr", "auroc", "answer_parse_rate")]
        [0.75, 0.75, 0.5, 0.75, 0.75]
        >>> [float(values[k]) for k in ("brier_strict", "mean_confidence_strict", "n", "n_parsed")]
        [0.390625, 0.4375, 4.0, 3.0]
    """

    plot_lower_bound = None
    plot_upper_bound = None

    n: Tensor
    n_correct: Tensor
    n_answer_known: Tensor
    n_answered: Tensor
    counts: Tensor
    confidence_sums: Tensor
    correct_sums: Tensor
    squared_error: Tensor
    of_correct: list[Tensor] | Tensor
    of_wrong: list[Tensor] | Tensor

    def __init__(self, n_bins: int = 10, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.n_bins = check_n_bins(n_bins)
        for name in ("n", "n_correct", "n_answer_known", "n_answered"):
            self.add_count(name)
        self.add_count("counts", n_bins)
        self.add_sum("confidence_sums", n_bins)
        self.add_count("correct_sums", n_bins)
        self.add_sum("squared_error")
        self.add_state("of_correct", [], dist_reduce_fx="cat")
        self.add_state("of_wrong", [], dist_reduce_fx="cat")

    def update(self, confidence: Tensor, correct: Tensor, answered: Tensor | None = None) -> None:
        """Add completions.

        Args:
            confidence: Stated confidences, float tensor ``[N]`` in [0, 1], NaN where missing.
            correct: Verified correctness, ``[N]`` of {0, 1}.
            answered: Whether an answer was parsed, ``[N]`` of {0, 1}; None leaves the batch out of
                ``answer_parse_rate``.
        """
        confidence = check_confidence(confidence, allow_missing=True)
        correct = check_binary("correct", correct)
        check_same_length("confidence", confidence, "correct", correct)
        if answered is not None:
            answered = check_binary("answered", answered)
            check_same_length("confidence", confidence, "answered", answered)
            self.n_answer_known = self.n_answer_known + answered.numel()
            self.n_answered = self.n_answered + answered.sum()
        self.n = self.n + correct.numel()
        self.n_correct = self.n_correct + correct.sum()
        parsed = ~confidence.isnan()
        self._update_parsed(confidence[parsed], correct[parsed])

    def compute(self) -> dict[str, Tensor]:
        """Return every metric of all completions so far, over all processes; the keys are listed above."""
        sums, strict = self._sums(), self._strict_sums()
        pairs = count_pairs(concatenated(self.of_correct, self.device), concatenated(self.of_wrong, self.device))
        # A quotient of integers would come out in float32.
        n, n_parsed = self.n.to(torch.float64), sums.counts.sum().to(torch.float64)
        # A missing confidence of 0.0 costs (0 - 1)^2 where the completion is correct.
        squared_error_strict = self.squared_error + self.n_correct - sums.correct.sum()
        return {
            "accuracy": self.n_correct / n,
            "ece": calibration_error_of_sums(sums),
            "brier": self.squared_error / n_parsed,
            "ocg": (sums.confidence.sum() - sums.correct.sum()) / n_parsed,
            "spr": pairs.strict_pairwise_ranking,
            "auroc": pairs.auroc,
            "tie_rate": pairs.tie_rate,
            "mean_confidence": sums.confidence.sum() / n_parsed,
            "format_adherence": n_parsed / n,
            "answer_parse_rate": self.n_answered.to(torch.float64) / self.n_answer_known,
            "ece_strict": calibration_error_of_sums(strict),
            "brier_strict": squared_error_strict / n,
            "ocg_strict": (strict.confidence.sum() - self.n_correct) / n,
            "mean_confidence_strict": strict.confidence.sum() / n,
            "n": n,
            "n_parsed": n_parsed,
        }

    def bins(self) -> ReliabilityBins:
        """Return the reliability bins of the parsed completions, over all processes.

        Every process must call it, as it must call ``compute``: the states are gathered.
        """
        with self.sync_context(
            dist_sync_fn=self.dist_sync_fn, should_sync=self._to_sync, should_unsync=self._should_unsync
        ):
            return ReliabilityBins.from_sums(self._sums())

    def plot(
        self,
        val: dict[str, Tensor] | Sequence[dict[str, Tensor]] | None = None,  # type: ignore[override]
        ax: Axes | None = None,
    ) -> tuple[Figure, Axes]:
        """Plot every rate and error, without the counts ``n`` and ``n_parsed``.

        Args:
            val: Result of ``forward`` or ``compute``, or a sequence of results; None computes it.
            ax: Matplotlib axes to draw into.

        Returns:
            Figure and axes.

        Raises:
            ModuleNotFoundError: matplotlib is not installed.
        """
        chosen = self.compute() if val is None else val
        shown = _without_counts(chosen) if isinstance(chosen, dict) else [_without_counts(one) for one in chosen]
        return cast("tuple[Figure, Axes]", self._plot(shown, ax))

    def _update_parsed(self, confidence: Tensor, correct: Tensor) -> None:
        sums = equal_width_sums(confidence, correct, self.n_bins)
        self.counts = self.counts + sums.counts
        self.confidence_sums = self.confidence_sums + sums.confidence
        self.correct_sums = self.correct_sums + sums.correct
        self.squared_error = self.squared_error + squared_error_sum(confidence, correct)
        confidence = confidence.to(torch.float64)
        self.of_correct = [*self.of_correct, confidence[correct]]
        self.of_wrong = [*self.of_wrong, confidence[~correct]]

    def _sums(self) -> BinSums:
        return BinSums(self.counts, self.confidence_sums, self.correct_sums)

    def _strict_sums(self) -> BinSums:
        """Sums with each missing confidence as 0.0, which falls in the first bin and adds no confidence."""
        first = torch.zeros_like(self.counts)
        first[0] = 1
        missing = self.n - self.counts.sum()
        missing_correct = self.n_correct - self.correct_sums.sum()
        return BinSums(self.counts + first * missing, self.confidence_sums, self.correct_sums + first * missing_correct)


def _without_counts(values: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in values.items() if key not in ("n", "n_parsed")}
