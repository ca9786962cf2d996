"""Smooth calibration error, accumulated over batches and processes."""

from __future__ import annotations

from caopd.metrics.base import CatalogueMetric


class SmoothCalibrationError(CatalogueMetric):
    r"""Smooth expected calibration error (smooth ECE): a kernel instead of bins.

    .. math::
        \sigma^* = \int_0^1 \Big| \frac{1}{N} \sum_{i=1}^{N} K_{\sigma^*}(t, q_i) \, (q_i - r_i) \Big| \, dt

    with confidence :math:`q_i`, correctness :math:`r_i` and the Gaussian kernel :math:`K_\sigma` reflected at 0
    and 1; see :func:`~caopd.metrics.functional.smooth.smooth_calibration_error`.

    As input to ``forward`` and ``update`` the metric accepts:

    - ``confidence``: stated confidences, float tensor ``[N]`` in [0, 1], without NaN.
    - ``correct``: verified correctness, tensor ``[N]`` of {0, 1}, bool, integer or float.

    As output of ``forward`` and ``compute``: the error, a float64 scalar; NaN without completions.

    Args:
        kwargs: Settings of :class:`torchmetrics.Metric`.

    Raises:
        DataError: from ``update``, for wrong shapes, NaN or out-of-range confidences, or other values of
            ``correct``.

    Source:
        Błasiok and Nakkiran 2023 (arXiv 2309.12236).

    Example:
        >>> from torch import tensor
        >>> metric = SmoothCalibrationError()
        >>> metric.update(tensor([0.75, 0.75]), tensor([1, 0]))
        >>> metric.update(tensor([0.75, 0.75]), tensor([1, 0]))
        >>> metric.compute()
        tensor(0.2500, dtype=torch.float64)
    """

    metric = "smooth_ece"
