"""Computes any metric of the catalogue from counts, of one set of completions or of many sets at once."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from typing import cast

from torch import Tensor

from caopd.metrics.catalogue import MetricSpec
from caopd.metrics.functional.counts import CompletionCounts, ShareCounts, ValueCounts


def evaluate(specs: Iterable[MetricSpec], counts: CompletionCounts) -> dict[str, Tensor]:
    """Compute metrics.

    Args:
        specs: The entries of the metrics.
        counts: The counts of one set of completions, or of many sets.

    Returns:
        Name -> value, float64 ``[...]``; NaN where it is undefined.

    Example:
        >>> import torch
        >>> from caopd.metrics.catalogue import CATALOGUE
        >>> from caopd.metrics.functional.counts import value_counts
        >>> stated = value_counts(torch.tensor([0.5, 0.5, 1.0]), torch.tensor([True, False, True]))
        >>> one = torch.tensor(1.0, dtype=torch.float64)
        >>> counts = CompletionCounts(stated, one, one, 4 * one, 3 * one, one, 4 * one, 2 * one, one)
        >>> found = evaluate(CATALOGUE.values(), counts)
        >>> [float(found[name]) for name in ("accuracy", "ece", "format_adherence", "answer_parse_rate")]
        [0.75, 0.0, 0.75, 0.75]
    """
    return {spec.name: value_of(spec, getattr(counts, spec.over)) for spec in specs}


def value_of(spec: MetricSpec, counts: ValueCounts | ShareCounts) -> Tensor:
    """Return one metric, given the counts that it runs over; float64 ``[...]``, NaN where it is undefined."""
    module, _, function = spec.function.rpartition(".")
    found = vars(import_module(f"caopd.metrics.functional.{module}"))[function]
    return cast("Tensor", found(counts, *spec.arguments))
