"""The reliability diagram: stated confidence against accuracy, and how often each confidence was stated."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from caopd.errors import DataError
from caopd.metrics.bins import ReliabilityBins
from caopd.metrics.functional.certainty import CalibrationCertainty, consistency_bars
from caopd.plots.style import new_figure, plain, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe-Ito colours, told apart by every kind of colour vision; the hatches do the same in black and white.
_OVERCONFIDENT: dict[str, Any] = {"facecolor": "#F7CDB2", "edgecolor": "#D55E00", "hatch": "////"}
_UNDERCONFIDENT: dict[str, Any] = {"facecolor": "#CDE8F7", "edgecolor": "#0072B2", "hatch": "...."}
_CONSISTENT: dict[str, Any] = {"color": "#1A1A1A", "linewidth": 1.1, "marker": "_", "markersize": 4.0, "zorder": 5.5}
_ACCURACY = "#8C8C8C"
_INK = "#1A1A1A"
_SHARE = "#C9C9C9"
_EMPTY = "#F2F2F2"
# The legend stands above the axes, flush with their left edge, narrow enough for one column of a paper.
_LEGEND: dict[str, Any] = {
    "loc": "lower left",
    "bbox_to_anchor": (0.0, 1.0),
    "borderaxespad": 0.2,
    "borderpad": 0.2,
    "columnspacing": 1.0,
    "fontsize": 6.2,
    "frameon": False,
    "handlelength": 1.6,
    "handletextpad": 0.5,
    "labelspacing": 0.35,
}


def reliability_diagram(
    bins: ReliabilityBins,
    *,
    title: str | None = None,
    spr: float | None = None,
    ocg: float | None = None,
    certainty: CalibrationCertainty | None = None,
) -> Figure:
    r"""Plot accuracy against stated confidence, with the gap between them shaded.

    Each bar reaches the accuracy :math:`\bar r_b` of its bin and carries a black cap, so that an accuracy of
    0 shows. The hatched part lies between :math:`\bar r_b` and the mean confidence :math:`\bar q_b`, which a
    diamond marks: weighted by the share of completions below, the hatched heights add up to the ECE. A thin bar
    around the diamond is the consistency bar: where 95 % of the accuracies of a calibrated model would lie that
    states these confidences as often, so that a cap within it says nothing against calibration. Bins without
    completions are a pale band. The figure belongs to no pyplot state; save it with
    ``figure.savefig(path)``.

    Args:
        bins: Reliability bins of the completions with a parsed confidence.
        title: First line above the figure, for instance model and task.
        spr: Strict pairwise ranking to print beside the ECE; None or NaN leaves it out.
        ocg: Overconfidence gap to print; None takes it from ``bins``.
        certainty: Of these completions, for the bars and for a line with the interval of the ECE, and with what a
            calibrated model would show; needed where prompts have several completions. None takes every completion
            for one of a prompt of its own, and prints no line.

    Returns:
        A figure of two panels that share the confidence axis, on an Agg canvas.

    Raises:
        DataError: every bin is empty, or ``certainty`` is of other bins.
        ModuleNotFoundError: matplotlib is not installed.

    Source:
        Consistency bars: Bröcker and Smith 2007, "Increasing the reliability of reliability diagrams".

    Example:
        >>> bins = ReliabilityBins((0.0, 0.5, 1.0), (1, 3), (0.25, 1.0), (0.0, 0.5))
        >>> figure = reliability_diagram(bins, title="toy", spr=0.5)
        >>> figure.get_suptitle()
        'toy\nECE 0.438   OCG +0.438   SPR 0.500'
    """
    if bins.n_completions == 0:
        raise DataError(
            "Expected `bins` to hold completions, but got only empty bins. "
            "No confidence was parsed: look at the format adherence first."
        )
    bars = _consistency(bins, certainty)
    figure = new_figure(3.5, 4.2)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3.2, 1.0))
    figure.suptitle(_heading(bins, title, spr, ocg, certainty), fontsize=9, wrap=True)
    _plot_gaps(upper, bins, bars)
    _plot_counts(lower, bins)
    return figure


def _consistency(bins: ReliabilityBins, certainty: CalibrationCertainty | None) -> tuple[tuple[float, float], ...]:
    if certainty is None:
        counts, confidence = (torch.tensor(each, dtype=torch.float64) for each in (bins.counts, bins.mean_confidence))
        return consistency_bars(counts, confidence)
    if len(certainty.consistency) != len(bins.counts):
        raise DataError(
            f"Expected `certainty` to be of the {len(bins.counts)} bins that are plotted, but got one of "
            f"{len(certainty.consistency)}."
        )
    return certainty.consistency


def _heading(
    bins: ReliabilityBins,
    title: str | None,
    spr: float | None,
    ocg: float | None,
    certainty: CalibrationCertainty | None,
) -> str:
    gap = bins.ocg if ocg is None else ocg
    numbers = [f"ECE {round(bins.ece, 9):.3f}", f"OCG {round(gap, 9):+.3f}"]  # rounded as in tables
    if spr is not None and not math.isnan(spr):
        numbers.append(f"SPR {spr:.3f}")
    lines = [*([plain(title)] if title else []), "   ".join(numbers)]
    if certainty is not None:
        lines.append(_certainty(certainty))
    return "\n".join(lines)


def _certainty(certainty: CalibrationCertainty) -> str:
    if math.isnan(certainty.low):
        return f"if calibrated: ECE {certainty.floor:.3f}, p = {certainty.p_value:.2g}"
    between = f"{certainty.low:.3f} to {certainty.high:.3f}"
    return f"true ECE {between}\nif calibrated {certainty.floor:.3f}, p = {certainty.p_value:.2g}"


def _plot_gaps(axes: Axes, bins: ReliabilityBins, bars: tuple[tuple[float, float], ...]) -> None:
    for (left, right, count, confidence, accuracy), bar in zip(_rows(bins), bars, strict=True):
        if count == 0:
            axes.axvspan(left, right, color=_EMPTY, linewidth=0, zorder=0)
            continue
        style = _OVERCONFIDENT if confidence > accuracy else _UNDERCONFIDENT
        middle, width = (left + right) / 2, right - left
        axes.bar(middle, accuracy, width, color=_ACCURACY, edgecolor="white", linewidth=0.6, zorder=2)
        low, high = sorted((confidence, accuracy))
        axes.bar(middle, high - low, width, bottom=low, linewidth=0.6, zorder=3, **style)
        axes.plot([left, right], [accuracy, accuracy], color=_INK, linewidth=1.8, zorder=5, clip_on=False)
        axes.plot([confidence] * 2, bar, color="white", linewidth=3.0, zorder=5, solid_capstyle="butt")
        axes.plot([confidence] * 2, bar, clip_on=False, **_CONSISTENT)
        axes.plot(
            confidence,
            confidence,
            "D",
            color="white",
            markeredgecolor=_INK,
            markersize=3.8,
            zorder=6,
            clip_on=False,
        )
    axes.plot([0, 1], [0, 1], color=_INK, linestyle=(0, (4, 3)), linewidth=0.9, zorder=4)
    axes.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="Accuracy")
    _add_legend(axes, bins)
    tidy(axes)


def _add_legend(axes: Axes, bins: ReliabilityBins) -> None:
    """Add a legend above the axes, where it hides no bar."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    entries: list[Patch | Line2D] = [
        Patch(facecolor=_ACCURACY, label="Accuracy"),
        Line2D(
            [],
            [],
            linestyle="",
            marker="D",
            color="white",
            markeredgecolor=_INK,
            markersize=4.5,
            label="Mean confidence",
        ),
    ]
    entries.append(Line2D([], [], label="Calibrated, 95 %", **_CONSISTENT))
    if any(gap > 0 for gap in bins.gap):
        entries.append(Patch(label="Overconfident", linewidth=0.6, **_OVERCONFIDENT))
    if any(gap < 0 for gap in bins.gap):
        entries.append(Patch(label="Underconfident", linewidth=0.6, **_UNDERCONFIDENT))
    if 0 in bins.counts:
        entries.append(Patch(facecolor=_EMPTY, edgecolor="#CCCCCC", linewidth=0.6, label="No completions"))
    axes.legend(handles=entries, ncols=2, **_LEGEND)


def _plot_counts(axes: Axes, bins: ReliabilityBins) -> None:
    for left, right, count, _, _ in _rows(bins):
        share = 100 * count / bins.n_completions
        axes.bar((left + right) / 2, share, right - left, color=_SHARE, edgecolor="white", linewidth=0.6)
    accuracy, confidence = bins.overall_accuracy, bins.overall_confidence
    axes.axvline(accuracy, color=_INK, linewidth=1.4, label=f"Accuracy {accuracy:.3f}")
    style: dict[str, Any] = {"color": "#D55E00", "linestyle": (0, (2, 1.2)), "linewidth": 1.4}
    axes.axvline(confidence, label=f"Mean confidence {confidence:.3f}", **style)
    axes.set(xlabel="Stated confidence", ylabel=f"% of {bins.n_completions:,}")
    axes.legend(ncols=2, **_LEGEND)
    tidy(axes)


def _rows(bins: ReliabilityBins) -> list[tuple[float, float, int, float, float]]:
    """Return left edge, right edge, number of completions, mean confidence and accuracy of every bin."""
    return list(zip(bins.edges[:-1], bins.edges[1:], bins.counts, bins.mean_confidence, bins.accuracy, strict=True))
