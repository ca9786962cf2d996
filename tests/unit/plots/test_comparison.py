"""Figures that compare runs plot the numbers that they are given, and tell runs apart without colour."""

import itertools
import random

import pytest

from caopd.plots.comparison import (
    Track,
    confidence_figure,
    curves_figure,
    pareto_figure,
    pareto_front,
    risk_coverage_figure,
)

TRACKS = {"a": Track((0.3, 1.0), (0.6, 0.5)), "b": Track(None, (0.5, 0.9)), "c": Track((0.2, 0.4), None)}


def points(axes):
    """Single markers: (x, y) -> whether it is hollow."""
    return {
        (line.get_xdata()[0], line.get_ydata()[0]): line.get_markerfacecolor() == "white"
        for line in axes.lines
        if len(line.get_xdata()) == 1
    }


@pytest.mark.parametrize("plot", [confidence_figure, pareto_figure])
def test_runs_are_hollow_before_and_full_after(plot):
    (axes,) = plot(TRACKS).axes
    assert points(axes) == {(0.3, 1.0): True, (0.6, 0.5): False, (0.5, 0.9): False, (0.2, 0.4): True}
    joined = [list(zip(*line.get_data(), strict=True)) for line in axes.lines if line.get_linestyle() != "None"]
    assert [(0.3, 1.0), (0.6, 0.5)] in joined


def test_the_zone_of_overconfidence_is_above_the_diagonal_and_hatched():
    (axes,) = confidence_figure(TRACKS).axes
    (zone,) = axes.collections
    assert zone.get_hatch() == "////"
    corners = {tuple(corner) for corner in zone.get_paths()[0].vertices.tolist()}
    assert {(0.0, 0.0), (1.0, 1.0), (0.0, 1.0)} <= corners
    assert all(y >= x for x, y in corners)


@pytest.mark.parametrize("seed", range(20))
def test_the_front_is_what_no_other_point_dominates(seed):
    rng = random.Random(seed)
    cloud = [(rng.randrange(5) / 4, rng.randrange(5) / 4) for _ in range(6)]
    front = pareto_front(cloud)
    for x, y in cloud:
        dominated = any((a > x and b >= y) or (a >= x and b > y) for a, b in cloud)
        assert ((x, y) in front) != dominated
    assert front == sorted(set(front))
    assert all(high > low for (_, high), (_, low) in itertools.pairwise(front))


def test_curves_have_a_panel_each_and_one_legend():
    panels = {f"panel {k}": {"a": [(0, 0.1 * k), (8, 0.5)], "b": [(0, 0.2)]} for k in range(4)}
    figure = curves_figure(panels)
    assert [axes.get_title() for axes in figure.axes] == list(panels)
    assert [list(axes.lines[0].get_ydata()) for axes in figure.axes] == [[0.1 * k, 0.5] for k in range(4)]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b"]


def test_thirty_runs_differ_without_colour():
    (axes,) = risk_coverage_figure({f"run {k}": [(0.5, 0.1), (1.0, 0.2)] for k in range(30)}).axes
    assert len({(str(line.get_linestyle()), line.get_marker(), str(line._dash_pattern)) for line in axes.lines}) == 30


def test_a_run_that_lacks_a_quantity_keeps_its_style_in_the_others():
    with_all = curves_figure({"x": {"a": [(0, 1)], "b": [(0, 1)]}}).axes[0].lines[1]
    (alone,) = curves_figure({"x": {"a": [], "b": [(0, 1)]}}).axes[0].lines
    assert (alone.get_marker(), alone.get_color()) == (with_all.get_marker(), with_all.get_color())
