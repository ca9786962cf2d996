"""Figures in which a set of runs is a line: risk and coverage, and the curves of training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from caopd.commands.report.curves import CURVES, Curve
from caopd.commands.report.metric_tables import EVENT
from caopd.commands.report.sections import ReportFigures
from caopd.commands.report.sets import RunSet, mean_curve
from caopd.commands.score.bootstrap import Estimate
from caopd.commands.score.predictions import Predictions
from caopd.metrics.functional.selective import risk_coverage_curve
from caopd.plots.comparison import Band, curves_figure, risk_coverage_figure

_MAX_POINTS = 400
"""Points of a risk-coverage curve that are plotted; more would not be seen."""
_SHARE = (0.0, 1.0)
"""The smallest and the largest possible value of a rate, and of an error of confidences."""
_NO_LOG = "the run directory holds neither TensorBoard events nor a `metrics.csv` with these curves"
_NO_STEP = "its seeds logged at no step in common"
_BANDS = " Of several seeds, the mean; a band is its 95 % interval."


def risk_and_coverage(sets: Sequence[RunSet], event: str) -> ReportFigures:
    """Return the section of the error rate among the most confident completions.

    Args:
        sets: The sets of runs.
        event: ``greedy`` or ``sampled``.
    """
    text = (
        f"{EVENT[event]}. Error rate when only the most confident share of the completions is answered: the lower, "
        "the better the confidence tells right from wrong. A flat line tells nothing. Within a tie, the mean over all "
        f"orders.{_if_several(sets)}"
    )
    none = f"the run directory holds no `predictions.{event}.jsonl` with confidences, which `caopd predict` writes"
    lines: dict[str, Curve] = {}
    bands: dict[str, Band] = {}
    missing = []
    for each in sets:
        found = {name: _risks(run.predictions.get(event)) for name, run in each.labelled}
        missing += [(name, none) for name, curve in found.items() if not curve]
        mean = mean_curve(_at_shared_places([curve for curve in found.values() if curve]), *_SHARE)
        lines[each.name], bands[each.name] = _line(mean), _band(mean)
    shown = {}
    if any(lines.values()):
        shown[f"risk-coverage-{event}"] = risk_coverage_figure(lines, f"{event} completions", bands)
    return ReportFigures(f"Risk and coverage: {event}", text, shown, missing)


def training(sets: Sequence[RunSet]) -> ReportFigures:
    """Return the section of the curves that were logged.

    Args:
        sets: The sets of runs.
    """
    text = (
        "Validation before training and after rounds; losses of different methods are not comparable."
        f"{_if_several(sets)}"
    )
    runs = [
        (name, run, [tag for tag in CURVES if tag not in run.curves]) for each in sets for name, run in each.labelled
    ]
    missing = [(name, _not_logged(tags) if run.curves else _NO_LOG) for name, run, tags in runs if tags]
    panels: dict[str, dict[str, Curve]] = {}
    bands: dict[str, dict[str, Band]] = {}
    for tag, title in CURVES.items():
        logged = {each.name: [run.curves[tag] for run in each.runs if tag in run.curves] for each in sets}
        if any(logged.values()):
            limits = () if tag == "train/loss" else _SHARE
            means = {name: mean_curve(curves, *limits) for name, curves in logged.items()}
            panels[title] = {name: _line(mean) for name, mean in means.items()}
            bands[title] = {name: _band(mean) for name, mean in means.items()}
            missing += [(name, _NO_STEP) for name, curves in logged.items() if curves and not means[name]]
    shown = {"training": curves_figure(panels, bands)} if panels else {}
    return ReportFigures("Training", text, shown, list(dict.fromkeys(missing)), wide=True)


def _not_logged(tags: Sequence[str]) -> str:
    return f"its log has no {', '.join(f'`{tag}`' for tag in tags)}"


def _if_several(sets: Sequence[RunSet]) -> str:
    return _BANDS if any(len(each.runs) > 1 for each in sets) else ""


def _line(means: Mapping[float, Estimate]) -> Curve:
    return [(place, each.value) for place, each in means.items() if each.value is not None]


def _band(means: Mapping[float, Estimate]) -> Band:
    ends = [(place, each.low, each.high) for place, each in means.items()]
    return [(place, low, high) for place, low, high in ends if low is not None and high is not None]


def _risks(predictions: Predictions | None) -> Curve:
    """Return points (coverage, risk), at most about ``_MAX_POINTS``; none without predictions."""
    if predictions is None:
        return ()
    stated = ~np.isnan(predictions.confidence)
    curve = risk_coverage_curve(
        torch.from_numpy(predictions.confidence[stated]), torch.from_numpy(predictions.correct[stated])
    )
    points = list(zip(curve.coverage.tolist(), curve.risk.tolist(), strict=True))
    return [*points[:: len(points) // _MAX_POINTS + 1], *points[-1:]]


def _at_shared_places(curves: Sequence[Curve]) -> Sequence[Curve]:
    """Return all curves at the coverages of the first, since as many completions as these need not state one."""
    if len(curves) < 2:
        return curves
    places = [place for place, _ in curves[0]]
    risks = [np.interp(places, [x for x, _ in curve], [y for _, y in curve]).tolist() for curve in curves]
    return [list(zip(places, each, strict=True)) for each in risks]
