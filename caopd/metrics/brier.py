"""Brier score, accumulated in constant memory."""

from __future__ import annotations

from torch import Tensor

from caopd.metrics.base import ConfidenceMetric
from caopd.metrics.functional.brier import squared_error_sum
from caopd.metrics.functional.validation import check_pair


class BrierScore(ConfidenceMetric):
    r"""Brier score of the stated confidences.

    .. math::
        \text{Brier} = \frac{1}{N} \sum_{i=1}^{N} (q_i - r_i)^2

    with confidence :math:`q_i` and correctness :math:`r_i`. Its parts are given by
    :func:`~caopd.metrics.functional.brier.murphy_decomposition`.

    As input to ``forward`` and ``update`` the metric accepts:

    - ``confidence``: stated confidences, float tensor ``[N]`` in [0, 1], without NaN.
    - ``correct``: verified correctness, tensor ``[N]`` of {0, 1}, bool, integer or float.

    As output of ``forward`` and ``compute``: the score, a float64 scalar; NaN without completions.

    Args:
        kwargs: Settings of :class:`torchmetrics.Metric`.

    Raises:
        DataError: from ``update``, for wrong shapes, NaN or out-of-range confidences, or other values of
            ``correct``.

    Example:
        >>> from torch import tensor
        >>> metric = BrierScore()
        >>> metric.update(tensor([0.5, 1.0]), tensor([1, 0]))
        >>> metric.compute()
        tensor(0.6250, dtype=torch.float64)
    """

    higher_is_better = False

    squared_error: Tensor
    n_completions: Tensor

    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.add_sum("squared_error")
        self.add_count("n_completions")

    def update(self, confidence: Tensor, correct: Tensor) -> None:
        """Add completions.

        Args:
            confidence: Stated confidences, float tensor ``[N]`` in [0, 1].
            correct: Verified correctness, ``[N]`` of {0, 1}.
        """
        confidence, correct = check_pair(confidence, correct)
        self.squared_error = self.squared_error + squared_error_sum(confidence, correct)
        self.n_completions = self.n_completions + confidence.numel()

    def compute(self) -> Tensor:
        """Return the Brier score of all completions so far, over all processes."""
        return self.squared_error / self.n_completions
