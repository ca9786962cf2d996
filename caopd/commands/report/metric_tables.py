"""The tables of a report, made of sets of runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from caopd.commands.report.collect import EVENTS, RunRecord
from caopd.commands.report.differences import differences
from caopd.commands.report.sets import RunSet, mean_of
from caopd.commands.report.tables import Cell, Column, ReportTable, Row
from caopd.commands.score.bootstrap import Estimate, score
from caopd.commands.score.predictions import Predictions
from caopd.metrics.catalogue import CATALOGUE, FLOOR, MetricSpec, headline, interval, shown_of_runs
from caopd.run_directory import Metrics, setting
from caopd.types import GREEDY, SAMPLED

EVENT = {
    GREEDY: "Whether the greedy completion is right",
    SAMPLED: "Whether a completion is right that is sampled as in training, which is what mu_hat estimates",
}
"""What the confidences of an event are judged by, as pages say it."""
_FLOOR_COLUMN = Column(FLOOR, "ECE if calibrated")
_IF_CALIBRATED = "ECE if calibrated: what a perfectly calibrated model with these confidences would show."
_OF_SEEDS = (
    " Of several seeds, the mean, the 95 % interval of that mean (Student's t), the completions of all, and `-` where "
    "a seed has no value."
)


def tables(sets: Sequence[RunSet]) -> list[ReportTable]:
    """Return the tables: the runs, their metrics before and after training, and those of their predictions.

    Each event has tables of its own, so that no number stands beside one of the other event.

    Args:
        sets: The sets of runs.
    """
    found = [_runs(sets)]
    for event in events_of(sets):
        found.append(_before_and_after(sets, event))
        differ = differences(sets, event)
        found += [] if differ is None else [differ]
        if _several(sets):
            found.append(_every_seed(sets, event))
        if any(event in run.predictions for each in sets for run in each.runs):
            found.append(_of_predictions(sets, event))
    return found


def events_of(sets: Sequence[RunSet]) -> list[str]:
    """Return the events of which there is anything; the greedy one where there is nothing.

    Args:
        sets: The sets of runs.
    """
    there = {name for each in sets for m in ("before", "after") for seen in each.measured(m) for name in seen.events}
    there |= {name for each in sets for run in each.runs for name in run.predictions}
    return [event for event in EVENTS if event in there] or [GREEDY]


def _several(sets: Sequence[RunSet]) -> bool:
    return any(len(each.runs) > 1 for each in sets)


def _runs(sets: Sequence[RunSet]) -> ReportTable:
    rows: list[Row] = [_run(name, run) for each in sets for name, run in each.labelled]
    keys = ["Run", "Method", "Model", "Task", "Seed", "Steps", "Directory"]
    columns, note = [Column(key.lower(), key) for key in keys], "Steps are optimizer steps."
    if any(row["went_on_from"] for row in rows):
        columns.append(Column("went_on_from", "Went on from"))
        note += " A run that went on in another directory is one run; its curves begin where those that are there do."
    return ReportTable("runs", "Runs", note, columns, rows)


def _run(name: str, run: RunRecord) -> Row:
    lost = [] if run.history.lost is None else [f"{run.history.lost} (not there)"]
    return {
        "run": name,
        "method": run.method,
        "model": str(setting(run.config, "model", "source", "name_or_path") or "unnamed"),
        "task": run.task,
        "seed": run.seed,
        "steps": run.final.step if run.final else None,
        "directory": str(run.directory),
        "went_on_from": ", ".join([*lost, *map(str, run.history.directories[:-1])]),
    }


def _heads(sets: Sequence[RunSet], *further: str) -> list[Column]:
    keys = ["Run", *(["Seeds"] if _several(sets) else []), *further, "Event", "n"]
    return [Column(key.lower() if key != "Training" else "moment", key) for key in keys]


def _before_and_after(sets: Sequence[RunSet], event: str) -> ReportTable:
    rows: list[Row] = []
    compared = []
    for each in sets:
        for moment in ("before", "after"):
            found = [one.events[event] for one in each.measured(moment) if event in one.events]
            if found:
                if moment == "after":
                    compared.append(len(rows))
                cells = _with_intervals(found[0]) if len(found) == 1 else _means(found)
                rows.append({**cells, "run": each.name, "seeds": len(found), "moment": moment, "event": event})
    note = (
        f"{EVENT[event]}, for held-out prompts of the validation split. Calibration is that of completions that state "
        f"a confidence, with 95 % intervals; `-` is undefined. {_IF_CALIBRATED} Bold: best of the runs after training, "
        f"which may be chance.{_OF_SEEDS if _several(sets) else ''}"
    )
    if not _are_alike(sets, event):
        note += " The runs were not all measured on the same prompts: compare with care."
    columns = [*_heads(sets, "Training"), *_columns(shown_of_runs()), _FLOOR_COLUMN]
    return ReportTable(f"metrics_{event}", f"Before and after training: {event}", note, columns, rows, compared)


def _are_alike(sets: Sequence[RunSet], event: str) -> bool:
    """Return whether all runs were measured on the same prompts, as far as their sizes and configs tell."""
    measured = [one.events[event] for each in sets for one in each.measured("after") if event in one.events]
    tasks = {str(setting(run.config, "data", "task")) for each in sets for run in each.runs}
    return len({one.get("n") for one in measured}) <= 1 and len(tasks) == 1


def _every_seed(sets: Sequence[RunSet], event: str) -> ReportTable:
    rows: list[Row] = [
        {**_with_intervals(run.final.events[event]), "run": name, "event": event}
        for each in sets
        for name, run in each.labelled
        if len(each.runs) > 1 and run.final is not None and event in run.final.events
    ]
    columns = [Column("run", "Run"), Column("event", "Event"), Column("n", "n"), *_columns(shown_of_runs())]
    note = f"{EVENT[event]}: what each seed measured after training, with 95 % intervals over its prompts."
    return ReportTable(f"seeds_{event}", f"Every seed after training: {event}", note, columns, rows)


def _of_predictions(sets: Sequence[RunSet], event: str) -> ReportTable:
    columns = [*_heads(sets), *_columns(headline()), _FLOOR_COLUMN]
    rows: list[Row] = []
    for each in sets:
        found = [run.predictions[event] for run in each.runs if event in run.predictions]
        if found:
            cells = _scored(found[0]) if len(found) == 1 else _means([_values(one) for one in found])
            rows.append({**cells, "run": each.name, "seeds": len(found), "event": event})
    note = (
        f"{EVENT[event]}, in files of `caopd predict`; 95 % intervals, prompts as units. {_IF_CALIBRATED} Bold: best "
        "value; whether two files differ by more than chance, `caopd score A B --paired` says."
        f"{_OF_SEEDS if _several(sets) else ''}"
    )
    return ReportTable(f"predictions_{event}", f"Predictions: {event}", note, columns, rows, range(len(rows)))


def _scored(predictions: Predictions) -> Mapping[str, Cell]:
    scores, _ = score(predictions)
    found = scores.certainty
    floor = Estimate(found.floor, found.floor_low, found.floor_high, scores.n_parsed) if scores.n_parsed else None
    return {"n": scores.n, **scores.estimates, FLOOR: floor}


def _values(predictions: Predictions) -> Metrics:
    """Return the values of a file of predictions, without their intervals."""
    scores, _ = score(predictions, resamples=0)
    floor = scores.certainty.floor if scores.n_parsed else None
    return {"n": scores.n, **{name: each.value for name, each in scores.estimates.items()}, FLOOR: floor}


def _means(found: Sequence[Metrics]) -> Mapping[str, Cell]:
    """Return the mean of every metric over seeds, and how many completions all of them have."""
    limits = {name: (spec.lowest, spec.highest) for name, spec in CATALOGUE.items()}
    means: dict[str, Cell] = {
        name: mean_of([each.get(name) for each in found], *limits.get(name, (0.0, 1.0))) for name in found[0]
    }
    return {**means, "n": int(sum(each["n"] or 0 for each in found))}


def _with_intervals(metrics: Metrics) -> Mapping[str, Cell]:
    """Return metrics whose calibration error has its interval, and so has what a calibrated model would show."""
    cells: dict[str, Cell] = dict(metrics)
    for name in ("ece", FLOOR):
        value, between = metrics.get(name), interval(metrics, name)
        if value is not None and between is not None:
            cells[name] = Estimate(value, *between, int(metrics.get("n_parsed") or 0))
    return cells


def _columns(specs: Sequence[MetricSpec]) -> list[Column]:
    return [Column(spec.name, spec.heading, spec.best) for spec in specs]
