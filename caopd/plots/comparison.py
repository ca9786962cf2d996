"""Figures that compare runs: each run has one colour, marker and line style in all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from caopd.plots.style import BLACK, BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILION, new_figure, plain, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK)
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", "p", ">", "*", "h")
_LINES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (6, 1.5, 1, 1.5, 1, 1.5)))
_LEGEND: dict[str, Any] = {"loc": "outside lower center", "fontsize": 7.5, "frameon": False, "handlelength": 3.2}
_COLUMNS = 3
_MAX_MARKERS = 30
_LARGEST_MARK, _SMALLEST_MARK = 11.0, 5.0

Series = Sequence[tuple[float, float]]
"""Points (x, y) in the order of the line."""
Band = Sequence[tuple[float, float, float]]
"""Points (x, low, high): between which values a line spreads, such as over seeds."""


@dataclass(frozen=True, slots=True)
class Track:
    """Two values of a run, before and after training, as points of a figure.

    Attributes:
        before: Point (x, y) before training; None where it was not measured or is undefined.
        after: Point (x, y) after training; None likewise.
        spread: How far ``after`` spreads in x and in y over seeds, plotted as a cross; None for one run.
    """

    before: tuple[float, float] | None
    after: tuple[float, float] | None
    spread: tuple[float, float] | None = None


def confidence_figure(tracks: Mapping[str, Track], title: str = "") -> Figure:
    """Plot mean stated confidence against accuracy; above the diagonal a model is overconfident.

    Args:
        tracks: Run -> (accuracy, mean confidence) before and after training.
        title: Goes above the axes, for instance which completions these are.

    Example:
        >>> figure = confidence_figure({"CaOPD": Track((0.34, 1.0), (0.64, 0.61))})
        >>> figure.axes[0].get_xlabel()
        'Accuracy'
    """
    figure = new_figure(4.4, 4.4)
    axes = figure.subplots()
    axes.fill_between(
        [0, 1], [0, 1], 1, facecolor="#FBE9DD", edgecolor="#E3A67E", hatch="////", linewidth=0.0, zorder=0
    )
    axes.plot([0, 1], [0, 1], color=BLACK, linestyle=(0, (4, 3)), linewidth=0.9, zorder=1)
    box: dict[str, Any] = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
    axes.text(0.03, 0.93, "overconfident", fontsize=8, bbox=box)
    axes.text(0.97, 0.04, "underconfident", fontsize=8, ha="right")
    _plot_tracks(axes, tracks)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="Accuracy", ylabel="Mean stated confidence", aspect="equal")
    axes.set_title(plain(title), fontsize=8.5)
    _finish(figure, [axes])
    return figure


def pareto_figure(tracks: Mapping[str, Track], title: str = "") -> Figure:
    """Plot 1 - Brier score against strict pairwise ranking; the stairs are the Pareto front of the runs after training.

    Args:
        tracks: Run -> (SPR, 1 - Brier) before and after training.
        title: Goes above the axes, for instance which completions these are.

    Example:
        >>> figure = pareto_figure({"CaOPD": Track(None, (0.77, 0.85))})
        >>> figure.axes[0].get_ylabel()
        '1 - Brier score'
    """
    figure = new_figure(4.4, 4.0)
    axes = figure.subplots()
    _plot_tracks(axes, tracks)
    front = pareto_front([track.after for track in tracks.values() if track.after is not None])
    if len(front) > 1:
        axes.step(
            *zip(*front, strict=True), where="pre", color="#777777", linewidth=0.9, zorder=1, label="Pareto front"
        )
    axes.margins(0.12)
    _within(axes, -0.05, 1.05)
    axes.set(xlabel="Strict pairwise ranking (SPR)", ylabel="1 - Brier score")
    axes.set_title(plain(title), fontsize=8.5)
    _finish(figure, [axes])
    return figure


def pareto_front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points that no other one betters in one coordinate without being worse in the other, by rising x.

    Args:
        points: Points (x, y); larger values are better in both coordinates.

    Example:
        >>> pareto_front([(0.2, 0.9), (0.5, 0.5), (0.6, 0.7)])
        [(0.2, 0.9), (0.6, 0.7)]
    """
    return sorted((x, y) for x, y in set(points) if not any(a >= x and b >= y and (a, b) != (x, y) for a, b in points))


def risk_coverage_figure(
    curves: Mapping[str, Series], title: str = "", bands: Mapping[str, Band] | None = None
) -> Figure:
    """Plot the error rate among the most confident completions, for every share of them.

    Args:
        curves: Run -> (coverage, risk).
        title: Goes above the axes, for instance which completions these are.
        bands: Run -> (coverage, lowest, highest risk), shaded behind its line; None for none.

    Example:
        >>> figure = risk_coverage_figure({"CaOPD": [(0.5, 0.0), (1.0, 0.3)]})
        >>> figure.axes[0].get_ylabel()
        'Error rate among them'
    """
    figure = new_figure(4.4, 3.8)
    axes = figure.subplots()
    _plot_series(axes, curves, bands or {})
    axes.set(xlim=(0, 1), xlabel="Coverage: share of completions, the most confident first")
    axes.set(ylim=(0, None), ylabel="Error rate among them")
    axes.set_title(plain(title), fontsize=8.5)
    _finish(figure, [axes])
    return figure


def curves_figure(
    panels: Mapping[str, Mapping[str, Series]], bands: Mapping[str, Mapping[str, Band]] | None = None
) -> Figure:
    """Plot one panel per quantity over the optimizer steps.

    Args:
        panels: Title -> run -> (step, value).
        bands: Title -> run -> (step, lowest, highest value), shaded behind its line; None for none.

    Example:
        >>> figure = curves_figure({"ECE": {"CaOPD": [(0, 0.66), (800, 0.05)]}, "Brier": {"CaOPD": [(0, 0.66)]}})
        >>> [axes.get_title() for axes in figure.axes]
        ['ECE', 'Brier']
    """
    rows = -(-len(panels) // _COLUMNS)
    figure = new_figure(8.8, 2.4 * rows + 0.5)
    grid = figure.subplots(rows, min(_COLUMNS, len(panels)), squeeze=False)
    used = list(grid.flat)[: len(panels)]
    for axes, (title, curves) in zip(used, panels.items(), strict=True):
        _plot_series(axes, curves, (bands or {}).get(title, {}))
        axes.set_title(plain(title), fontsize=8.5)
        axes.set_xlabel("Optimizer step")
    for axes in list(grid.flat)[len(panels) :]:
        axes.remove()
    _finish(figure, used)
    return figure


def _within(axes: Axes, lowest: float, highest: float) -> None:
    """Keep the axes to where values can be: a cross of few seeds may reach far beyond."""
    for limits, limit in ((axes.get_xlim(), axes.set_xlim), (axes.get_ylim(), axes.set_ylim)):
        limit(max(lowest, limits[0]), min(highest, limits[1]))


def _style(number: int) -> dict[str, Any]:
    return {
        "color": _COLOURS[number % len(_COLOURS)],
        "marker": _MARKERS[number % len(_MARKERS)],
        "linestyle": _LINES[number % len(_LINES)],
    }


def _plot_tracks(axes: Axes, tracks: Mapping[str, Track]) -> None:
    """Plot a hollow circle before training (runs often share it) and the run's own marker after it, joined by its line.

    Later marks are smaller, so that runs which end at the same place can all be seen.
    """
    hollow: dict[str, Any] = {"marker": "o", "markerfacecolor": "white", "markeredgecolor": "#555555"}
    for number, (name, track) in enumerate(tracks.items()):
        style = _style(number)
        if track.before is not None and track.after is not None:
            joined = zip(track.before, track.after, strict=True)
            axes.plot(*joined, color=style["color"], linestyle=style["linestyle"], linewidth=1.3, zorder=3)
        if track.after is not None:
            full = {"marker": style["marker"], "markerfacecolor": style["color"], "markeredgecolor": BLACK}
            size = _LARGEST_MARK - number * (_LARGEST_MARK - _SMALLEST_MARK) / len(tracks)
            axes.plot(*track.after, linestyle="", markersize=size, clip_on=False, zorder=5, label=plain(name), **full)
            if track.spread is not None:
                (x, y), (dx, dy) = track.after, track.spread
                cross = {"color": style["color"], "linewidth": 1.0, "zorder": 4}
                axes.plot([x - dx, x + dx], [y, y], **cross)
                axes.plot([x, x], [y - dy, y + dy], **cross)
    for track in tracks.values():
        if track.before is not None:
            label = "before training"
            axes.plot(*track.before, linestyle="", markersize=6.5, clip_on=False, zorder=4, label=label, **hollow)


def _plot_series(axes: Axes, curves: Mapping[str, Series], bands: Mapping[str, Band]) -> None:
    for number, (name, points) in enumerate(curves.items()):
        if not points:
            continue
        style = _style(number)
        every = max(1, len(points) // 8)
        marked: dict[str, Any] = {
            "markersize": 4.0,
            "markevery": 1 if len(points) <= _MAX_MARKERS else (every // 2, every),
        }
        axes.plot(*zip(*points, strict=True), linewidth=1.4, label=plain(name), **style, **marked)
        if bands.get(name):
            x, low, high = zip(*bands[name], strict=True)
            axes.fill_between(x, low, high, color=style["color"], alpha=0.15, linewidth=0)


def _finish(figure: Figure, panels: Sequence[Axes]) -> None:
    """Add one legend below all panels, with each run once, and a light grid."""
    entries: dict[str, Any] = {}
    for axes in panels:
        axes.grid(color="#E4E4E4", linewidth=0.6)
        tidy(axes)
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    longest = max(map(len, entries), default=0)
    columns = 4 if figure.get_figwidth() > 6 else 2 if longest < 30 else 1
    figure.legend(entries.values(), entries.keys(), ncols=columns, **_LEGEND)
