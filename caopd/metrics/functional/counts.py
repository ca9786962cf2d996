"""Counts per stated value: all that most metrics need to know of a set of completions.

Stated confidences take few distinct values, so a million completions are a short table. The functions named
``..._of_counts`` take such tables, of one set or of many sets at once: the resamples of a bootstrap.

Shapes: N completions, V distinct values; ``...`` is empty, or the sets.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class ValueCounts(NamedTuple):
    """How often each confidence was stated, and how often rightly.

    Attributes:
        values: Distinct confidences in ascending order, float tensor ``[V]``.
        counts: Completions that state the value, float64 ``[..., V]``; may be 0.
        correct: Correct ones among them, float64 ``[..., V]``.
    """

    values: Tensor
    counts: Tensor
    correct: Tensor

    @property
    def total(self) -> Tensor:
        """N, float64 ``[...]``."""
        return self.counts.sum(-1)

    @property
    def gap(self) -> Tensor:
        """Stated minus correct completions of each value, float64 ``[..., V]``."""
        return self.counts * self.values.to(torch.float64) - self.correct

    @property
    def accuracy(self) -> Tensor:
        """Share of correct completions of each value, float64 ``[..., V]``; 0 where none states it."""
        return self.correct / self.counts.clamp(min=1)

    def error_of_groups(self, group: Tensor, n_groups: int) -> Tensor:
        """Calibration error where the values fall in groups: the weighted mean gap of the groups.

        Args:
            group: Group of each value, int64 ``[..., V]`` or ``[V]`` with values 0 to ``n_groups - 1``.
            n_groups: M.

        Returns:
            float64 ``[...]``; NaN without completions.

        Example:
            >>> counts = value_counts(torch.tensor([0.25, 0.5, 1.0]), torch.tensor([False, True, True]))
            >>> counts.error_of_groups(torch.tensor([0, 1, 1]), 2)
            tensor(0.2500, dtype=torch.float64)
        """
        gap = self.gap
        sums = gap.new_zeros((*gap.shape[:-1], n_groups)).scatter_add(-1, group.expand_as(gap), gap)
        return sums.abs().sum(-1) / self.total


def value_counts(confidence: Tensor, correct: Tensor) -> ValueCounts:
    """Count one set of completions.

    Args:
        confidence: Float tensor ``[N]``.
        correct: Bool tensor ``[N]``.

    Returns:
        The counts, ``[V]`` each.

    Example:
        >>> value_counts(torch.tensor([0.5, 1.0, 0.5]), torch.tensor([True, True, False])).counts
        tensor([2., 1.], dtype=torch.float64)
    """
    values, value, counts = torch.unique(confidence, return_inverse=True, return_counts=True)
    counts = counts.to(torch.float64)
    return ValueCounts(values, counts, torch.zeros_like(counts).index_add(0, value, correct.to(torch.float64)))
