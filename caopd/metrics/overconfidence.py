"""Overconfidence gap, accumulated over batches and processes."""

from __future__ import annotations

from caopd.metrics.base import CatalogueMetric


class OverconfidenceGap(CatalogueMetric):
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

    metric = "ocg"
