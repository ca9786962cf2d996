"""Debiased calibration error, accumulated over batches and processes."""

from __future__ import annotations

from torch import Tensor

from caopd.metrics.base import CatalogueMetric
from caopd.metrics.functional.calibration_error import debiased_error_of_counts
from caopd.metrics.functional.validation import check_n_bins


class DebiasedCalibrationError(CatalogueMetric):
    r"""Expected calibration error (ECE) without most of what chance adds to it.

    .. math::
        \max \Big\{ 0, \; 2 \, \text{ECE} - \sum_{b=1}^{M} \mathbb{E} \, \big| g_b + \sigma_b Z \big| \Big\}

    with the gaps :math:`g_b` of the bins and their standard errors :math:`\sigma_b`; see
    :func:`~caopd.metrics.functional.calibration_error.debiased_calibration_error`. Every completion counts as one of a
    prompt of its own.

    As input to ``forward`` and ``update`` the metric accepts:

    - ``confidence``: stated confidences, float tensor ``[N]`` in [0, 1], without NaN.
    - ``correct``: verified correctness, tensor ``[N]`` of {0, 1}, bool, integer or float.

    As output of ``forward`` and ``compute``: the error, a float64 scalar; NaN without completions.

    Args:
        n_bins: M, the number of bins.
        kwargs: Settings of :class:`torchmetrics.Metric`.

    Raises:
        ConfigError: ``n_bins`` is not an integer larger than 0.
        DataError: from ``update``, for wrong shapes, NaN or out-of-range confidences, or other values of
            ``correct``.

    Source:
        Kumar et al. 2019 (arXiv 1909.10155).

    Example:
        >>> from torch import arange, full
        >>> metric = DebiasedCalibrationError()
        >>> metric.update(full((16,), 0.75), arange(16) % 2)
        >>> metric.compute()
        tensor(0.2479, dtype=torch.float64)
    """

    metric = "debiased_ece"

    def __init__(self, n_bins: int = 10, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.n_bins = check_n_bins(n_bins)

    def compute(self) -> Tensor:
        """Return the debiased error of all completions so far, over all processes."""
        return debiased_error_of_counts(self.stated(), self.n_bins)
