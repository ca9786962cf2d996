"""Calibration errors: equal-width (ECE), equal-mass (adaptive) and per stated value."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from caopd.metrics.functional.binning import equal_width_bins
from caopd.metrics.functional.counts import ValueCounts, value_counts
from caopd.metrics.functional.validation import check_n_bins, check_pair


def expected_calibration_error(confidence: Tensor, correct: Tensor, n_bins: int = 10) -> Tensor:
    r"""Expected calibration error over equal-width bins.

    .. math::
        \text{ECE} = \sum_{b=1}^{M} \frac{n_b}{N} \left| \bar q_b - \bar r_b \right|

    with :math:`n_b` of the :math:`N` completions in bin :math:`b`, their mean confidence :math:`\bar q_b` and
    their accuracy :math:`\bar r_b`. Bins are left-closed and the last one is closed: 1.0 belongs to [0.9,
    1.0]. Values on an edge are decided by their decimal value whatever the float width; see
    :func:`~caopd.metrics.functional.binning.equal_width_bins`.

    Args:
        confidence: Stated confidences, float tensor ``[N]`` in [0, 1].
        correct: Verified correctness, ``[N]`` of {0, 1}, bool, integer or float.
        n_bins: M, the number of bins.

    Returns:
        float64 scalar in [0, 1]; NaN without completions.

    Raises:
        ConfigError: ``n_bins`` is not an integer larger than 0.
        DataError: wrong shapes, NaN or out-of-range confidences, or other values of ``correct``.

    Source:
        Naeini et al. 2015; Guo et al. 2017 (arXiv 1706.04599), eq. 3.

    Example:
        The bins hold {0.25: wrong} and {0.5: right, 1.0: right}, with gaps 0.25 and 0.25.

        >>> expected_calibration_error(torch.tensor([0.25, 0.5, 1.0]), torch.tensor([0, 1, 1]), n_bins=2)
        tensor(0.2500, dtype=torch.float64)
    """
    check_n_bins(n_bins)
    confidence, correct = check_pair(confidence, correct)
    return equal_width_error_of_counts(value_counts(confidence, correct), n_bins)


def debiased_calibration_error(confidence: Tensor, correct: Tensor, n_bins: int = 10) -> Tensor:
    r"""Expected calibration error without most of what chance adds to it.

    .. math::
        \max \Big\{ 0, \; 2 \, \text{ECE} - \sum_{b=1}^{M} \mathbb{E} \, \big| g_b + \sigma_b Z \big| \Big\}

    with the gap :math:`g_b = n_b / N \, (\bar q_b - \bar r_b)`, its standard error :math:`\sigma_b` and :math:`Z`
    standard normal. Chance makes a gap of 0 look like one, up or down, and the ECE adds up both; what it would add to
    the observed gaps is taken off. That is less than it added to the true ones where these are small: of the bias of a
    calibrated model about 60 % are left. Every completion counts as one of a prompt of its own; with several,
    :func:`~caopd.metrics.functional.certainty.calibration_certainty` has the estimate.

    Args:
        confidence: Stated confidences, float tensor ``[N]`` in [0, 1].
        correct: Verified correctness, ``[N]`` of {0, 1}.
        n_bins: M, the number of bins.

    Returns:
        float64 scalar in [0, 1]; NaN without completions.

    Raises:
        ConfigError: ``n_bins`` is not an integer larger than 0.
        DataError: wrong shapes, NaN or out-of-range confidences, or other values of ``correct``.

    Source:
        Kumar et al. 2019 (arXiv 1909.10155), their debiased estimator for norms other than the second, in closed form
        instead of by draws. For squared gaps the bias can be taken off in whole: Bröcker 2012; Ferro and Fricker 2012.

    Example:
        A gap of 1/4 of 16 completions, with a standard error of 1/8.

        >>> confidence, correct = torch.full((16,), 0.75), torch.arange(16) % 2
        >>> debiased_calibration_error(confidence, correct)
        tensor(0.2479, dtype=torch.float64)
    """
    check_n_bins(n_bins)
    confidence, correct = check_pair(confidence, correct)
    return debiased_error_of_counts(value_counts(confidence, correct), n_bins)


def adaptive_calibration_error(confidence: Tensor, correct: Tensor, n_bins: int = 10) -> Tensor:
    r"""Calibration error over equal-mass bins (adaptive ECE).

    .. math::
        b(q) = \left\lfloor M \, \frac{\#\{q_i < q\} + \#\{q_i = q\} / 2}{N} \right\rfloor

    gives the bin of a confidence :math:`q` from its mid-rank; the error is then that of
    :func:`expected_calibration_error`. Equal confidences share a mid-rank, so a tie is never split and the
    order of the completions is irrelevant; bins are exactly as large as each other only where ties allow it.

    Args:
        confidence: Stated confidences, float tensor ``[N]`` in [0, 1].
        correct: Verified correctness, ``[N]`` of {0, 1}.
        n_bins: M, the number of bins.

    Returns:
        float64 scalar in [0, 1]; NaN without completions.

    Raises:
        ConfigError: ``n_bins`` is not an integer larger than 0.
        DataError: wrong shapes, NaN or out-of-range confidences, or other values of ``correct``.

    Source:
        Nguyen and O'Connor 2015; Nixon et al. 2019 (arXiv 1904.01685). The mid-rank for ties is this
        project's choice.

    Example:
        The halves are {0.5: right, 0.625: wrong} and {0.75: right, 0.875: right}, with gaps 0.0625 and
        0.1875.

        >>> confidence = torch.tensor([0.5, 0.625, 0.75, 0.875])
        >>> adaptive_calibration_error(confidence, torch.tensor([1, 0, 1, 1]), n_bins=2)
        tensor(0.1250, dtype=torch.float64)
    """
    check_n_bins(n_bins)
    confidence, correct = check_pair(confidence, correct)
    return adaptive_error_of_counts(value_counts(confidence, correct), n_bins)


def unique_value_calibration_error(confidence: Tensor, correct: Tensor) -> Tensor:
    r"""Calibration error with one bin per stated value: no binning error, as long as values repeat.

    .. math::
        \sum_{v} \frac{n_v}{N} \left| v - \bar r_v \right|

    with :math:`n_v` completions that state :math:`v` and their accuracy :math:`\bar r_v`. It is at least as
    large as the binned error; with mostly distinct values it is biased upward.

    Args:
        confidence: Stated confidences, float tensor ``[N]`` in [0, 1].
        correct: Verified correctness, ``[N]`` of {0, 1}.

    Returns:
        float64 scalar in [0, 1]; NaN without completions.

    Raises:
        DataError: wrong shapes, NaN or out-of-range confidences, or other values of ``correct``.

    Example:
        0.5 is stated twice and right once (gap 0); 1.0 is stated twice and right once (gap 0.5).

        >>> confidence = torch.tensor([0.5, 0.5, 1.0, 1.0])
        >>> unique_value_calibration_error(confidence, torch.tensor([1, 0, 1, 0]))
        tensor(0.2500, dtype=torch.float64)
    """
    confidence, correct = check_pair(confidence, correct)
    return unique_value_error_of_counts(value_counts(confidence, correct))


def equal_width_error_of_counts(counts: ValueCounts, n_bins: int = 10) -> Tensor:
    """:func:`expected_calibration_error` of counts; float64 ``[...]``, NaN without completions.

    Example:
        >>> counts = value_counts(torch.tensor([0.25, 0.5, 1.0]), torch.tensor([False, True, True]))
        >>> equal_width_error_of_counts(counts, n_bins=2)
        tensor(0.2500, dtype=torch.float64)
    """
    return counts.error_of_bins(equal_width_bins(counts.values, n_bins), n_bins)


def debiased_error_of_counts(counts: ValueCounts, n_bins: int = 10) -> Tensor:
    """:func:`debiased_calibration_error` of counts; float64 ``[...]``, NaN without completions.

    Example:
        >>> counts = value_counts(torch.full((2,), 0.75), torch.tensor([False, True]))
        >>> debiased_error_of_counts(counts)
        tensor(0.1502, dtype=torch.float64)
    """
    gap_V, values_V = counts.gap, counts.values.to(torch.float64)
    squares_V = counts.counts * values_V.square() + counts.correct * (1 - 2 * values_V)
    zeros_M = gap_V.new_zeros((*gap_V.shape[:-1], n_bins))
    group = equal_width_bins(counts.values, n_bins).expand_as(gap_V)
    sums_M, squares_M, counts_M = (
        zeros_M.scatter_add(-1, group, each_V) for each_V in (gap_V, squares_V, counts.counts)
    )
    deviation_M = (squares_M - sums_M.square() / counts_M.clamp(min=1)).clamp(min=0).sqrt()
    excess = expected_absolute(sums_M, deviation_M).sum(-1) - sums_M.abs().sum(-1)
    return (sums_M.abs().sum(-1) - excess).clamp(min=0) / counts.total


def expected_absolute(mean: Tensor, deviation: Tensor) -> Tensor:
    """Return the mean of the absolute value of a normal variable, elementwise; 0 deviation gives the mean's own.

    Example:
        >>> expected_absolute(torch.tensor([0.0, -2.0]), torch.tensor([1.0, 0.0]))
        tensor([0.7979, 2.0000])
    """
    ratio = mean / deviation.clamp(min=1e-300)
    spread = deviation * math.sqrt(2 / math.pi) * torch.exp(-0.5 * ratio.square())
    return spread + mean * torch.erf(ratio / math.sqrt(2))


def adaptive_error_of_counts(counts: ValueCounts, n_bins: int = 10) -> Tensor:
    """:func:`adaptive_calibration_error` of counts; float64 ``[...]``, NaN without completions.

    Example:
        >>> counts = value_counts(torch.tensor([0.5, 0.75]), torch.tensor([True, True]))
        >>> adaptive_error_of_counts(counts, n_bins=2)
        tensor(0.3750, dtype=torch.float64)
    """
    twice_mid_rank = 2 * counts.counts.cumsum(-1) - counts.counts
    twice_total = 2 * counts.total.clamp(min=1).unsqueeze(-1)
    # Both sides are whole numbers, and floor division of floats is exact.
    bins = torch.div(n_bins * twice_mid_rank, twice_total, rounding_mode="floor")
    return counts.error_of_bins(bins.clamp(max=n_bins - 1).to(torch.int64), n_bins)


def unique_value_error_of_counts(counts: ValueCounts) -> Tensor:
    """:func:`unique_value_calibration_error` of counts; float64 ``[...]``, NaN without completions.

    Example:
        >>> unique_value_error_of_counts(value_counts(torch.tensor([0.5, 1.0]), torch.tensor([True, True])))
        tensor(0.2500, dtype=torch.float64)
    """
    return counts.gap.abs().sum(-1) / counts.total
