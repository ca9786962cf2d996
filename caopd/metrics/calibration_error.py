"""Expected calibration error, accumulated over batches and processes."""

from __future__ import annotations

from torch import Tensor

from caopd.metrics.base import CatalogueMetric
from caopd.metrics.functional.calibration_error import equal_width_error_of_counts
from caopd.metrics.functional.validation import check_n_bins


class ExpectedCalibrationError(CatalogueMetric):
    r"""Expected calibration error (ECE) over equal-width bins.

    .. math::
        \text{ECE} = \sum_{b=1}^{M} \frac{n_b}{N} \left| \bar q_b - \bar r_b \right|

    with :math:`n_b` of the :math:`N` completions in bin :math:`b`, their mean confidence :math:`\bar q_b` and
    their accuracy :math:`\bar r_b`. Bins are left-closed, the last one is closed, and values on an edge are
    decided by their decimal value; see :func:`~caopd.metrics.functional.binning.equal_width_bins`.

    As input to ``forward`` and ``update`` the metric accepts:

    - ``confidence``: stated confidences, float tensor ``[N]`` in [0, 1], without NaN.
    - ``correct``: verified correctness, tensor ``[N]`` of {0, 1}, bool, integer or float.

    As output of ``forward`` and ``compute``: the ECE, a float64 scalar; NaN without completions.

    Args:
        n_bins: M, the number of bins.
        kwargs: Settings of :class:`torchmetrics.Metric`.

    Raises:
        ConfigError: ``n_bins`` is not an integer larger than 0.
        DataError: from ``update``, for wrong shapes, NaN or out-of-range confidences, or other values of
            ``correct``.

    Example:
        >>> from torch import tensor
        >>> metric = ExpectedCalibrationError(n_bins=2)
        >>> metric.update(tensor([0.25, 0.5]), tensor([0, 1]))
        >>> metric.update(tensor([1.0]), tensor([1]))
        >>> metric.compute()
        tensor(0.2500, dtype=torch.float64)
    """

    metric = "ece"

    def __init__(self, n_bins: int = 10, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.n_bins = check_n_bins(n_bins)

    def compute(self) -> Tensor:
        """Return the ECE of all completions so far, over all processes."""
        return equal_width_error_of_counts(self.stated(), self.n_bins)
