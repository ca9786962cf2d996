"""Does a correct completion state more confidence than a wrong one? Counted over all (correct, wrong) pairs.

Running sums over the distinct values, in their order, count the pairs in O(N log N) time. Counts are whole numbers,
so the ratios are exact whatever the number of ties. Confidences are compared as they are stated: pass one float
width, since 0.3 in bfloat16 and 0.3 in float32 are two numbers.
"""

from __future__ import annotations

from torch import Tensor

from caopd.metrics.functional.counts import ValueCounts, value_counts
from caopd.metrics.functional.validation import check_pair


def strict_pairwise_ranking(confidence: Tensor, correct: Tensor) -> Tensor:
    r"""Strict pairwise ranking (SPR): ties earn nothing.

    .. math::
        \text{SPR} = \frac{1}{|C| \, |W|} \sum_{i \in C} \sum_{j \in W} \mathbb{1}[q_i > q_j]

    with :math:`C` the correct and :math:`W` the wrong completions and :math:`q` the stated confidences. A
    model that always states the same number scores 0, where AUROC would give it 1/2.

    Args:
        confidence: Stated confidences, float tensor ``[N]`` in [0, 1].
        correct: Verified correctness, ``[N]`` of {0, 1}.

    Returns:
        float64 scalar in [0, 1]; NaN when no completion, or every one, is correct.

    Raises:
        DataError: wrong shapes, NaN or out-of-range confidences, or other values of ``correct``.

    Source:
        CaOPD (arXiv 2604.16830).

    Example:
        Of the pairs (0.5, 0.5), (0.5, 0.75), (1.0, 0.5) and (1.0, 0.75) the last two are ordered.

        >>> import torch
        >>> strict_pairwise_ranking(torch.tensor([0.5, 1.0, 0.5, 0.75]), torch.tensor([1, 1, 0, 0]))
        tensor(0.5000, dtype=torch.float64)
    """
    return strict_pairwise_ranking_of_counts(value_counts(*check_pair(confidence, correct)))


def auroc(confidence: Tensor, correct: Tensor) -> Tensor:
    r"""Area under the ROC curve of confidence as a detector of correctness: ties earn 1/2.

    .. math::
        \text{AUROC} = \frac{1}{|C| \, |W|} \sum_{i \in C} \sum_{j \in W}
        \mathbb{1}[q_i > q_j] + \tfrac{1}{2} \mathbb{1}[q_i = q_j]

    with the symbols of :func:`strict_pairwise_ranking`; equals SPR plus half the tie rate.

    Args:
        confidence: Stated confidences, float tensor ``[N]`` in [0, 1].
        correct: Verified correctness, ``[N]`` of {0, 1}.

    Returns:
        float64 scalar in [0, 1]; NaN when no completion, or every one, is correct.

    Raises:
        DataError: wrong shapes, NaN or out-of-range confidences, or other values of ``correct``.

    Example:
        >>> import torch
        >>> auroc(torch.tensor([0.5, 1.0, 0.5, 0.75]), torch.tensor([1, 1, 0, 0]))
        tensor(0.6250, dtype=torch.float64)
    """
    return auroc_of_counts(value_counts(*check_pair(confidence, correct)))


def tie_rate(confidence: Tensor, correct: Tensor) -> Tensor:
    r"""Share of (correct, wrong) pairs that state the same confidence.

    .. math::
        \frac{1}{|C| \, |W|} \sum_{i \in C} \sum_{j \in W} \mathbb{1}[q_i = q_j]

    with the symbols of :func:`strict_pairwise_ranking`.

    Args:
        confidence: Stated confidences, float tensor ``[N]`` in [0, 1].
        correct: Verified correctness, ``[N]`` of {0, 1}.

    Returns:
        float64 scalar in [0, 1]; NaN when no completion, or every one, is correct.

    Raises:
        DataError: wrong shapes, NaN or out-of-range confidences, or other values of ``correct``.

    Example:
        >>> import torch
        >>> tie_rate(torch.tensor([0.5, 1.0, 0.5, 0.75]), torch.tensor([1, 1, 0, 0]))
        tensor(0.2500, dtype=torch.float64)
    """
    return tie_rate_of_counts(value_counts(*check_pair(confidence, correct)))


def strict_pairwise_ranking_of_counts(counts: ValueCounts) -> Tensor:
    """:func:`strict_pairwise_ranking` of counts; float64 ``[...]``, NaN without pairs.

    Example:
        >>> import torch
        >>> strict_pairwise_ranking_of_counts(value_counts(torch.tensor([0.5, 1.0]), torch.tensor([False, True])))
        tensor(1., dtype=torch.float64)
    """
    ordered, _, total = _pairs(counts)
    return ordered / total


def auroc_of_counts(counts: ValueCounts) -> Tensor:
    """:func:`auroc` of counts; float64 ``[...]``, NaN without pairs.

    Example:
        >>> import torch
        >>> auroc_of_counts(value_counts(torch.tensor([0.5, 0.5]), torch.tensor([False, True])))
        tensor(0.5000, dtype=torch.float64)
    """
    ordered, tied, total = _pairs(counts)
    return (2 * ordered + tied) / (2 * total)


def tie_rate_of_counts(counts: ValueCounts) -> Tensor:
    """:func:`tie_rate` of counts; float64 ``[...]``, NaN without pairs.

    Example:
        >>> import torch
        >>> tie_rate_of_counts(value_counts(torch.tensor([0.5, 0.5]), torch.tensor([False, True])))
        tensor(1., dtype=torch.float64)
    """
    _, tied, total = _pairs(counts)
    return tied / total


def _pairs(counts: ValueCounts) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs whose correct completion states more, tied pairs, and all; float64 ``[...]``, exact below 2^53 pairs."""
    wrong_V = counts.counts - counts.correct
    below_V = wrong_V.cumsum(-1) - wrong_V
    ordered, tied = (counts.correct * below_V).sum(-1), (counts.correct * wrong_V).sum(-1)
    return ordered, tied, counts.correct.sum(-1) * wrong_V.sum(-1)
