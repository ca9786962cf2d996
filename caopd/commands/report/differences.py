"""The table of how sets of runs differ, seed by seed."""

from __future__ import annotations

from collections.abc import Sequence

from caopd.commands.report.sets import RunSet, mean_of
from caopd.commands.report.tables import Cell, Column, ReportTable, Row
from caopd.metrics.catalogue import MetricSpec, shown_of_runs
from caopd.run_directory import Metrics

_NOTE = (
    "What a run measured after training, minus what the first one did with the same seed: the mean over the seeds that "
    "both have, and its 95 % interval (Student's t). Where the interval leaves out 0, the seeds tell the two apart; of "
    "twenty intervals one does so by chance. `|...|` is the distance from 0."
)


def differences(sets: Sequence[RunSet], event: str) -> ReportTable | None:
    """Return how every set with several seeds differs from the first such set; None where no two share two seeds.

    Args:
        sets: The sets of runs.
        event: ``greedy`` or ``sampled``.
    """
    measured = [(each.name, found) for each in sets if len(found := _by_seed(each, event)) > 1]
    rows = [_row(measured[0], other, event) for other in measured[1:]]
    known = [row for row in rows if row is not None]
    if not known:
        return None
    heads = [Column(key.lower(), key) for key in ("Run", "Minus", "Seeds", "Event")]
    columns = [*heads, *(Column(spec.name, _title(spec)) for spec in shown_of_runs())]
    return ReportTable(f"differences_{event}", f"Differences after training: {event}", _NOTE, columns, known)


def _by_seed(runs: RunSet, event: str) -> dict[str, Metrics]:
    return {run.seed: run.final.events[event] for run in runs.runs if run.final and event in run.final.events}


def _row(first: tuple[str, dict[str, Metrics]], other: tuple[str, dict[str, Metrics]], event: str) -> Row | None:
    (name, before), (own, after) = first, other
    shared = [(before[seed], after[seed]) for seed in after if seed in before]
    if len(shared) < 2:
        return None
    cells: dict[str, Cell] = {spec.name: _difference(spec, shared) for spec in shown_of_runs()}
    return {"run": own, "minus": name, "seeds": len(shared), "event": event, **cells}


def _difference(spec: MetricSpec, pairs: Sequence[tuple[Metrics, Metrics]]) -> Cell:
    values = [(_value(spec, first), _value(spec, second)) for first, second in pairs]
    width = spec.highest - spec.lowest
    return mean_of([None if x is None or y is None else y - x for x, y in values], -width, width)


def _value(spec: MetricSpec, metrics: Metrics) -> float | None:
    value = metrics.get(spec.name)
    return None if value is None else abs(value) if spec.best == "nearest zero" else value


def _title(spec: MetricSpec) -> str:
    return f"|{spec.title}|" if spec.best == "nearest zero" else spec.heading
