"""Smooth calibration error: a kernel, whose width the data decide, instead of bins.

Shapes: T grid steps; ``...`` is empty for one set of completions, or runs over the sets.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from caopd.metrics.functional.counts import ValueCounts, value_counts
from caopd.metrics.functional.validation import check_pair

GRID_STEPS = 1000
"""T, the steps of the grid. Confidences of up to three decimals lie on it; others are split between two points."""
_HALVINGS = 10


def smooth_calibration_error(confidence: Tensor, correct: Tensor) -> Tensor:
    r"""Smooth expected calibration error (smooth ECE, smECE): continuous in the confidences, without bins.

    .. math::
        \text{smECE} = \sigma^* \quad\text{with}\quad
        \sigma^* = \int_0^1 \Big| \frac{1}{N} \sum_{i=1}^{N} K_{\sigma^*}(t, q_i) \, (q_i - r_i) \Big| \, dt

    with confidence :math:`q_i`, correctness :math:`r_i` and the Gaussian kernel :math:`K_\sigma` reflected at 0
    and 1. The integral falls as :math:`\sigma` grows, so there is one such width.

    Args:
        confidence: Stated confidences, float tensor ``[N]`` in [0, 1].
        correct: Verified correctness, ``[N]`` of {0, 1}.

    Returns:
        float64 scalar in [0, 1], within about 1/T of the exact value; NaN without completions.

    Raises:
        DataError: wrong shapes, NaN or out-of-range confidences, or other values of ``correct``.

    Source:
        Błasiok and Nakkiran 2023 (arXiv 2309.12236); their package relplot stops
        at widths of a multiple of 1/1024.

    Example:
        One kernel carries all of the gap of 0.25, whatever its width.

        >>> confidence = torch.tensor([0.75, 0.75, 0.75, 0.75])
        >>> smooth_calibration_error(confidence, torch.tensor([1, 1, 0, 0]))
        tensor(0.2500, dtype=torch.float64)
    """
    return smooth_error_of_counts(value_counts(*check_pair(confidence, correct)))


def smooth_error_of_counts(counts: ValueCounts) -> Tensor:
    """:func:`smooth_calibration_error` of counts; float64 ``[...]``, NaN without completions.

    The width is bisected, then interpolated.

    Example:
        >>> smooth_error_of_counts(value_counts(torch.full((2,), 0.75), torch.tensor([True, False])))
        tensor(0.2500, dtype=torch.float64)
    """
    total, cosines = counts.total, torch.fft.rfft(_residuals_on_grid(counts), n=2 * GRID_STEPS).real
    low, high = torch.zeros_like(cosines[..., 0]), torch.ones_like(cosines[..., 0])
    for _ in range(_HALVINGS):
        width = (low + high) / 2
        too_narrow = _excess(cosines, width, total) > 0
        low, high = torch.where(too_narrow, width, low), torch.where(too_narrow, high, width)
    at_low, at_high = _excess(cosines, low, total), _excess(cosines, high, total)
    return low + (high - low) * at_low / (at_low - at_high)


def _residuals_on_grid(counts: ValueCounts) -> Tensor:
    """Stated minus correct completions at each grid point, float64 ``[..., T+1]``."""
    position = counts.values.to(torch.float64) * GRID_STEPS
    left = position.floor().clamp(max=GRID_STEPS - 1)
    gap, share, index = counts.gap, position - left, left.to(torch.int64)
    residuals = gap.new_zeros((*gap.shape[:-1], GRID_STEPS + 1))
    residuals = residuals.scatter_add(-1, index.expand_as(gap), gap * (1 - share))
    return residuals.scatter_add(-1, (index + 1).expand_as(gap), gap * share)


def _excess(cosines: Tensor, width: Tensor, total: Tensor) -> Tensor:
    """How far the integral lies above the width, times N; it falls as the width grows."""
    return _error_at(cosines, width) - width * total


def _error_at(cosines: Tensor, width: Tensor) -> Tensor:
    """Integral of the absolute smoothed residuals, times N.

    Reflected at both ends, a function on [0, 1] is a series of cosines, and smoothing it damps each of them.
    """
    order = torch.arange(cosines.shape[-1], dtype=torch.float64, device=cosines.device)
    damping = torch.exp(-0.5 * (math.pi * order * width.unsqueeze(-1)).square())
    smoothed: Tensor = torch.fft.irfft(cosines * damping, n=2 * GRID_STEPS)
    return smoothed.abs().sum(-1)
