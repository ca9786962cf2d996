"""Smooth calibration error, accumulated in constant memory."""

from __future__ import annotations

from torch import Tensor

from caopd.metrics.base import ConfidenceMetric
from caopd.metrics.functional.counts import value_counts
from caopd.metrics.functional.smooth import GRID_STEPS, residuals_on_grid, smooth_error_of_residuals
from caopd.metrics.functional.validation import check_pair


class SmoothCalibrationError(ConfidenceMetric):
    r"""Smooth expected calibration error (smooth ECE): a kernel instead of bins.

    .. math::
        \sigma^* = \int_0^1 \Big| \frac{1}{N} \sum_{i=1}^{N} K_{\sigma^*}(t, q_i) \, (q_i - r_i) \Big| \, dt

    with confidence :math:`q_i`, correctness :math:`r_i` and the Gaussian kernel :math:`K_\sigma` reflected at 0
    and 1; see :func:`~caopd.metrics.functional.smooth.smooth_calibration_error`. The state is the sum of
    :math:`q_i - r_i` at each of 1001 points.

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

    higher_is_better = False

    residuals: Tensor
    n_completions: Tensor

    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.add_sum("residuals", GRID_STEPS + 1)
        self.add_count("n_completions")

    def update(self, confidence: Tensor, correct: Tensor) -> None:
        """Add completions.

        Args:
            confidence: Stated confidences, float tensor ``[N]`` in [0, 1].
            correct: Verified correctness, ``[N]`` of {0, 1}.
        """
        confidence, correct = check_pair(confidence, correct)
        self.residuals = self.residuals + residuals_on_grid(value_counts(confidence, correct))
        self.n_completions = self.n_completions + confidence.numel()

    def compute(self) -> Tensor:
        """Return the error of all completions so far, over all processes."""
        return smooth_error_of_residuals(self.residuals, self.n_completions)
