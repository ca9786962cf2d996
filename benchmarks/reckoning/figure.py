"""The figure of what the model says against what it can do, kind by kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

from caopd.plots.style import BLUE, GREEN, ORANGE, PURPLE, VERMILION, new_figure, tidy
from caopd.types import SAMPLED
from reckoning.results import TRAINED

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OPERATORS = {"+": ("addition", BLUE, "o"), "-": ("subtraction", VERMILION, "s"), "*": ("multiplication", GREEN, "^")}
OTHER = ("division", PURPLE, "D")
SIGNS = {"-": "\u2212", "*": "\u00d7", "/": "\u00f7"}
COLUMNS = 3
"""Most panels side by side."""
_WIDTH, _HEIGHT = 0.17, 0.06
"""Of a name, in units of the axes."""
_NAME = {"fontsize": 6.0, "color": "#4A4A4A", "xytext": (3, 2), "textcoords": "offset points"}


def kinds_figure(record: dict) -> Figure:
    """Return a figure with a panel for each method: mean confidence against success rate, a mark for each kind.

    A kind's name has the digits of both numbers, and is left out where it would be written over another; sampled
    completions of all seeds together.
    """
    found = record["tasks"][TRAINED][SAMPLED]
    columns = min(len(found), COLUMNS)
    rows = -(-len(found) // columns)
    figure = new_figure(2.4 * columns, 2.7 * rows + 0.4)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flatten()
    for empty in panels[len(found) :]:
        empty.remove()
    seen: dict[str, object] = {}
    for place, (axes, (method, measures)) in enumerate(zip(panels, found.items(), strict=False)):
        axes.axline((0, 0), slope=1, color=ORANGE, lw=0.8, zorder=1)
        stated = {kind: each for kind, each in measures["all"]["categories"].items() if "mean_confidence" in each}
        named: list[tuple[float, float]] = []
        for kind, each in stated.items():
            operator = kind.strip("0123456789")
            name, colour, marker = OPERATORS.get(operator, OTHER)
            x, y = each["accuracy"]["value"], each["mean_confidence"]["value"]
            seen[name] = axes.scatter(x, y, s=16, color=colour, marker=marker, zorder=3)
            if all(abs(x - left) > _WIDTH or abs(y - low) > _HEIGHT for left, low in named):
                named.append((x, y))
                axes.annotate(kind.replace(operator, SIGNS.get(operator, operator)), (x, y), **_NAME)
        axes.set(xlim=(-0.03, 1.08), ylim=(-0.03, 1.08), box_aspect=1)
        axes.set_title(method.replace(", ", ",\n"), fontsize=9)
        is_last = place + columns >= len(found)
        axes.set_xlabel("success rate" if is_last else "")
        axes.tick_params(labelbottom=is_last)
        axes.set_ylabel("mean confidence" if place % columns == 0 else "")
        tidy(axes)
    figure.legend(
        list(seen.values()), list(seen), loc="outside lower center", ncols=len(seen), fontsize=7.5, frameon=False
    )
    return figure
