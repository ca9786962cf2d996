"""What is reported of a set of completions, from counts alone: of one set or of many resamples at once.

Shapes: V distinct values; ``...`` is empty, or the resamples.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from caopd.metrics.functional.brier import brier_of_counts, murphy_of_counts
from caopd.metrics.functional.calibration_error import (
    adaptive_error_of_counts,
    equal_width_error_of_counts,
    unique_value_error_of_counts,
)
from caopd.metrics.functional.counts import ValueCounts
from caopd.metrics.functional.ranking import pairs_of_counts
from caopd.metrics.functional.selective import aurc_of_counts, selective_accuracy_of_counts
from caopd.metrics.functional.smooth import residuals_on_grid, smooth_error_of_residuals

COVERAGES = (0.5, 0.8, 0.9)
"""Coverages of the selective accuracy."""


class Counts(NamedTuple):
    """All that the measures need to know.

    Attributes:
        stated: Completions that state a confidence, by its value.
        missing: Completions that state none, float64 ``[...]``.
        missing_correct: Correct ones among them, ``[...]``.
        answer_known: Completions of which it is known whether an answer was parsed, ``[...]``.
        answered: Those with an answer, ``[...]``.
    """

    stated: ValueCounts
    missing: Tensor
    missing_correct: Tensor
    answer_known: Tensor
    answered: Tensor

    @property
    def n(self) -> Tensor:
        """All completions, ``[...]``."""
        return self.stated.total + self.missing

    @property
    def strict(self) -> ValueCounts:
        """All completions, a missing confidence taken as 0.0."""
        stated = self.stated
        return ValueCounts(
            torch.cat([stated.values.new_zeros(1), stated.values]),
            torch.cat([self.missing.unsqueeze(-1), stated.counts], -1),
            torch.cat([self.missing_correct.unsqueeze(-1), stated.correct], -1),
        )


def measures(counts: Counts) -> dict[str, Tensor]:
    """Every measure, float64 ``[...]`` each; NaN where it is undefined.

    Args:
        counts: Of one set, or of many.

    Example:
        >>> from caopd.metrics.functional.counts import value_counts
        >>> stated = value_counts(torch.tensor([0.5, 0.5, 1.0]), torch.tensor([True, False, True]))
        >>> one = torch.tensor(1.0, dtype=torch.float64)
        >>> found = measures(Counts(stated, missing=one, missing_correct=one, answer_known=4 * one, answered=3 * one))
        >>> [float(found[name]) for name in ("accuracy", "ece", "format_adherence", "answer_parse_rate")]
        [0.75, 0.0, 0.75, 0.75]
    """
    stated, strict = counts.stated, counts.strict
    pairs, parts = pairs_of_counts(stated), murphy_of_counts(stated)
    return {
        "accuracy": strict.correct.sum(-1) / counts.n,
        "ece": equal_width_error_of_counts(stated),
        "brier": brier_of_counts(stated),
        "ocg": stated.gap.sum(-1) / stated.total,
        "spr": pairs.strict_pairwise_ranking,
        "auroc": pairs.auroc,
        "tie_rate": pairs.tie_rate,
        "mean_confidence": _mean_confidence(stated),
        "format_adherence": stated.total / counts.n,
        "answer_parse_rate": counts.answered / counts.answer_known,
        "brier_reliability": parts.reliability,
        "brier_resolution": parts.resolution,
        "brier_uncertainty": parts.uncertainty,
        "adaptive_ece": adaptive_error_of_counts(stated),
        "unique_value_ece": unique_value_error_of_counts(stated),
        "smooth_ece": smooth_error_of_residuals(residuals_on_grid(stated), stated.total),
        "aurc": aurc_of_counts(stated),
        **{f"selective_accuracy_{c}": selective_accuracy_of_counts(stated, c) for c in COVERAGES},
        "ece_strict": equal_width_error_of_counts(strict),
        "brier_strict": brier_of_counts(strict),
        "ocg_strict": strict.gap.sum(-1) / counts.n,
        "mean_confidence_strict": _mean_confidence(strict),
    }


def completions_behind(name: str, counts: Counts) -> int:
    """Number of completions that a measure of one set runs over."""
    if name == "answer_parse_rate":
        return int(counts.answer_known)
    over_all = name in ("accuracy", "format_adherence") or name.endswith("_strict")
    return int(counts.n if over_all else counts.stated.total)


def _mean_confidence(counts: ValueCounts) -> Tensor:
    return (counts.counts * counts.values.to(torch.float64)).sum(-1) / counts.total
