"""Figures for reports and papers. Matplotlib is loaded when a figure is plotted, not on import."""

from caopd.plots.cost_curve import cascade_figure
from caopd.plots.reliability import reliability_diagram
from caopd.plots.spread import bars_figure, sweep_figure
from caopd.plots.style import save_figure

__all__ = ["bars_figure", "cascade_figure", "reliability_diagram", "save_figure", "sweep_figure"]
