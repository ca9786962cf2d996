"""Shows a cascade's curve as a table, and writes it as JSON and as figures."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from rich.table import Table

from caopd.commands.outputs import together
from caopd.commands.route.choices import Choices
from caopd.files import write_text
from caopd.metrics.cost_curve import CascadeCurve, OperatingPoint
from caopd.plots import cascade_figure, save_figure

_ROWS = 10
"""About so many rows, evenly spaced by the share that is deferred, are shown in the table."""


def table(curve: CascadeCurve, choices: Choices, event: str | None) -> Table:
    """Return a table of some operating points, the chosen ones included, and a summary of the curve.

    Args:
        curve: All operating points.
        choices: What was asked for.
        event: Which completions these are; None where it is not known.
    """
    kind = "answers" if event is None else f"{event} answers"
    shown = Table(title=f"{kind} below the threshold are deferred to the large model", title_justify="left")
    for name in ("threshold", "deferred", "cost", "accuracy", "random", "oracle"):
        shown.add_column(name, justify="right")
    shown.add_column("")
    for point in _some(curve, choices):
        shown.add_row(
            _threshold(point),
            f"{point.deferred:.1%}",
            f"{point.cost:.3g}",
            f"{point.accuracy:.3f}",
            f"{curve.random_accuracy(point.deferred):.3f}",
            f"{curve.oracle_accuracy(point.deferred):.3f}",
            _remark(point, choices),
        )
    shown.caption = "\n".join(_sentences(curve, choices))
    shown.caption_justify = "left"
    return shown


def as_json(curve: CascadeCurve, choices: Choices) -> dict[str, object]:
    """Return the curve and the choices as a JSON object; what is undefined is None.

    Args:
        curve: All operating points.
        choices: What was asked for.
    """
    relative = curve.relative_area
    return {
        "small_cost": curve.small_cost,
        "large_cost": curve.large_cost,
        "small_accuracy": curve.small_accuracy,
        "large_accuracy": curve.large_accuracy,
        "only_large_correct": curve.gained,
        "only_small_correct": curve.lost,
        "area_above_random": curve.area_above_random,
        "oracle_area_above_random": curve.oracle_area_above_random,
        "relative_area": None if math.isnan(relative) else relative,
        **asdict(choices),
        "points": [asdict(point) for point in curve.points],
    }


def written(directory: Path, record: Mapping[str, object], curve: CascadeCurve, choices: Choices) -> list[Path]:
    """Write ``route.json`` and the figure as SVG, PDF and PNG, all or none, and return their paths.

    Args:
        directory: Where the files go; it is made if it is missing.
        record: Content of the JSON file.
        curve: The curve that the figure shows.
        choices: The operating points that the figure marks.
    """
    marked = {"target": choices.for_target, "budget": choices.for_budget}
    figure = cascade_figure(curve, {name: point for name, point in marked.items() if point is not None})
    with together(directory) as folder:
        path = folder / "route.json"
        write_text(path, json.dumps(record, indent=2, allow_nan=False, ensure_ascii=False) + "\n")
        names = [each.name for each in (path, *save_figure(figure, folder / "route"))]
    return [directory / name for name in names]


def _some(curve: CascadeCurve, choices: Choices) -> list[OperatingPoint]:
    wanted = [min(curve.points, key=lambda point: abs(point.deferred - k / _ROWS)) for k in range(_ROWS + 1)]
    chosen = [point for point in (choices.for_target, choices.for_budget) if point is not None]
    return sorted({*wanted, *chosen}, key=lambda point: point.deferred)


def _threshold(point: OperatingPoint) -> str:
    if point.threshold is None:
        return "keep all" if point.deferred == 0 else "defer all"
    return f"{point.threshold:.4g}"


def _remark(point: OperatingPoint, choices: Choices) -> str:
    found = {"target": choices.for_target, "budget": choices.for_budget}
    return ", ".join(name for name, chosen in found.items() if chosen == point)


def _sentences(curve: CascadeCurve, choices: Choices) -> list[str]:
    relative = "" if math.isnan(curve.relative_area) else f", {curve.relative_area:.1%} of the oracle's"
    sentences = [f"area above random deferral: {curve.area_above_random:+.4f}{relative}"]
    if choices.target_accuracy is not None and choices.for_target is None:
        best = max(point.accuracy for point in curve.points)
        sentences.append(f"no threshold reaches an accuracy of {choices.target_accuracy:g}: the best is {best:.3f}")
    if choices.budget is not None and choices.for_budget is None:
        sentences.append(
            f"no threshold keeps to {choices.budget:g}: the small model alone costs {curve.points[0].cost:g}"
        )
    return sentences
