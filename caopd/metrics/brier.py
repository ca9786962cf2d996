"""Brier score, accumulated over batches and processes."""

from __future__ import annotations

from caopd.metrics.base import CatalogueMetric


class BrierScore(CatalogueMetric):
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

    metric = "brier"
