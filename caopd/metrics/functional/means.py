"""Accuracy, mean confidence, the signed gap between them, and plain shares."""

from __future__ import annotations

import torch
from torch import Tensor

from caopd.metrics.functional.counts import ShareCounts, ValueCounts, value_counts
from caopd.metrics.functional.validation import check_binary, check_confidence, check_pair


def accuracy(correct: Tensor) -> Tensor:
    """Share of correct completions.

    Args:
        correct: Verified correctness, ``[N]`` of {0, 1}.

    Returns:
        float64 scalar in [0, 1]; NaN without completions.

    Raises:
        DataError: wrong shape, or another value than 0 and 1.

    Example:
        >>> accuracy(torch.tensor([1, 0, 1, 1]))
        tensor(0.7500, dtype=torch.float64)
    """
    return check_binary("correct", correct).to(torch.float64).mean()


def mean_confidence(confidence: Tensor) -> Tensor:
    """Mean stated confidence.

    Args:
        confidence: Stated confidences, float tensor ``[N]`` in [0, 1].

    Returns:
        float64 scalar in [0, 1]; NaN without completions.

    Raises:
        DataError: wrong shape, NaN or out-of-range confidences.

    Example:
        >>> mean_confidence(torch.tensor([0.5, 1.0]))
        tensor(0.7500, dtype=torch.float64)
    """
    return check_confidence(confidence).to(torch.float64).mean()


def overconfidence_gap(confidence: Tensor, correct: Tensor) -> Tensor:
    r"""Overconfidence gap: mean confidence minus accuracy, signed.

    .. math::
        \text{OCG} = \frac{1}{N} \sum_{i=1}^{N} q_i - \frac{1}{N} \sum_{i=1}^{N} r_i

    with confidence :math:`q_i` and correctness :math:`r_i`; positive means overconfident. Its absolute value
    is a lower bound of the ECE.

    Args:
        confidence: Stated confidences, float tensor ``[N]`` in [0, 1].
        correct: Verified correctness, ``[N]`` of {0, 1}.

    Returns:
        float64 scalar in [-1, 1]; NaN without completions.

    Raises:
        DataError: wrong shapes, NaN or out-of-range confidences, or other values of ``correct``.

    Source:
        CaOPD (arXiv 2604.16830), where it is printed in percentage points.

    Example:
        >>> overconfidence_gap(torch.tensor([0.5, 1.0]), torch.tensor([1, 0]))
        tensor(0.2500, dtype=torch.float64)
    """
    return overconfidence_gap_of_counts(value_counts(*check_pair(confidence, correct)))


def accuracy_of_counts(counts: ValueCounts) -> Tensor:
    """:func:`accuracy` of counts; float64 ``[...]``, NaN without completions.

    Example:
        >>> accuracy_of_counts(value_counts(torch.tensor([0.5, 1.0]), torch.tensor([True, False])))
        tensor(0.5000, dtype=torch.float64)
    """
    return counts.correct.sum(-1) / counts.total


def mean_confidence_of_counts(counts: ValueCounts) -> Tensor:
    """:func:`mean_confidence` of counts; float64 ``[...]``, NaN without completions.

    Example:
        >>> mean_confidence_of_counts(value_counts(torch.tensor([0.5, 1.0]), torch.tensor([True, False])))
        tensor(0.7500, dtype=torch.float64)
    """
    return (counts.counts * counts.values.to(torch.float64)).sum(-1) / counts.total


def overconfidence_gap_of_counts(counts: ValueCounts) -> Tensor:
    """:func:`overconfidence_gap` of counts; float64 ``[...]``, NaN without completions.

    Example:
        >>> overconfidence_gap_of_counts(value_counts(torch.tensor([0.5, 1.0]), torch.tensor([True, False])))
        tensor(0.2500, dtype=torch.float64)
    """
    return counts.gap.sum(-1) / counts.total


def share_of_counts(counts: ShareCounts) -> Tensor:
    """How many of the completions have a property, as a share; float64 ``[...]``, NaN without completions.

    Example:
        >>> share_of_counts(ShareCounts(torch.tensor(3.0), total=torch.tensor(4.0)))
        tensor(0.7500)
    """
    return counts.having / counts.total
