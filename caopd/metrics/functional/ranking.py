"""Does a correct completion state more confidence than a wrong one? Counted over all (correct, wrong) pairs.

Sorting one side and searching with the other counts the pairs in O(N log N) time and O(N) memory. Counts are
integers, so the ratios are exact whatever the number of ties. Confidences are compared as they are stored:
pass one float width, since 0.3 in bfloat16 and 0.3 in float32 are two numbers.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from caopd.metrics.functional.counts import ValueCounts
from caopd.metrics.functional.validation import check_pair


class PairCounts(NamedTuple):
    """How the (correct, wrong) pairs of completions compare; int64 scalars, or float64 ``[...]`` of counts.

    Attributes:
        ordered: Pairs whose correct completion states strictly more confidence.
        tied: Pairs that state the same confidence.
        total: All pairs.
    """

    ordered: Tensor
    tied: Tensor
    total: Tensor

    @property
    def strict_pairwise_ranking(self) -> Tensor:
        """Share of ordered pairs, a float64 scalar; NaN without pairs."""
        return self.ordered.to(torch.float64) / self.total

    @property
    def auroc(self) -> Tensor:
        """Share of ordered pairs plus half the share of tied ones, a float64 scalar; NaN without pairs."""
        return (2 * self.ordered + self.tied).to(torch.float64) / (2 * self.total)

    @property
    def tie_rate(self) -> Tensor:
        """Share of tied pairs, a float64 scalar; NaN without pairs."""
        return self.tied.to(torch.float64) / self.total


def count_pairs(of_correct: Tensor, of_wrong: Tensor) -> PairCounts:
    """Count how every correct completion compares with every wrong one.

    Args:
        of_correct: Confidences of the correct completions, float tensor ``[C]``.
        of_wrong: Confidences of the wrong completions, float tensor ``[W]``.

    Returns:
        The counts over all C times W pairs.

    Example:
        >>> counts = count_pairs(torch.tensor([0.5, 1.0]), torch.tensor([0.5, 0.75]))
        >>> [int(count) for count in counts]
        [2, 1, 4]
    """
    ordered_W = of_wrong.to(torch.float64).sort().values
    of_correct = of_correct.to(torch.float64).contiguous()
    below_C = torch.searchsorted(ordered_W, of_correct, right=False)
    not_above_C = torch.searchsorted(ordered_W, of_correct, right=True)
    return PairCounts(
        ordered=below_C.sum(),
        tied=(not_above_C - below_C).sum(),
        total=torch.tensor(of_correct.numel() * of_wrong.numel(), device=below_C.device),
    )


def pairs_of_counts(counts: ValueCounts) -> PairCounts:
    """:func:`count_pairs` of counts; float64 ``[...]`` each, exact below 2^53 pairs.

    Example:
        >>> from caopd.metrics.functional.counts import value_counts
        >>> stated = torch.tensor([0.5, 1.0, 0.5, 0.75])
        >>> pairs = pairs_of_counts(value_counts(stated, torch.tensor([True, True, False, False])))
        >>> [int(count) for count in pairs]
        [2, 1, 4]
    """
    wrong = counts.counts - counts.correct
    below = wrong.cumsum(-1) - wrong
    return PairCounts(
        ordered=(counts.correct * below).sum(-1),
        tied=(counts.correct * wrong).sum(-1),
        total=counts.correct.sum(-1) * wrong.sum(-1),
    )


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

        >>> strict_pairwise_ranking(torch.tensor([0.5, 1.0, 0.5, 0.75]), torch.tensor([1, 1, 0, 0]))
        tensor(0.5000, dtype=torch.float64)
    """
    return _count(confidence, correct).strict_pairwise_ranking


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
        >>> auroc(torch.tensor([0.5, 1.0, 0.5, 0.75]), torch.tensor([1, 1, 0, 0]))
        tensor(0.6250, dtype=torch.float64)
    """
    return _count(confidence, correct).auroc


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
        >>> tie_rate(torch.tensor([0.5, 1.0, 0.5, 0.75]), torch.tensor([1, 1, 0, 0]))
        tensor(0.2500, dtype=torch.float64)
    """
    return _count(confidence, correct).tie_rate


def _count(confidence: Tensor, correct: Tensor) -> PairCounts:
    confidence, correct = check_pair(confidence, correct)
    return count_pairs(confidence[correct], confidence[~correct])
