"""Figures in which a set of runs is a point before and a point after training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from caopd.commands.report.metric_tables import EVENT
from caopd.commands.report.sections import ReportFigures
from caopd.commands.report.sets import RunSet, half_width
from caopd.metrics.catalogue import CATALOGUE
from caopd.plots.comparison import Track, confidence_figure, pareto_figure

_UNDEFINED = {
    "accuracy": "no completion has a verdict",
    "mean_confidence": "no completion states a confidence",
    "brier": "no completion states a confidence",
    "spr": "of the completions that state a confidence, none is right or none is wrong",
}
"""When a metric that is plotted has no value."""
_CROSSES = " Of several seeds, the mean; a cross is its 95 % interval."
Points = Sequence[tuple[float, float]] | None
"""The point of each run of a set; None where one has none."""


def confidence_and_accuracy(sets: Sequence[RunSet], event: str) -> ReportFigures:
    """Return the section of mean stated confidence against accuracy.

    Args:
        sets: The sets of runs.
        event: ``greedy`` or ``sampled``.
    """
    text = (
        f"{EVENT[event]}. Circles before training, marks after it. On the dashed line a model is right as often as it "
        f"claims; in the hatched zone above it claims too much.{_if_several(sets)}"
    )
    tracks, missing = _tracks(sets, event, "accuracy", "mean_confidence")
    shown = {f"confidence-{event}": confidence_figure(tracks, f"{event} completions")} if _any(tracks) else {}
    return ReportFigures(f"Confidence against accuracy: {event}", text, shown, missing)


def calibration_and_ranking(sets: Sequence[RunSet], event: str) -> ReportFigures:
    """Return the section of 1 - Brier score against strict pairwise ranking.

    Args:
        sets: The sets of runs.
        event: ``greedy`` or ``sampled``.
    """
    text = (
        f"{EVENT[event]}. Up and to the right is better: right confidences, and higher ones on right completions than "
        f"on wrong ones. Circles before training, marks after it.{_if_several(sets)}"
    )
    tracks, missing = _tracks(sets, event, "spr", "brier")
    turned = {name: Track(_turned(each.before), _turned(each.after), each.spread) for name, each in tracks.items()}
    shown = {f"pareto-{event}": pareto_figure(turned, f"{event} completions")} if _any(tracks) else {}
    return ReportFigures(f"Calibration and ranking: {event}", text, shown, missing)


def _if_several(sets: Sequence[RunSet]) -> str:
    return _CROSSES if any(len(each.runs) > 1 for each in sets) else ""


def _any(tracks: Mapping[str, Track]) -> bool:
    return any(track.before or track.after for track in tracks.values())


def _tracks(sets: Sequence[RunSet], event: str, x: str, y: str) -> tuple[dict[str, Track], list[tuple[str, str]]]:
    """Return every set's points, and which sets lack one, and why."""
    tracks, missing = {}, []
    for each in sets:
        before, after = (_points(each, moment, event, x, y) for moment in ("before", "after"))
        tracks[each.name] = Track(_middle(before), _middle(after), _spread(after))
        if before is None or after is None:
            missing.append((each.name, _why(each, "after" if after is None else "before", event, x, y)))
    return tracks, missing


def _points(runs: RunSet, moment: str, event: str, x: str, y: str) -> Points:
    measured = [found.events.get(event, {}) for found in runs.measured(moment)]
    pairs = [(metrics.get(x), metrics.get(y)) for metrics in measured]
    known = [(first, second) for first, second in pairs if first is not None and second is not None]
    return known if len(known) == len(runs.runs) else None


def _middle(points: Points) -> tuple[float, float] | None:
    return None if points is None else (fmean(x for x, _ in points), fmean(y for _, y in points))


def _spread(points: Points) -> tuple[float, float] | None:
    if points is None:
        return None
    x, y = (half_width(values) for values in zip(*points, strict=True))
    return None if x is None or y is None else (x, y)


def _why(runs: RunSet, moment: str, event: str, *names: str) -> str:
    """Return why a set has no point before or after training."""
    one = "" if len(runs.runs) == 1 else "of one of its seeds, "
    found = [each.events.get(event) for each in runs.measured(moment)]
    if len(found) < len(runs.runs):
        return f"{one}nothing was measured {moment} training"
    undefined = [name for name in names for metrics in found if metrics is not None and metrics.get(name) is None]
    if None in found or not undefined:
        return f"{one}no {event} completions were measured {moment} training"
    return f"{one}the {CATALOGUE[undefined[0]].title} {moment} training is undefined: {_UNDEFINED[undefined[0]]}"


def _turned(point: tuple[float, float] | None) -> tuple[float, float] | None:
    return None if point is None else (point[0], 1 - point[1])
