"""Forgetting: what training on several tasks, one after the other, does to each of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from caopd.metrics.catalogue import CATALOGUE

Values = Mapping[str, float | None]
"""Metric -> value; None where it is undefined."""
BEFORE = "before"
"""Name of the measurement before the first round."""
FORGETTING = {"accuracy_drop": "accuracy", "ece_rise": "ece", "brier_rise": "brier"}
"""Name of a loss that a task suffers -> the metric that it is measured by."""


@dataclass(frozen=True)
class Measurement:
    """The metrics of all tasks at one moment of training.

    Attributes:
        stage: The stage that has just ended, or :data:`BEFORE`.
        round: Number of rounds that are done.
        step: Number of optimizer steps that are done.
        tasks: Name of the task -> event -> its metrics.
    """

    stage: str
    round: int
    step: int
    tasks: Mapping[str, Mapping[str, Values]]


def forgetting(measurements: Sequence[Measurement]) -> dict[str, dict[str, dict[str, float | None]]]:
    """Return what the tasks of earlier stages have lost since their own stage ended, event by event.

    ``accuracy_drop`` is the accuracy at the end of the task's stage minus that at the end of training; ``ece_rise`` and
    ``brier_rise`` are the error at the end of training minus that at the end of the stage. Positive is forgotten,
    negative is gained. Minus the mean ``accuracy_drop`` is the backward transfer of Lopez-Paz and Ranzato 2017 (arXiv
    1706.08840).

    Args:
        measurements: The measurements in the order of time; the last one is the end of training.

    Returns:
        Task -> event -> measure -> value, None where it is undefined; and ``mean`` over the tasks, where there is one.

    Example:
        >>> rows = [("before", 0.2, 0.5), ("A", 0.75, 0.125), ("B", 0.5, 0.375)]
        >>> def metrics(accuracy, error):
        ...     return {"A": {"greedy": {"accuracy": accuracy, "ece": error, "brier": error}}, "B": {}}
        >>> measured = [Measurement(stage, i, i, metrics(*values)) for i, (stage, *values) in enumerate(rows)]
        >>> forgetting(measured)["A"]["greedy"]
        {'accuracy_drop': 0.25, 'ece_rise': 0.25, 'brier_rise': 0.25}
    """
    if not measurements:
        return {}
    end = measurements[-1].tasks
    lost = {
        each.stage: {
            event: {
                name: _lost(metric, each.tasks[each.stage].get(event, {}), values)  # a resumed run may measure more
                for name, metric in FORGETTING.items()
            }
            for event, values in end[each.stage].items()
        }
        for each in measurements[:-1]
        if each.stage != BEFORE
    }
    if lost:
        lost["mean"] = {
            event: {name: _mean([events[event][name] for events in lost.values()]) for name in FORGETTING}
            for event in next(iter(lost.values()))
        }
    return lost


def as_json(measurements: Sequence[Measurement]) -> dict[str, Any]:
    """Return all measurements and what is forgotten, as ``stages.json`` holds them."""
    return {"stages": [asdict(each) for each in measurements], "forgetting": forgetting(measurements)}


def _lost(metric: str, before: Values, after: Values) -> float | None:
    then, end = before.get(metric), after.get(metric)
    if then is None or end is None:
        return None
    return then - end if CATALOGUE[metric].best == "largest" else end - then


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None
