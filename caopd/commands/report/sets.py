"""Sets of runs that differ in their seed alone: what a report compares."""

from __future__ import annotations

import json
import math
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from caopd.commands.report.collect import RunRecord
from caopd.commands.report.curves import Curve
from caopd.commands.score.bootstrap import Estimate
from caopd.errors import ConfigError
from caopd.run_directory import Measured, run_settings

_SEEDS = ("seed_everything", "data.seed")
_T = (
    *(12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281),
    *(2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860),
    *(2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555, 2.0518, 2.0484, 2.0452, 2.0423),
)
"""Quantiles at .975 of Student's t distribution with 1, 2, ... 30 degrees of freedom."""


@dataclass(frozen=True)
class RunSet:
    """Runs with the same settings but for their seeds, and as many steps; often a single one.

    Attributes:
        name: Name of the set in tables and figures; no two sets share one.
        runs: The runs, at least one.
    """

    name: str
    runs: Sequence[RunRecord]

    @property
    def labelled(self) -> Iterator[tuple[str, RunRecord]]:
        """Each run with a name of its own: that of the set, with the seed where there are several."""
        for run in self.runs:
            yield (self.name if len(self.runs) == 1 else f"{self.name}, seed {run.seed}"), run

    def measured(self, moment: str) -> list[Measured]:
        """Return what its runs measured.

        Args:
            moment: ``before`` or ``after`` training.
        """
        found = [run.initial if moment == "before" else run.final for run in self.runs]
        return [each for each in found if each is not None]


def sets_of(runs: Sequence[RunRecord], names: Sequence[str] | None = None) -> list[RunSet]:
    """Gather runs that differ in their seed alone; a second run of the same seed begins another set.

    Args:
        runs: The runs; without a config a run is a set of its own.
        names: Names of the sets, in the order of their first runs; None takes the names of their methods, numbered
            where they repeat.

    Raises:
        ConfigError: There are not as many names as sets, or a name is given twice.
    """
    gathered: dict[str, list[RunRecord]] = {}
    seen = Counter[str]()
    for run in runs:
        settings = run_settings(run.config)
        seeds = [settings.pop(name, None) for name in _SEEDS]
        own = [str(run.directory)] if not run.config else [settings, None if run.final is None else run.final.step]
        kind = json.dumps(own, sort_keys=True, default=str)
        seen[f"{kind} {seeds}"] += 1
        gathered.setdefault(f"{kind} {seen[f'{kind} {seeds}']}", []).append(run)
    groups = list(gathered.values())
    given = list(names) if names is not None else _numbered([group[0].method for group in groups])
    if len(given) != len(groups) or len(set(given)) < len(given):
        found = "; ".join(", ".join(str(run.directory) for run in group) for group in groups)
        raise ConfigError(
            f"Expected {len(groups)} different names for the runs {found} (those that differ in their seed alone share "
            f"one), but got {len(given)}: {', '.join(given)}."
        )
    return [RunSet(name, group) for name, group in zip(given, groups, strict=True)]


def mean_of(values: Sequence[float | None], lowest: float = -math.inf, highest: float = math.inf) -> Estimate | None:
    """Return the mean over seeds with its 95 % interval, of Student's t; None where a seed's value is undefined.

    Args:
        values: One for each seed; the interval takes two.
        lowest: The smallest value that is possible, where the interval ends; that of few seeds reaches far.
        highest: The largest one.

    Example:
        >>> mean_of([1.0, 1.0]), mean_of([0.5, None])
        (Estimate(value=1.0, low=1.0, high=1.0, n=2), None)
    """
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    mean, half = statistics.fmean(known), half_width(known)
    if half is None:
        return Estimate(mean, None, None, 1)
    return Estimate(mean, max(lowest, mean - half), min(highest, mean + half), len(known))


def half_width(values: Sequence[float]) -> float | None:
    """Return half the width of the 95 % interval of a mean; None for a single value.

    Args:
        values: One for each seed.
    """
    free = len(values) - 1
    if free < 1:
        return None
    # Beyond the table: the first terms of the expansion in 1 / free, right to 0.0001.
    quantile = _T[free - 1] if free <= len(_T) else 1.95996 + 2.37227 / free + 2.82250 / free**2
    return quantile * statistics.stdev(values) / math.sqrt(len(values))


def mean_curve(curves: Sequence[Curve], lowest: float = -math.inf, highest: float = math.inf) -> dict[float, Estimate]:
    """Return the mean of curves, at the places that all of them have.

    Args:
        curves: Points (place, value), one curve for each seed.
        lowest: As in :func:`mean_of`.
        highest: Likewise.

    Returns:
        Place -> the mean and its interval, by rising place.
    """
    values: Sequence[Mapping[float, float]] = [dict(curve) for curve in curves]
    shared = set[float]().union(*values).intersection(*values) if values else set()
    means = {place: mean_of([each[place] for each in values], lowest, highest) for place in sorted(shared)}
    return {place: mean for place, mean in means.items() if mean is not None}


def _numbered(names: Sequence[str]) -> list[str]:
    total, seen = Counter(names), Counter[str]()
    numbered = []
    for name in names:
        seen[name] += 1
        numbered.append(name if total[name] == 1 else f"{name} #{seen[name]}")
    return numbered
