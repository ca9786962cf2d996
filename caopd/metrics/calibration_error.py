"""Expected calibration error, accumulated in constant memory."""

from __future__ import annotations

from torch import Tensor

from caopd.metrics.base import ConfidenceMetric
from caopd.metrics.bins import ReliabilityBins
from caopd.metrics.functional.binning import BinSums, calibration_error_of_sums, equal_width_sums
from caopd.metrics.functional.validation import check_n_bins, check_pair


class ExpectedCalibrationError(ConfidenceMetric):
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
        n_bins: M.
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

    higher_is_better = False

    counts: Tensor
    confidence_sums: Tensor
    correct_sums: Tensor

    def __init__(self, n_bins: int = 10, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.n_bins = check_n_bins(n_bins)
        self.add_count("counts", n_bins)
        self.add_sum("confidence_sums", n_bins)
        self.add_count("correct_sums", n_bins)

    def update(self, confidence: Tensor, correct: Tensor) -> None:
        """Add completions.

        Args:
            confidence: Stated confidences, float tensor ``[N]`` in [0, 1].
            correct: Verified correctness, ``[N]`` of {0, 1}.
        """
        confidence, correct = check_pair(confidence, correct)
        sums = equal_width_sums(confidence, correct, self.n_bins)
        self.counts = self.counts + sums.counts
        self.confidence_sums = self.confidence_sums + sums.confidence
        self.correct_sums = self.correct_sums + sums.correct

    def compute(self) -> Tensor:
        """Return the ECE of all completions so far, over all processes."""
        return calibration_error_of_sums(self._sums())

    def bins(self) -> ReliabilityBins:
        """Return the reliability bins behind the ECE, over all processes.

        Every process must call it, as it must call ``compute``: the states are gathered.
        """
        with self.sync_context(
            dist_sync_fn=self.dist_sync_fn, should_sync=self._to_sync, should_unsync=self._should_unsync
        ):
            return ReliabilityBins.from_sums(self._sums())

    def _sums(self) -> BinSums:
        return BinSums(self.counts, self.confidence_sums, self.correct_sums)
