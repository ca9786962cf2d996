"""The tables and figures of a report, made of the records of runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from caopd.commands.report.collect import CURVES, EVENTS, RunRecord
from caopd.commands.report.tables import Cell, Column, ReportTable, Row
from caopd.commands.score.bootstrap import Estimate, score
from caopd.commands.score.predictions import Predictions
from caopd.metrics.bins import reliability_bins
from caopd.metrics.catalogue import FLOOR, MetricSpec, headline, interval, shown_of_runs
from caopd.metrics.functional.certainty import calibration_certainty
from caopd.metrics.functional.ranking import strict_pairwise_ranking
from caopd.metrics.functional.selective import risk_coverage_curve
from caopd.plots import reliability_diagram
from caopd.plots.comparison import Track, confidence_figure, curves_figure, pareto_figure, risk_coverage_figure
from caopd.run_directory import Measured, Metrics, setting
from caopd.types import GREEDY, SAMPLED

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MAX_POINTS = 400
"""Points of a risk-coverage curve that are plotted; more would not be seen."""
_EVENT = {
    GREEDY: "Whether the greedy completion is right",
    SAMPLED: "Whether a completion is right that is sampled as in training, which is what mu_hat estimates",
}
"""What the confidences of an event are judged by, as pages say it."""
_FLOOR_COLUMN = Column(FLOOR, "ECE if calibrated")
_IF_CALIBRATED = "ECE if calibrated: what a perfectly calibrated model with these confidences would show."


@dataclass(frozen=True)
class ReportFigures:
    """A section of a report that shows figures.

    Attributes:
        title: Its heading.
        text: How to read the figures.
        figures: Name of the files -> figure; several figures stand side by side.
        wide: Whether the section needs the whole width of a page.
    """

    title: str
    text: str
    figures: Mapping[str, Figure]
    wide: bool = False


def tables(records: Sequence[RunRecord]) -> list[ReportTable]:
    """Return the tables: the runs, their metrics before and after training, and those of their predictions.

    Each event has tables of its own, so that no number stands beside one of the other event.

    Args:
        records: The runs.
    """
    found = [_runs(records)]
    for event in _events(records):
        found.append(_before_and_after(records, event))
        predicted = [(each.name, each.predictions[event]) for each in records if event in each.predictions]
        if predicted:
            found.append(_of_predictions(predicted, event))
    return found


def figures(records: Sequence[RunRecord]) -> list[ReportFigures]:
    """Return the sections with figures, also those that say why there is no figure.

    Args:
        records: The runs.
    """
    by_event = [
        section(records, event) for event in _events(records) for section in (_confidence, _risk_coverage, _pareto)
    ]
    return [_reliability(records), *by_event, _curves(records)]


def _events(records: Sequence[RunRecord]) -> list[str]:
    """Return the events of which there is anything; the greedy one where there is nothing."""
    moments = [moment for each in records for moment in (each.initial, each.final) if moment]
    there = {name for moment in moments for name in moment.events} | {name for r in records for name in r.predictions}
    return [event for event in EVENTS if event in there] or [GREEDY]


def _runs(records: Sequence[RunRecord]) -> ReportTable:
    columns = [Column(key.lower(), key) for key in ("Run", "Method", "Model", "Task", "Steps", "Directory")]
    rows: list[Row] = [
        {
            "run": record.name,
            "method": record.method,
            "model": str(setting(record.config, "model", "source", "name_or_path") or "unnamed"),
            "task": record.task,
            "steps": record.final.step if record.final else None,
            "directory": str(record.directory),
        }
        for record in records
    ]
    return ReportTable("runs", "Runs", "Steps are optimizer steps.", columns, rows)


def _before_and_after(records: Sequence[RunRecord], event: str) -> ReportTable:
    heads = [Column(key, title) for key, title in (("run", "Run"), ("moment", "Training"), ("event", "Event"))]
    rows: list[Row] = []
    compared = []
    for record in records:
        for moment, measured in (("before", record.initial), ("after", record.final)):
            if measured is not None and event in measured.events:
                if moment == "after":
                    compared.append(len(rows))
                metrics = _with_intervals(measured.events[event])
                rows.append({**metrics, "run": record.name, "moment": moment, "event": event})
    note = (
        f"{_EVENT[event]}, for held-out prompts of the validation split. Calibration is that of completions that state "
        f"a confidence, with 95 % intervals; `-` is undefined. {_IF_CALIBRATED} Bold: best of the runs after training, "
        "which may be chance."
    )
    sizes = {record.final.events[event].get("n") for record in records if record.final and event in record.final.events}
    if len(sizes) > 1 or len({str(setting(record.config, "data", "task")) for record in records}) > 1:
        note += " The runs were not all measured on the same prompts: compare with care."
    columns = [*heads, Column("n", "n"), *_columns(shown_of_runs()), _FLOOR_COLUMN]
    return ReportTable(f"metrics_{event}", f"Before and after training: {event}", note, columns, rows, compared)


def _of_predictions(predicted: Sequence[tuple[str, Predictions]], event: str) -> ReportTable:
    heads = [Column("run", "Run"), Column("event", "Event"), Column("n", "n")]
    columns = [*heads, *_columns(headline()), _FLOOR_COLUMN]
    rows: list[Row] = []
    for name, predictions in predicted:
        scores, _ = score(predictions)
        found = scores.certainty
        floor = Estimate(found.floor, found.floor_low, found.floor_high, scores.n_parsed) if scores.n_parsed else None
        rows.append({"run": name, "event": event, "n": scores.n, **scores.estimates, FLOOR: floor})
    note = (
        f"{_EVENT[event]}, in files of `caopd predict`; 95 % intervals, prompts as units. {_IF_CALIBRATED} Bold: best "
        "value; whether two files differ by more than chance, `caopd score A B --paired` says."
    )
    return ReportTable(f"predictions_{event}", f"Predictions: {event}", note, columns, rows, range(len(rows)))


def _with_intervals(metrics: Metrics) -> dict[str, Cell]:
    """Return metrics whose calibration error has its interval, and so has what a calibrated model would show."""
    cells: dict[str, Cell] = dict(metrics)
    for name in ("ece", FLOOR):
        value, between = metrics.get(name), interval(metrics, name)
        if value is not None and between is not None:
            cells[name] = Estimate(value, *between, int(metrics.get("n_parsed") or 0))
    return cells


def _columns(specs: Sequence[MetricSpec]) -> list[Column]:
    return [Column(spec.name, spec.heading, spec.best) for spec in specs]


def _reliability(records: Sequence[RunRecord]) -> ReportFigures:
    shown = {}
    for number, record in enumerate(records, start=1):
        sources = {
            f"{event} predictions": (predictions.confidence, predictions.correct, predictions.prompt)
            for event, predictions in record.predictions.items()
        }
        if not sources and record.rollouts is not None:
            sources["sampled rollouts of the last round"] = record.rollouts
        for source, (confidence, correct, prompt) in sources.items():
            stated = ~np.isnan(confidence)
            if stated.any():
                pair = torch.from_numpy(confidence[stated]), torch.from_numpy(correct[stated])
                spr = float(strict_pairwise_ranking(*pair))
                certainty = calibration_certainty(*pair, torch.from_numpy(prompt[stated]))
                shown[f"reliability-{number}-{source.split()[0]}"] = reliability_diagram(
                    reliability_bins(*pair), title=f"{record.name}: {source}", spr=spr, certainty=certainty
                )
    text = (
        "Bars reach the accuracy of the completions that state a confidence in their bin; the hatched part is the gap "
        "to what they state. Thin bars are where the accuracy of a calibrated model would lie in 95 of 100 cases. "
        "Runs without predictions show the sampled rollouts of their last training round."
    )
    return ReportFigures("Reliability", text, shown, wide=True)


def _confidence(records: Sequence[RunRecord], event: str) -> ReportFigures:
    text = (
        f"{_EVENT[event]}. Circles before training, marks after it. On the dashed line a model is right as often as it "
        "claims; in the hatched zone above it claims too much."
    )
    tracks = {record.name: _track(record, event, "accuracy", "mean_confidence") for record in records}
    figure = confidence_figure(tracks, f"{event} completions")
    return ReportFigures(f"Confidence against accuracy: {event}", text, {f"confidence-{event}": figure})


def _risk_coverage(records: Sequence[RunRecord], event: str) -> ReportFigures:
    title = f"Risk and coverage: {event}"
    curves = {record.name: _risks(record.predictions.get(event)) for record in records}
    text = (
        f"{_EVENT[event]}. Error rate when only the most confident share of the completions is answered: the lower, "
        "the better the confidence tells right from wrong. A flat line tells nothing. Within a tie, the mean over all "
        "orders."
    )
    if not any(curves.values()):
        none = f"No run directory holds a `predictions.{event}.jsonl` with confidences, which `caopd predict` writes."
        return ReportFigures(title, none, {})
    figure = risk_coverage_figure(curves, f"{event} completions")
    return ReportFigures(title, text, {f"risk-coverage-{event}": figure})


def _risks(predictions: Predictions | None) -> list[tuple[float, float]]:
    """Return points (coverage, risk), at most about ``_MAX_POINTS``; none without predictions."""
    if predictions is None:
        return []
    stated = ~np.isnan(predictions.confidence)
    curve = risk_coverage_curve(
        torch.from_numpy(predictions.confidence[stated]), torch.from_numpy(predictions.correct[stated])
    )
    points = list(zip(curve.coverage.tolist(), curve.risk.tolist(), strict=True))
    return [*points[:: len(points) // _MAX_POINTS + 1], *points[-1:]]


def _pareto(records: Sequence[RunRecord], event: str) -> ReportFigures:
    tracks = {record.name: _track(record, event, "spr", "brier") for record in records}
    turned = {name: Track(_turned(track.before), _turned(track.after)) for name, track in tracks.items()}
    text = (
        f"{_EVENT[event]}. Up and to the right is better: right confidences, and higher ones on right completions than "
        "on wrong ones. Circles before training, marks after it."
    )
    figure = pareto_figure(turned, f"{event} completions")
    return ReportFigures(f"Calibration and ranking: {event}", text, {f"pareto-{event}": figure})


def _curves(records: Sequence[RunRecord]) -> ReportFigures:
    panels = {
        title: {record.name: record.curves.get(tag, ()) for record in records}
        for tag, title in CURVES.items()
        if any(tag in record.curves for record in records)
    }
    if not panels:
        return ReportFigures("Training", "No run directory holds TensorBoard events or a `metrics.csv`.", {}, wide=True)
    text = "Validation before training and after rounds; losses of different methods are not comparable."
    return ReportFigures("Training", text, {"training": curves_figure(panels)}, wide=True)


def _track(record: RunRecord, event: str, x: str, y: str) -> Track:
    return Track(_point(record.initial, event, x, y), _point(record.final, event, x, y))


def _point(measured: Measured | None, event: str, x: str, y: str) -> tuple[float, float] | None:
    metrics = {} if measured is None else measured.events.get(event, {})
    first, second = metrics.get(x), metrics.get(y)
    return None if first is None or second is None else (first, second)


def _turned(point: tuple[float, float] | None) -> tuple[float, float] | None:
    return None if point is None else (point[0], 1 - point[1])
