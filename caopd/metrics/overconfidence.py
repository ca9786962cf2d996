"""Overconfidence gap, accumulated in constant memory."""

from __future__ import annotations

import torch
from torch import Tensor

from caopd.metrics.base import ConfidenceMetric
from caopd.metrics.functional.validation import check_pair


class OverconfidenceGap(ConfidenceMetric):
    r"""Overconfidence gap (OCG): mean confidence minus accuracy, signed.

    .. math::
        \text{OCG} = \frac{1}{N} \sum_{i=1}^{N} q_i - \frac{1}{N} \sum_{i=1}^{N} r_i

    with confidence :math:`q_i` and correctness :math:`r_i`; positive means overconfident, zero is best.

    As input to ``forward`` and ``update`` the metric accepts:

    - ``confidence``: stated confidences, float tensor ``[N]`` in [0, 1], without NaN.
    - ``correct``: verified correctness, tensor ``[N]`` of {0, 1}, bool, integer or float.

    As output of ``forward`` and ``compute``: the gap, a float64 scalar in [-1, 1]; NaN without completions.

    Args:
        kwargs: Settings of :class:`torchmetrics.Metric`.

    Raises:
        DataError: from ``update``, for wrong shapes, NaN or out-of-range confidences, or other values of
            ``correct``.

    Example:
        >>> from torch import tensor
        >>> metric = OverconfidenceGap()
        >>> metric.update(tensor([0.5, 1.0]), tensor([1, 0]))
        >>> metric.compute()
        tensor(0.2500, dtype=torch.float64)
    """

    plot_lower_bound = -1.0

    confidence_sum: Tensor
    n_correct: Tensor
    n_completions: Tensor

    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.add_sum("confidence_sum")
        self.add_count("n_correct")
        self.add_count("n_completions")

    def update(self, confidence: Tensor, correct: Tensor) -> None:
        """Add completions.

        Args:
            confidence: Stated confidences, float tensor ``[N]`` in [0, 1].
            correct: Verified correctness, ``[N]`` of {0, 1}.
        """
        confidence, correct = check_pair(confidence, correct)
        self.confidence_sum = self.confidence_sum + confidence.to(torch.float64).sum()
        self.n_correct = self.n_correct + correct.sum()
        self.n_completions = self.n_completions + confidence.numel()

    def compute(self) -> Tensor:
        """Return the gap over all completions so far, over all processes."""
        return (self.confidence_sum - self.n_correct) / self.n_completions
