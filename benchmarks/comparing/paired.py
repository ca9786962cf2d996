"""Differences of two rows of the table, seed by seed."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from scipy.stats import ttest_1samp

from comparing.results import Groups

LEVEL = 0.05
"""Of the test."""


@dataclass(frozen=True)
class Difference:
    """Second row minus first, over the seeds that both have.

    Attributes:
        values: One per seed.
        p: Of a two-sided t-test of a mean of 0; None for one seed, which tells nothing of others.
        low: Lower end of the 95 % interval of the mean; None for one seed.
        high: Upper end.
    """

    values: tuple[float, ...]
    p: float | None
    low: float | None = None
    high: float | None = None

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return statistics.fmean(self.values)

    @property
    def is_clear(self) -> bool:
        """Whether chance among the seeds does not explain it: whether the interval leaves out 0; never of one seed."""
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high

    @property
    def rises(self) -> bool:
        """Whether the second row is clearly higher."""
        return self.is_clear and self.mean > 0

    @property
    def falls(self) -> bool:
        """Whether the second row is clearly lower."""
        return self.is_clear and self.mean < 0

    def __str__(self) -> str:
        """Mean with its interval, and p."""
        if self.p is None:
            return f"{self.mean:+.3f}, one seed"
        return f"{self.mean:+.3f} [{self.low:+.3f}, {self.high:+.3f}], p = {self.p:.2g}"


def difference(groups: Groups, first: str, second: str, metric: str, *, distance: bool = False) -> Difference:
    """Return how a metric differs between two rows, or how its distance from 0 does."""
    before, after = ({run["seed"]: run.get(metric) for run in groups[name]} for name in (first, second))
    pairs = [(before[seed], after[seed]) for seed in sorted(before.keys() & after.keys())]
    known = [(x, y) for x, y in pairs if x is not None and y is not None]
    return _tested(tuple(abs(y) - abs(x) if distance else y - x for x, y in known))


def from_zero(groups: Groups, name: str, metric: str) -> Difference:
    """Return how a row's metric differs from 0."""
    return _tested(tuple(value for run in groups[name] if (value := run.get(metric)) is not None))


def _tested(values: tuple[float, ...]) -> Difference:
    if len(values) < 2:
        return Difference(values, None)
    if len(set(values)) == 1:  # without spread there is no test to make
        return Difference(values, 0.0 if values[0] else 1.0, values[0], values[0])
    test = ttest_1samp(values, 0.0)
    low, high = test.confidence_interval(1 - LEVEL)
    return Difference(values, float(test.pvalue), float(low), float(high))
