"""Figures of values that were measured several times, such as over seeds: their mean and their spread.

The spread is the sample standard deviation. Of fewer than three values it says little, so these are shown themselves.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from caopd.plots.style import BLACK, BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILION, new_figure, plain, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FACES = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)
_BAR = "#A9CFE8"
"""Colour of bars, light enough for a black line on it."""
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_LINES: tuple[Any, ...] = ("-", "--", "-.", ":")
_GRID: dict[str, Any] = {"color": "#E4E4E4", "linewidth": 0.6}
_COLUMNS = 4
_FEWEST = 3
"""Fewest values whose standard deviation is plotted."""
_DOTS: dict[str, Any] = {"linestyle": "", "marker": ".", "markersize": 4.5, "color": BLACK, "zorder": 4}

Measured = Sequence[float]
"""Values of the same quantity, one per seed."""


def mean_and_spread(values: Measured) -> tuple[float, float]:
    """Return the mean and the sample standard deviation, which is 0 for a single value.

    Args:
        values: The values, at least one.

    Example:
        >>> mean_and_spread([1.0, 2.0, 3.0]), mean_and_spread([0.5])
        ((2.0, 1.0), (0.5, 0.0))
    """
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def bars_figure(panels: Mapping[str, Mapping[str, Measured]]) -> Figure:
    """Plot one panel per quantity with one bar per name; the bar's length is the mean, the line at its end the spread.

    The mean is written beside the bar. Fewer than three values are shown as dots in place of the line.

    Args:
        panels: Title -> name -> values; every panel has the same names.

    Example:
        >>> figure = bars_figure({"1 - Brier score": {"SDFT": [0.64, 0.66], "CaOPD": [0.85, 0.86]}})
        >>> [text.get_text() for text in figure.axes[0].texts]
        ['0.650', '0.855']
    """
    names = list(dict.fromkeys(name for bars in panels.values() for name in bars))
    figure = new_figure(1.4 + 2.9 * len(panels) if len(panels) == 1 else 1.2 + 1.9 * len(panels), _height(len(names)))
    grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)
    for axes, (title, bars) in zip(grid.flat, panels.items(), strict=True):
        for number, name in enumerate(names):
            if bars.get(name):
                _plot_bar(axes, number, bars[name])
        axes.set_title(plain(title), fontsize=8.5)
        axes.set_yticks(range(len(names)), [plain(name) for name in names])
        axes.axvline(0, color=BLACK, linewidth=0.8)
        axes.grid(axis="x", **_GRID)
        axes.margins(x=0.25)
        tidy(axes)
    grid.flat[0].invert_yaxis()
    return figure


def sweep_figure(
    panels: Mapping[str, Mapping[str, Sequence[tuple[float, Measured]]]],
    label: str,
    shared_scale: bool = False,
    smallest_span: float = 0.1,
) -> Figure:
    """Plot quantities over a setting on a logarithmic axis: means as points on a line, spreads as bars or dots.

    Args:
        panels: Title -> name of a line -> (the setting's value, values measured with it).
        label: Name of the setting, for the horizontal axis.
        shared_scale: Whether all panels have one vertical scale, as parts of one quantity do.
        smallest_span: Smallest range of a vertical axis, so that small differences look level and not like a trend.

    Example:
        >>> figure = sweep_figure({"ECE": {"CaOPD": [(1, [0.2, 0.3]), (8, [0.1])]}}, label="Rollouts per prompt")
        >>> figure.axes[0].get_xscale(), figure.axes[0].get_xlabel()
        ('log', 'Rollouts per prompt')
    """
    names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    rows, columns = -(-len(panels) // _COLUMNS), min(_COLUMNS, len(panels))
    figure = new_figure(2.3 * columns + 0.4, 2.3 * rows + 0.4)
    grid = figure.subplots(rows, columns, sharey=shared_scale, squeeze=False)
    for axes, (title, lines) in zip(grid.flat, panels.items(), strict=False):
        settings = sorted({setting for points in lines.values() for setting, _ in points})
        for name, points in lines.items():
            _plot_line(axes, names.index(name), name, points)
        axes.set_title(plain(title), fontsize=8.5)
        axes.set_xlabel(plain(label))
        axes.set_xscale("log")
        axes.set_xticks(settings, [_short(setting) for setting in settings])
        axes.minorticks_off()
        axes.grid(**_GRID)
        _widen(axes, smallest_span)
        tidy(axes)
    for axes in list(grid.flat)[len(panels) :]:
        axes.remove()
    if len(names) > 1:
        handles, labels = next(iter(grid.flat)).get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=7.5, frameon=False)
    return figure


def _height(num_bars: int) -> float:
    return 0.7 + 0.32 * num_bars


def _plot_bar(axes: Axes, number: int, values: Measured) -> None:
    mean, spread = mean_and_spread(values)
    axes.barh(number, mean, height=0.66, color=_BAR, edgecolor=BLUE, linewidth=0.8, zorder=2)
    if len(values) >= _FEWEST:
        axes.errorbar(mean, number, xerr=spread, color=BLACK, capsize=2.5, linewidth=1.0, zorder=3)
        end = mean + spread if mean >= 0 else mean - spread
    else:
        axes.plot(values, [number] * len(values), **_DOTS)
        end = max(values) if mean >= 0 else min(values)
    side = "left" if mean >= 0 else "right"
    offset = (4 if mean >= 0 else -4, 0)
    place: dict[str, Any] = {"textcoords": "offset points", "va": "center", "ha": side, "fontsize": 7.0}
    axes.annotate(f"{mean:.3f}", (end, number), xytext=offset, zorder=4, **place)


def _plot_line(axes: Axes, number: int, name: str, points: Sequence[tuple[float, Measured]]) -> None:
    known = [(setting, statistics.fmean(values)) for setting, values in points if values]
    settings, means = zip(*known, strict=True) if known else ((), ())
    style: dict[str, Any] = {
        "color": _FACES[number % len(_FACES)],
        "marker": _MARKERS[number % len(_MARKERS)],
        "linestyle": _LINES[number % len(_LINES)],
    }
    axes.plot(settings, means, label=plain(name), markersize=4.5, linewidth=1.4, **style)
    for setting, values in points:
        if len(values) >= _FEWEST:
            mean, spread = mean_and_spread(values)
            axes.errorbar(setting, mean, yerr=spread, linewidth=1.4, capsize=2.5, color=style["color"])
        else:
            axes.plot([setting] * len(values), values, **_DOTS)


def _widen(axes: Axes, smallest_span: float) -> None:
    low, high = axes.get_ylim()
    missing = max(0.0, smallest_span - (high - low)) / 2
    axes.set_ylim(low - missing, high + missing)


def _short(value: float) -> str:
    """Return a number in short form, such as 72k for 72,480: ticks are narrow."""
    return f"{value / 1000:.0f}k" if value >= 1000 else f"{value:g}"
