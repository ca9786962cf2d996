"""The figure of what a training step costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from caopd.plots.style import BLUE, ORANGE, new_figure, tidy
from curving.points import AXES
from curving.results import QUANTITIES, X_NAMES, line, on, x_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def curves_figure(record: dict) -> Figure:
    """Return a figure with time above and memory below, and a column for every setting that is varied."""
    figure = new_figure(12.5, 4.6)
    panels = figure.subplots(len(QUANTITIES), len(AXES))
    for row, (quantity, title) in zip(panels, QUANTITIES.items(), strict=True):
        for axes, axis in zip(row, AXES, strict=True):
            points = on(record, axis)
            x = [x_of(axis, point) for point in points]
            measured = [point[quantity] for point in points]
            fitted = line(x, measured)
            axes.plot(x, measured, "o", color=BLUE, ms=4, label="measured")
            ends = [min(x), max(x)]
            axes.plot(ends, [fitted.intercept + fitted.slope * end for end in ends], color=BLUE, lw=1, label="its line")
            axes.plot(x, [point[f"planned_{quantity}"] for point in points], "x--", color=ORANGE, lw=1, label="planned")
            axes.set_ylim(bottom=0)
            axes.locator_params(axis="x", nbins=4)
            tidy(axes)
        row[0].set_ylabel(title)
    for axes, axis in zip(panels[-1], AXES, strict=True):
        axes.set_xlabel(X_NAMES[axis])
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return figure
