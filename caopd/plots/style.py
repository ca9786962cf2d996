"""Colours and files of all figures, for every kind of colour vision and for black and white."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from caopd.files import written
from caopd.texts import escaped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLACK, ORANGE, SKY, GREEN, BLUE, VERMILION, PURPLE = (
    "#1A1A1A",
    "#E69F00",
    "#56B4E9",
    "#009E73",
    "#0072B2",
    "#D55E00",
    "#CC79A7",
)
"""Okabe-Ito without its yellow, which white paper swallows, and with a softer black."""


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure on an Agg canvas; it belongs to no pyplot state.

    Args:
        width: Inches.
        height: Inches.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def plain(text: str) -> str:
    r"""Return a user's text for a figure, escaped so that dollars make no formula and a leading underscore is shown.

    Args:
        text: A name or a title.

    Example:
        >>> print(plain("$x$"), plain("_ours"), sep="|")
        \$x\$| _ours
    """
    text = escaped(text).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def tidy(axes: Axes) -> None:
    """Give axes small ticks, no frame at the top and right, and marks above the grid."""
    axes.tick_params(labelsize=7.5, width=0.6)
    axes.xaxis.label.set_fontsize(8.5)
    axes.yaxis.label.set_fontsize(8.5)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def save_figure(figure: Figure, stem: Path, suffixes: Sequence[str] = (".svg", ".pdf", ".png")) -> list[Path]:
    """Write a figure as SVG, PDF and PNG; the same figure gives the same files.

    Args:
        figure: The figure.
        stem: Path without a suffix.
        suffixes: Which of the three.

    Returns:
        The paths of the files.
    """
    import matplotlib as mpl

    metadata = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}, ".png": None}
    paths = []
    with mpl.rc_context({"svg.hashsalt": "caopd", "pdf.fonttype": 42}):
        for suffix in suffixes:
            paths.append(stem.with_name(stem.name + suffix))
            with written(paths[-1]) as file:
                figure.savefig(file, format=suffix[1:], metadata=metadata[suffix], dpi=200)
    return paths
