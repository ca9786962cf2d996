"""The cost-accuracy curve of a cascade, between random deferral and the oracle."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from caopd.metrics.cost_curve import CascadeCurve, OperatingPoint
from caopd.plots.style import BLACK, BLUE, GREEN, VERMILION, new_figure, plain, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MAX_MARKERS = 25
_MARKS = (("*", VERMILION, 11.0), ("P", VERMILION, 8.0))


def cascade_figure(
    curve: CascadeCurve, marked: Mapping[str, OperatingPoint] | None = None, title: str | None = None
) -> Figure:
    r"""Plot accuracy against mean cost per prompt, with random deferral, the oracle and the large model alone.

    The hatched area between the cascade and random deferral is the area above random, in units of the axes.

    Args:
        curve: All operating points.
        marked: Name -> an operating point to mark; at most two.
        title: First line above the figure.

    Returns:
        A figure of one panel.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.

    Example:
        >>> import torch
        >>> from caopd.metrics import cascade_curve
        >>> curve = cascade_curve(torch.tensor([0.75, 0.25]), torch.tensor([1, 0]), torch.tensor([1, 1]))
        >>> cascade_figure(curve, title="toy").get_suptitle()
        'toy\narea above random +0.125 (100 % of the oracle)'
    """
    figure = new_figure(4.2, 3.6)
    axes = figure.subplots()
    figure.suptitle(_heading(curve, title), fontsize=9)
    _plot_curve(axes, curve)
    for (name, point), (marker, colour, size) in zip((marked or {}).items(), _MARKS, strict=False):
        label = f"{plain(name)}: cost {point.cost:.3g}, accuracy {point.accuracy:.3f}"
        style: dict[str, Any] = {"marker": marker, "color": colour, "markersize": size, "markeredgecolor": BLACK}
        axes.plot(point.cost, point.accuracy, linestyle="", zorder=6, label=label, **style)
    axes.set(xlabel="Mean cost per prompt", ylabel="Accuracy")
    axes.grid(color="#E4E4E4", linewidth=0.6)
    figure.legend(loc="outside lower center", ncols=2, fontsize=6.8, frameon=False, handlelength=2.6)
    tidy(axes)
    return figure


def _heading(curve: CascadeCurve, title: str | None) -> str:
    share = "" if math.isnan(curve.relative_area) else f" ({100 * curve.relative_area:.0f} % of the oracle)"
    return "\n".join([*([plain(title)] if title else []), f"area above random {curve.area_above_random:+.3f}{share}"])


def _plot_curve(axes: Axes, curve: CascadeCurve) -> None:
    costs = [point.cost for point in curve.points]
    accuracies = [point.accuracy for point in curve.points]
    chance = [curve.random_accuracy(point.deferred) for point in curve.points]
    best = [(curve.small_cost + curve.large_cost * deferred, accuracy) for deferred, accuracy in curve.oracle]
    axes.fill_between(costs, chance, accuracies, facecolor="#E3EEF6", edgecolor=BLUE, hatch="////", linewidth=0.0)
    axes.plot(*zip(*best, strict=True), color=GREEN, linestyle=":", linewidth=1.8, label="oracle deferral")
    axes.plot(costs, accuracies, color=BLUE, linewidth=1.8, label="by confidence", **_markers(len(costs)))
    axes.plot(
        [costs[0], costs[-1]],
        [chance[0], chance[-1]],
        color=BLACK,
        linestyle="--",
        linewidth=1.2,
        label="random deferral",
    )
    axes.plot(
        curve.large_cost,
        curve.large_accuracy,
        "s",
        color="white",
        markeredgecolor=BLACK,
        markersize=6,
        label="large model alone",
        zorder=5,
    )


def _markers(num_points: int) -> dict[str, Any]:
    return {"marker": "o", "markersize": 3.2} if num_points <= _MAX_MARKERS else {}
