"""All metrics that validations and tests log, from one pass over the completions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from caopd.metrics.base import CountedMetric
from caopd.metrics.catalogue import logged
from caopd.metrics.engine import evaluate
from caopd.metrics.functional.counts import CompletionCounts
from caopd.metrics.functional.validation import check_binary, check_confidence, check_same_length

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class CalibrationMetrics(CountedMetric):
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
    - ``stated_otherwise``: whether the confidence is stated in another form than the one asked for, likewise.
    - ``answered_otherwise``: whether the answer is in another form than the one asked for, likewise.

    As output of ``forward`` and ``compute``: a dict of float64 scalars, ready to be logged: the metrics that
    :mod:`caopd.metrics.catalogue` marks as logged, and the numbers ``n`` of completions and ``n_parsed`` of those
    with a parsed confidence.

    A value that no completion contributes to is NaN; ``spr``, ``auroc`` and ``tie_rate`` also where no parsed
    completion, or every one, is correct.

    Args:
        kwargs: Settings of :class:`torchmetrics.Metric`.

    Raises:
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

    n_missing: Tensor
    n_missing_correct: Tensor
    n_answer_known: Tensor
    n_answered: Tensor
    n_answered_otherwise: Tensor
    n_form_known: Tensor
    n_asked_form: Tensor
    n_other_form: Tensor

    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs)
        for name in _COUNTS:
            self.add_count(name)

    def update(
        self,
        confidence: Tensor,
        correct: Tensor,
        answered: Tensor | None = None,
        stated_otherwise: Tensor | None = None,
        answered_otherwise: Tensor | None = None,
    ) -> None:
        """Add completions.

        Args:
            confidence: Stated confidences, float tensor ``[N]`` in [0, 1], NaN where missing.
            correct: Verified correctness, ``[N]`` of {0, 1}.
            answered: Whether an answer was parsed, ``[N]`` of {0, 1}; None leaves the batch out of
                ``answer_parse_rate``.
            stated_otherwise: Whether a confidence is stated in another form than the one asked for, ``[N]`` of {0, 1};
                None leaves the batch out of ``decimal_format`` and ``other_form``.
            answered_otherwise: Whether an answer is in another form than the one asked for, ``[N]`` of {0, 1}; None
                takes every answer for one in the form asked for.
        """
        confidence = check_confidence(confidence, allow_missing=True)
        correct = check_binary("correct", correct)
        check_same_length("confidence", confidence, "correct", correct)
        if answered is not None:
            answered = check_binary("answered", answered)
            check_same_length("confidence", confidence, "answered", answered)
            self.n_answer_known = self.n_answer_known + answered.numel()
            self.n_answered = self.n_answered + answered.sum()
        if answered_otherwise is not None:
            answered_otherwise = check_binary("answered_otherwise", answered_otherwise)
            check_same_length("confidence", confidence, "answered_otherwise", answered_otherwise)
            self.n_answered_otherwise = self.n_answered_otherwise + answered_otherwise.sum()
        missing = confidence.isnan()
        if stated_otherwise is not None:
            otherwise = check_binary("stated_otherwise", stated_otherwise)
            check_same_length("confidence", confidence, "stated_otherwise", otherwise)
            self.n_form_known = self.n_form_known + otherwise.numel()
            self.n_other_form = self.n_other_form + (otherwise & ~missing).sum()
            self.n_asked_form = self.n_asked_form + (~otherwise & ~missing).sum()
        self.n_missing = self.n_missing + missing.sum()
        self.n_missing_correct = self.n_missing_correct + (missing & correct).sum()
        self._add(confidence[~missing], correct[~missing])

    def compute(self) -> dict[str, Tensor]:
        """Return every metric of all completions so far, over all processes."""
        counts = CompletionCounts(self.stated(), *(getattr(self, name).to(torch.float64) for name in _COUNTS))
        return {**evaluate(logged(), counts), "n": counts.n, "n_parsed": counts.stated.total}

    def plot(
        self,
        val: dict[str, Tensor] | Sequence[dict[str, Tensor]] | None = None,  # type: ignore[override]
        ax: Axes | None = None,
    ) -> tuple[Figure, Axes]:
        """Plot every rate and error, without the counts ``n`` and ``n_parsed``.

        Args:
            val: Result of ``forward`` or ``compute``, or a sequence of results; None computes it.
            ax: Matplotlib axes to plot into.

        Returns:
            Figure and axes.

        Raises:
            ModuleNotFoundError: matplotlib is not installed.
        """
        chosen = self.compute() if val is None else val
        shown = _without_counts(chosen) if isinstance(chosen, dict) else [_without_counts(one) for one in chosen]
        return cast("tuple[Figure, Axes]", self._plot(shown, ax))


_COUNTS = (
    "n_missing",
    "n_missing_correct",
    "n_answer_known",
    "n_answered",
    "n_answered_otherwise",
    "n_form_known",
    "n_asked_form",
    "n_other_form",
)
"""The counts that are states, in the order of :class:`CompletionCounts`."""


def _without_counts(values: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in values.items() if key not in ("n", "n_parsed")}
