"""Counts per stated value: all that a metric needs to know of a set of completions.

Stated confidences take few distinct values, so a million completions are a short table. The functions named
``..._of_counts`` take such tables, of one set or of many sets at once, such as the resamples of a bootstrap.

Shapes: N completions, V distinct values; ``...`` is empty for one set, or runs over the sets.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor


class ValueCounts(NamedTuple):
    """How often each confidence was stated, and how often rightly.

    Attributes:
        values: Distinct confidences in ascending order, float tensor ``[V]``.
        counts: Number of completions that state the value, float64 ``[..., V]``; may be 0.
        correct: Number of correct ones among them, float64 ``[..., V]``.
    """

    values: Tensor
    counts: Tensor
    correct: Tensor

    @property
    def total(self) -> Tensor:
        """N, the number of completions, float64 ``[...]``."""
        return self.counts.sum(-1)

    @property
    def gap(self) -> Tensor:
        """Stated minus correct completions of each value, float64 ``[..., V]``."""
        return self.counts * self.values.to(torch.float64) - self.correct

    @property
    def accuracy(self) -> Tensor:
        """Share of correct completions of each value, float64 ``[..., V]``; 0 where none states it."""
        return self.correct / self.counts.clamp(min=1)

    def error_of_bins(self, group: Tensor, n_bins: int) -> Tensor:
        """Return the calibration error where values are put into bins: the weighted mean gap of the bins.

        Args:
            group: Index of the bin of each value, int64 ``[..., V]`` or ``[V]`` with values 0 to ``n_bins - 1``.
            n_bins: M, the number of bins.

        Returns:
            float64 ``[...]``; NaN without completions.

        Example:
            >>> counts = value_counts(torch.tensor([0.25, 0.5, 1.0]), torch.tensor([False, True, True]))
            >>> counts.error_of_bins(torch.tensor([0, 1, 1]), 2)
            tensor(0.2500, dtype=torch.float64)
        """
        gap = self.gap
        sums = gap.new_zeros((*gap.shape[:-1], n_bins)).scatter_add(-1, group.expand_as(gap), gap)
        return sums.abs().sum(-1) / self.total


class ShareCounts(NamedTuple):
    """How many completions have some property.

    Attributes:
        having: Number of completions that have the property, float64 ``[...]``.
        total: Number of all completions of which it is known, float64 ``[...]``.
    """

    having: Tensor
    total: Tensor


@dataclass(frozen=True)
class CompletionCounts:
    """All that the metrics of the catalogue need to know of a set of completions.

    Attributes:
        stated: Completions that state a confidence, by its value.
        missing: Number of completions that state none, float64 ``[...]``.
        missing_correct: Number of correct ones among these, ``[...]``.
        answer_known: Number of completions of which it is known whether an answer was parsed, ``[...]``.
        answered: Number of those with an answer, ``[...]``.
        answered_otherwise: Number of those whose answer is not in the form asked for, ``[...]``.
        form_known: Number of completions of which it is known in which form they state their confidence, ``[...]``.
        asked_form: Number of those that state one in the form asked for, ``[...]``.
        other_form: Number of those that state one in another form, ``[...]``.
    """

    stated: ValueCounts
    missing: Tensor
    missing_correct: Tensor
    answer_known: Tensor
    answered: Tensor
    answered_otherwise: Tensor
    form_known: Tensor
    asked_form: Tensor
    other_form: Tensor

    @property
    def n(self) -> Tensor:
        """Number of all completions, ``[...]``."""
        return self.stated.total + self.missing

    @cached_property
    def strict(self) -> ValueCounts:
        """All completions, a missing confidence taken as 0.0."""
        stated = self.stated
        return ValueCounts(
            torch.cat([stated.values.new_zeros(1), stated.values]),
            torch.cat([self.missing.unsqueeze(-1), stated.counts], -1),
            torch.cat([self.missing_correct.unsqueeze(-1), stated.correct], -1),
        )

    @property
    def stating(self) -> ShareCounts:
        """How many of all completions state a confidence."""
        return ShareCounts(self.stated.total, self.n)

    @property
    def answering(self) -> ShareCounts:
        """How many completions have an answer, of those of which it is known."""
        return ShareCounts(self.answered, self.answer_known)

    @property
    def answering_otherwise(self) -> ShareCounts:
        """How many completions have an answer in another form than the one asked for, of those of which it is known."""
        return ShareCounts(self.answered_otherwise, self.answer_known)

    @property
    def stating_as_asked(self) -> ShareCounts:
        """How many completions state a confidence in the form asked for, of those whose form is known."""
        return ShareCounts(self.asked_form, self.form_known)

    @property
    def stating_otherwise(self) -> ShareCounts:
        """How many completions state a confidence in another form, of those whose form is known."""
        return ShareCounts(self.other_form, self.form_known)


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
    return merged(confidence, torch.ones_like(confidence, dtype=torch.float64), correct.to(torch.float64))


def merged(values: Tensor, counts: Tensor, correct: Tensor) -> ValueCounts:
    """Add up the counts of equal values, such as those of several batches that are joined.

    Args:
        values: Confidences in any order, float tensor ``[K]``; they may repeat.
        counts: Number of completions that state each, float64 ``[K]``.
        correct: Number of correct ones among these, float64 ``[K]``.

    Returns:
        The counts, ``[V]`` each.

    Example:
        >>> table = merged(torch.tensor([1.0, 0.5, 1.0]), torch.tensor([2.0, 1.0, 3.0]), torch.tensor([1.0, 0.0, 3.0]))
        >>> [column.tolist() for column in table]
        [[0.5, 1.0], [1.0, 5.0], [0.0, 4.0]]
    """
    distinct, index = torch.unique(values, return_inverse=True)
    zeros = counts.new_zeros(len(distinct))
    return ValueCounts(distinct, zeros.index_add(0, index, counts), zeros.index_add(0, index, correct))
