"""The figure of what steps cost against the peers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from caopd.plots.style import BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILION, new_figure, tidy
from peering.results import COMPARED, PEERS, costs_of, fastest_peer, works_of
from peering.works import WORKS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANELS = {"training": "Training part", "whole": "Whole step", "peak_mib": "Peak memory"}
TRAINERS = {**COMPARED, **PEERS}
COLOURS = dict(zip(TRAINERS, (BLUE, SKY, GREEN, ORANGE, VERMILION, PURPLE), strict=True))


def cost_figure(record: dict) -> Figure:
    """Return a figure with a bar for each trainer and work, as shares of the fastest peer's, and the targets."""
    figure = new_figure(9.5, 3.2)
    panels = figure.subplots(1, len(PANELS), sharey=False)
    works = [work for work in works_of(record) if fastest_peer(record, work)]
    width = 0.8 / len(TRAINERS)
    for axes, (part, title) in zip(panels, PANELS.items(), strict=True):
        for place, trainer in enumerate(TRAINERS):
            found = [(index, costs) for index, work in enumerate(works) if (costs := costs_of(record, work, trainer))]
            heights = [costs[part] / fastest_peer(record, works[index])[part] for index, costs in found]
            x = [index + (place - (len(TRAINERS) - 1) / 2) * width for index, _ in found]
            name = f"caopd: {COMPARED[trainer]}" if trainer in COMPARED else PEERS[trainer]
            axes.bar(x, heights, width, color=COLOURS[trainer], label=name)
        for index, work in enumerate(works):
            axes.hlines(WORKS[work].targets[part], index - 0.45, index + 0.45, colors="black", linestyles=":", lw=1)
        axes.set_xticks(range(len(works)), [WORKS[work].title for work in works], rotation=15, ha="right")
        axes.set_title(title, fontsize=9)
        axes.axhline(1, color="black", lw=0.6)
        tidy(axes)
    panels[0].set_ylabel("share of the fastest peer's")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=7.5, frameon=False)
    return figure
