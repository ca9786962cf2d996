"""Which bin a stated confidence falls in, and the sums per bin that every calibration error is made of.

Shapes: N scored completions, M bins or groups.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class BinSums(NamedTuple):
    """Sums per bin; adding two of them field by field merges two sets of completions.

    Attributes:
        counts: Completions, int64 ``[M]``.
        confidence: Sum of stated confidences, float64 ``[M]``.
        correct: Number of correct completions, int64 ``[M]``.
    """

    counts: Tensor
    confidence: Tensor
    correct: Tensor


def equal_width_bins(confidence: Tensor, n_bins: int = 10) -> Tensor:
    r"""Index of the equal-width bin of each confidence: left-closed bins, the last one closed.

    .. math::
        b(q) = \max \{ k \in \{0, \dots, M-1\} : q \ge k / M \}

    with :math:`q` a confidence and :math:`M` the number of bins, so 1.0 belongs to the last bin.

    Stated confidences are decimals and sit on the edges. Each edge :math:`k/M` is therefore rounded to the
    float width of ``confidence`` before comparing: a decimal and its edge round to the same number, and 0.3
    opens its bin in float32, bfloat16 and float16 alike. float64 is first rounded to float32, which undoes
    the noise of arithmetic (``0.1 + 0.2`` opens the bin of 0.3).

    Args:
        confidence: ``[N]``, float64, float32, bfloat16 or float16, in [0, 1] (not checked).
        n_bins: M, at least 1 (not checked).

    Returns:
        int64 tensor ``[N]`` with values 0 to M-1.

    Example:
        >>> equal_width_bins(torch.tensor([0.0, 0.29, 0.3, 0.7, 1.0]))
        tensor([0, 2, 3, 7, 9])
    """
    if confidence.dtype == torch.float64:
        confidence = confidence.to(torch.float32)
    steps = torch.arange(1, n_bins, dtype=torch.float64, device=confidence.device)
    inner_edges = (steps / n_bins).to(confidence.dtype)
    # Widening to float32 is exact, and bucketize has no half-width kernel on every device.
    return torch.bucketize(confidence.to(torch.float32), inner_edges.to(torch.float32), right=True)


def group_sums(confidence: Tensor, correct: Tensor, group: Tensor, n_groups: int) -> BinSums:
    """Sum confidence and correctness within groups.

    Args:
        confidence: Float tensor ``[N]``.
        correct: Bool tensor ``[N]``.
        group: int64 tensor ``[N]`` with values 0 to ``n_groups - 1``.
        n_groups: M.

    Returns:
        The sums, ``[M]`` each; float64 sums make accumulation over batches equal to one pass.

    Example:
        >>> group_sums(torch.tensor([0.5, 1.0]), torch.tensor([True, False]), torch.tensor([1, 1]), 2).counts
        tensor([0, 2])
    """
    counts = torch.zeros(n_groups, dtype=torch.int64, device=confidence.device)
    sums = torch.zeros(n_groups, dtype=torch.float64, device=confidence.device)
    return BinSums(
        counts=counts.index_add(0, group, torch.ones_like(group)),
        confidence=sums.index_add(0, group, confidence.to(torch.float64)),
        correct=counts.index_add(0, group, correct.to(torch.int64)),
    )


def equal_width_sums(confidence: Tensor, correct: Tensor, n_bins: int = 10) -> BinSums:
    """Sums per equal-width bin; see :func:`equal_width_bins` for the edges.

    Args:
        confidence: Float tensor ``[N]`` in [0, 1].
        correct: Bool tensor ``[N]``.
        n_bins: M.

    Returns:
        The sums, ``[M]`` each.

    Example:
        >>> confidence, correct = torch.tensor([0.25, 0.5, 1.0]), torch.tensor([False, True, True])
        >>> equal_width_sums(confidence, correct, n_bins=2).correct
        tensor([0, 2])
    """
    return group_sums(confidence, correct, equal_width_bins(confidence, n_bins), n_bins)


def calibration_error_of_sums(sums: BinSums) -> Tensor:
    r"""Weighted mean gap between confidence and accuracy.

    .. math::
        \sum_b \frac{n_b}{N} \Big| \frac{Q_b}{n_b} - \frac{R_b}{n_b} \Big| = \frac{1}{N} \sum_b | Q_b - R_b |

    with :math:`n_b` completions, :math:`Q_b` summed confidence and :math:`R_b` correct completions in bin
    :math:`b`.

    Args:
        sums: Sums per bin.

    Returns:
        float64 scalar; NaN without completions.

    Example:
        >>> sums = BinSums(torch.tensor([0, 2]), torch.tensor([0.0, 1.5]), torch.tensor([0, 1]))
        >>> calibration_error_of_sums(sums)
        tensor(0.2500, dtype=torch.float64)
    """
    gap_M = (sums.confidence.to(torch.float64) - sums.correct).abs()
    return gap_M.sum() / sums.counts.sum()
