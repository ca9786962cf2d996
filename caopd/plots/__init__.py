"""Figures for reports and papers. Matplotlib is loaded when a figure is drawn, not on import."""

from caopd.plots.reliability import reliability_diagram

__all__ = ["reliability_diagram"]
