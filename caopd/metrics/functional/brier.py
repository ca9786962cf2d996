"""The Brier score and Murphy's decomposition of it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from caopd.metrics.functional.counts import ValueCounts, value_counts
from caopd.metrics.functional.means import accuracy_of_counts
from caopd.metrics.functional.validation import check_pair


class MurphyDecomposition(NamedTuple):
    """The three parts of the Brier score: ``reliability - resolution + uncertainty``.

    Attributes:
        reliability: Squared miscalibration, lower is better; float64 scalar.
        resolution: How far the accuracies of the stated values lie apart, higher is better; float64 scalar.
        uncertainty: Variance of correctness, a property of the accuracy alone; float64 scalar.
    """

    reliability: Tensor
    resolution: Tensor
    uncertainty: Tensor


def brier_score(confidence: Tensor, correct: Tensor) -> Tensor:
    r"""Brier score of the stated confidences.

    .. math::
        \text{Brier} = \frac{1}{N} \sum_{i=1}^{N} (q_i - r_i)^2

    with confidence :math:`q_i` and correctness :math:`r_i`.

    Args:
        confidence: Stated confidences, float tensor ``[N]`` in [0, 1].
        correct: Verified correctness, ``[N]`` of {0, 1}.

    Returns:
        float64 scalar in [0, 1]; NaN without completions.

    Raises:
        DataError: wrong shapes, NaN or out-of-range confidences, or other values of ``correct``.

    Source:
        Brier 1950.

    Example:
        >>> brier_score(torch.tensor([0.5, 1.0]), torch.tensor([1, 0]))
        tensor(0.6250, dtype=torch.float64)
    """
    return brier_of_counts(value_counts(*check_pair(confidence, correct)))


def murphy_decomposition(confidence: Tensor, correct: Tensor) -> MurphyDecomposition:
    r"""Murphy's decomposition of the Brier score, grouped by unique stated value.

    .. math::
        \text{Brier} = \underbrace{\sum_v \frac{n_v}{N} (v - \bar r_v)^2}_{\text{reliability}}
        - \underbrace{\sum_v \frac{n_v}{N} (\bar r_v - \bar r)^2}_{\text{resolution}}
        + \underbrace{\bar r (1 - \bar r)}_{\text{uncertainty}}

    with :math:`n_v` completions that state :math:`v`, their accuracy :math:`\bar r_v` and the accuracy
    :math:`\bar r` of all. Grouping by value makes the identity exact; with bins a within-bin term would
    remain.

    Args:
        confidence: Stated confidences, float tensor ``[N]`` in [0, 1].
        correct: Verified correctness, ``[N]`` of {0, 1}.

    Returns:
        Three float64 scalars; NaN without completions.

    Raises:
        DataError: wrong shapes, NaN or out-of-range confidences, or other values of ``correct``.

    Source:
        Murphy 1973, "A new vector partition of the probability score".

    Example:
        0.5 is stated twice and right once; 1.0 is stated twice and right twice; the accuracy is 0.75.

        >>> parts = murphy_decomposition(torch.tensor([0.5, 0.5, 1.0, 1.0]), torch.tensor([1, 0, 1, 1]))
        >>> [float(part) for part in parts]
        [0.0, 0.0625, 0.1875]
    """
    counts = value_counts(*check_pair(confidence, correct))
    return MurphyDecomposition(
        reliability_of_counts(counts), resolution_of_counts(counts), uncertainty_of_counts(counts)
    )


def brier_of_counts(counts: ValueCounts) -> Tensor:
    """:func:`brier_score` of counts; float64 ``[...]``, NaN without completions.

    Example:
        >>> brier_of_counts(value_counts(torch.tensor([0.5, 1.0]), torch.tensor([True, False])))
        tensor(0.6250, dtype=torch.float64)
    """
    values = counts.values.to(torch.float64)
    error = counts.counts * values.square() + counts.correct * (1 - 2 * values)
    return error.sum(-1) / counts.total


def reliability_of_counts(counts: ValueCounts) -> Tensor:
    """Reliability of :func:`murphy_decomposition` of counts; float64 ``[...]``, NaN without completions.

    Example:
        >>> reliability_of_counts(value_counts(torch.tensor([0.5, 1.0]), torch.tensor([True, False])))
        tensor(0.6250, dtype=torch.float64)
    """
    gap_V = counts.values.to(torch.float64) - counts.accuracy
    return (counts.counts * gap_V.square()).sum(-1) / counts.total


def resolution_of_counts(counts: ValueCounts) -> Tensor:
    """Resolution of :func:`murphy_decomposition` of counts; float64 ``[...]``, NaN without completions.

    Example:
        >>> resolution_of_counts(value_counts(torch.tensor([0.5, 1.0]), torch.tensor([True, False])))
        tensor(0.2500, dtype=torch.float64)
    """
    distance_V = counts.accuracy - accuracy_of_counts(counts).unsqueeze(-1)
    return (counts.counts * distance_V.square()).sum(-1) / counts.total


def uncertainty_of_counts(counts: ValueCounts) -> Tensor:
    """Uncertainty of :func:`murphy_decomposition` of counts; float64 ``[...]``, NaN without completions.

    Example:
        >>> uncertainty_of_counts(value_counts(torch.tensor([0.5, 1.0]), torch.tensor([True, False])))
        tensor(0.2500, dtype=torch.float64)
    """
    accuracy = accuracy_of_counts(counts)
    return accuracy * (1 - accuracy)
