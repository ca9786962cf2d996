"""A cascade of two models: the small one answers where it is confident, the large one where it is not.

Every prompt is first put to the small model. Where its stated confidence is missing or below a threshold, the prompt is
put to the large model too, and that answer counts. Shapes: N prompts, K operating points.
"""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from caopd.errors import ConfigError
from caopd.metrics.functional.validation import check_binary, check_confidence, check_same_length


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """The cost and the accuracy that one threshold gives.

    Attributes:
        threshold: The lowest stated confidence whose answer is kept. None where every answer is kept, even without a
            confidence, and where none is kept; ``deferred`` tells which of the two.
        deferred: Share of the prompts that the large model answers.
        cost: Mean cost per prompt, in the unit of the costs per call.
        accuracy: Accuracy of the answers that count.
    """

    threshold: float | None
    deferred: float
    cost: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class CascadeCurve:
    r"""Cost and accuracy of a cascade at every threshold, and the two deferrals to compare it with.

    Deferring a share :math:`d` of the prompts costs :math:`c_s + d c_l` a prompt, whoever chooses them. *Random*
    deferral chooses blindly: its accuracy is the straight line from the small model's to the large one's. The *oracle*
    knows all verdicts and defers first where the large model corrects the small one, last where it spoils a right
    answer: no choice of as many prompts is more accurate.

    Attributes:
        points: K operating points in the order of rising deferral: the first defers nothing, the last everything.
        gained: Share of the prompts where only the large model is right.
        lost: Share of the prompts where only the small model is right.
        small_cost: c_s, the cost of a call of the small model, paid for every prompt.
        large_cost: c_l, the cost of a call of the large model.
    """

    points: tuple[OperatingPoint, ...]
    gained: float
    lost: float
    small_cost: float
    large_cost: float

    @property
    def small_accuracy(self) -> float:
        """Accuracy of the small model alone."""
        return self.points[0].accuracy

    @property
    def large_accuracy(self) -> float:
        """Accuracy of the large model alone."""
        return self.points[-1].accuracy

    @property
    def area_above_random(self) -> float:
        """Mean gain in accuracy over random deferral, over all shares of deferral; negative where chance is better.

        Between two operating points a random part of the tied prompts is deferred, so the curve is a straight line.
        """
        return _area([(point.deferred, point.accuracy) for point in self.points]) - self._area_of_random

    @property
    def oracle_area_above_random(self) -> float:
        """The value of :attr:`area_above_random` for the oracle, the largest possible."""
        return _area(self.oracle) - self._area_of_random

    @property
    def relative_area(self) -> float:
        """Area above random as a share of the oracle's: 1 is the oracle, 0 chance; NaN where both are the same."""
        largest = self.oracle_area_above_random
        return self.area_above_random / largest if largest > 1e-12 else math.nan

    @property
    def oracle(self) -> list[tuple[float, float]]:
        """The corners (share of deferral, accuracy) of the oracle's line."""
        best = self.small_accuracy + self.gained
        return [(0.0, self.small_accuracy), (self.gained, best), (1 - self.lost, best), (1.0, self.large_accuracy)]

    @property
    def _area_of_random(self) -> float:
        return (self.small_accuracy + self.large_accuracy) / 2

    def random_accuracy(self, deferred: float) -> float:
        """Expected accuracy of deferring a random share of the prompts.

        Args:
            deferred: The share, in [0, 1].
        """
        return self.small_accuracy + deferred * (self.large_accuracy - self.small_accuracy)

    def oracle_accuracy(self, deferred: float) -> float:
        """Largest possible accuracy of deferring a share of the prompts.

        Args:
            deferred: The share, in [0, 1].
        """
        return self.small_accuracy + min(deferred, self.gained) - max(0.0, deferred - (1 - self.lost))

    def cheapest(self, accuracy: float) -> OperatingPoint | None:
        """Return the cheapest operating point that is at least so accurate; None where there is none.

        Args:
            accuracy: The target, in [0, 1].
        """
        return next((point for point in self.points if point.accuracy >= accuracy - _ROUNDING), None)

    def best(self, budget: float) -> OperatingPoint | None:
        """Return the most accurate operating point within a budget (of equals the cheapest); None where there is none.

        Args:
            budget: Largest mean cost per prompt.
        """
        affordable = bisect.bisect(self.points, budget + _ROUNDING, key=lambda point: point.cost)
        return max(self.points[:affordable], key=lambda point: point.accuracy, default=None)


_ROUNDING = 1e-9
"""Tolerance of comparisons with numbers that a user writes as decimals."""


def cascade_curve(
    confidence: Tensor,
    small_correct: Tensor,
    large_correct: Tensor,
    small_cost: float = 1.0,
    large_cost: float = 10.0,
) -> CascadeCurve:
    """Try every threshold on the small model's confidence.

    Prompts without a stated confidence are deferred first: missing is not zero, but it is no reason to keep an answer.
    Prompts that state the same are deferred together.

    Args:
        confidence: Stated by the small model, float tensor ``[N]`` in [0, 1], NaN where missing.
        small_correct: Verdicts on the small model, ``[N]`` of {0, 1}.
        large_correct: Verdicts on the large model for the same prompts, ``[N]`` of {0, 1}.
        small_cost: Cost of a call of the small model.
        large_cost: Cost of a call of the large model.

    Raises:
        ConfigError: A cost is negative or not finite, or there are no prompts.
        DataError: Wrong shapes or values.

    Example:
        >>> curve = cascade_curve(torch.tensor([0.75, 0.25]), torch.tensor([1, 0]), torch.tensor([1, 1]))
        >>> [(point.threshold, point.cost, point.accuracy) for point in curve.points]
        [(0.25, 1.0, 0.5), (0.75, 6.0, 1.0), (None, 11.0, 1.0)]
        >>> curve.area_above_random, curve.relative_area
        (0.125, 1.0)
    """
    confidence = check_confidence(confidence, allow_missing=True).to(torch.float64)
    small, large = check_binary("small_correct", small_correct), check_binary("large_correct", large_correct)
    check_same_length("confidence", confidence, "small_correct", small)
    check_same_length("confidence", confidence, "large_correct", large)
    for name, cost in {"small_cost": small_cost, "large_cost": large_cost}.items():
        if not 0 <= cost < math.inf:
            raise ConfigError(f"Expected `{name}` to be a finite number of at least 0, but got {cost}.")
    total = confidence.numel()
    if total == 0:
        raise ConfigError("Expected at least one prompt, but got none.")
    values, value_N, counts = torch.unique(confidence.nan_to_num(_MISSING), return_inverse=True, return_counts=True)
    gains = torch.zeros_like(counts).index_add(0, value_N, large.to(torch.int64) - small.to(torch.int64))
    num_deferred = [0, *counts.cumsum(0).tolist()]
    num_correct = [int(small.sum()) + gain for gain in [0, *gains.cumsum(0).tolist()]]
    thresholds = [None if value == _MISSING else value for value in values.tolist()] + [None]
    points = tuple(
        OperatingPoint(threshold, deferred / total, small_cost + large_cost * deferred / total, correct / total)
        for threshold, deferred, correct in zip(thresholds, num_deferred, num_correct, strict=True)
    )
    gained, lost = int((large & ~small).sum()), int((small & ~large).sum())
    return CascadeCurve(points, gained / total, lost / total, small_cost, large_cost)


_MISSING = -1.0
"""Sorts before every stated confidence."""


def _area(line: list[tuple[float, float]]) -> float:
    return math.fsum((right - left) * (low + high) / 2 for (left, low), (right, high) in pairwise(line))
