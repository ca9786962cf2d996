"""Strict pairwise ranking over all completions."""

from __future__ import annotations

from caopd.metrics.base import CatalogueMetric


class StrictPairwiseRanking(CatalogueMetric):
    r"""Strict pairwise ranking (SPR): how often a correct completion states more confidence than a wrong one.

    .. math::
        \text{SPR} = \frac{1}{|C| \, |W|} \sum_{i \in C} \sum_{j \in W} \mathbb{1}[q_i > q_j]

    with :math:`C` the correct and :math:`W` the wrong completions and :math:`q` the stated confidences. Ties
    earn 0. Pairs are formed over all batches and processes.

    As input to ``forward`` and ``update`` the metric accepts:

    - ``confidence``: stated confidences, float tensor ``[N]`` in [0, 1], without NaN, of one float width
      throughout.
    - ``correct``: verified correctness, tensor ``[N]`` of {0, 1}, bool, integer or float.

    As output of ``forward`` and ``compute``: the share of ordered pairs, a float64 scalar; NaN when no
    completion, or every one, is correct.

    Args:
        kwargs: Settings of :class:`torchmetrics.Metric`.

    Raises:
        DataError: from ``update``, for wrong shapes, NaN or out-of-range confidences, or other values of
            ``correct``.

    Example:
        >>> from torch import tensor
        >>> metric = StrictPairwiseRanking()
        >>> metric.update(tensor([0.5, 1.0]), tensor([1, 1]))
        >>> metric.update(tensor([0.5, 0.75]), tensor([0, 0]))
        >>> metric.compute()
        tensor(0.5000, dtype=torch.float64)
    """

    metric = "spr"
