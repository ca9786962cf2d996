"""Bars and lines stand at the mean of their values, with the sample's standard deviation around it."""

import numpy as np
import pytest

from caopd.plots import bars_figure, save_figure, sweep_figure
from caopd.plots.spread import mean_and_spread

VALUES = [0.61, 0.64, 0.7, 0.58]


def spreads(axes):
    """Ends of every plotted spread."""
    segments = [segment for container in axes.containers if hasattr(container, "has_yerr") for segment in container[2]]
    return [np.asarray(line) for collection in segments for line in collection.get_segments()]


def test_spread_is_that_of_the_sample():
    assert mean_and_spread(VALUES) == pytest.approx((np.mean(VALUES), np.std(VALUES, ddof=1)))
    assert mean_and_spread([0.5]) == (0.5, 0.0)


def test_bars_end_at_the_mean_in_the_order_given_and_keep_their_row_in_every_panel():
    figure = bars_figure({"x": {"a": VALUES, "b": [0.2]}, "y": {"b": [-0.4, -0.2]}})
    first, second = figure.axes
    assert [bar.get_width() for bar in first.patches] == pytest.approx([np.mean(VALUES), 0.2])
    assert [label.get_text() for label in first.get_yticklabels()] == ["a", "b"]
    assert first.yaxis_inverted()
    (bar,) = second.patches
    assert bar.get_y() == first.patches[1].get_y()
    assert bar.get_x() + bar.get_width() == pytest.approx(-0.3)
    (line,) = spreads(first)
    assert line[:, 0] == pytest.approx(np.mean(VALUES) + np.std(VALUES, ddof=1) * np.array([-1, 1]))


def test_a_single_value_has_a_bar_without_a_spread():
    (axes,) = bars_figure({"x": {"a": [0.5]}}).axes
    assert [text.get_text() for text in axes.texts] == ["0.500"]
    assert not spreads(axes)


def test_a_sweep_has_a_panel_each_a_tick_per_setting_and_one_legend():
    lines = {"a": [(1, VALUES), (8, [0.5])], "b": [(1, [0.1]), (72_480, [0.2])]}
    figure = sweep_figure({"x": lines, "y": {"a": [(1, [0.0])]}}, label="K")
    first, second = figure.axes
    assert (first.get_title(), first.get_xlabel(), first.get_xscale()) == ("x", "K", "log")
    assert [label.get_text() for label in first.get_xticklabels()] == ["1", "8", "72k"]
    assert list(first.lines[0].get_ydata()) == pytest.approx([np.mean(VALUES), 0.5])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]
    assert len(second.get_xticks()) == 1


def test_a_line_keeps_its_style_where_another_is_missing():
    figure = sweep_figure({"x": {"a": [(1, [0.1])], "b": [(1, [0.1])]}, "y": {"b": [(1, [0.1])]}}, label="K")
    both, alone = (next(line for line in axes.lines if line.get_label() == "b") for axes in figure.axes)
    assert (both.get_marker(), both.get_color()) == (alone.get_marker(), alone.get_color())


def test_few_values_are_shown_themselves_and_more_by_their_deviation():
    (axes,) = sweep_figure({"x": {"a": [(1, [0.1, 0.3]), (2, VALUES)]}}, label="K").axes
    (line,) = spreads(axes)
    assert line[:, 1] == pytest.approx(np.mean(VALUES) + np.std(VALUES, ddof=1) * np.array([-1, 1]))
    assert [list(dots.get_ydata()) for dots in axes.lines if dots.get_marker() == "."] == [[0.1, 0.3]]
    (axes,) = bars_figure({"x": {"a": [0.1, 0.3], "b": VALUES}}).axes
    assert len(spreads(axes)) == 1
    assert [list(dots.get_xdata()) for dots in axes.lines if dots.get_marker() == "."] == [[0.1, 0.3]]


def test_what_differs_little_is_not_blown_up():
    (axes,) = sweep_figure({"x": {"a": [(1, [0.600]), (2, [0.601])]}}, label="K").axes
    low, high = axes.get_ylim()
    assert high - low == pytest.approx(0.1)
    assert (low + high) / 2 == pytest.approx(0.6005)


def test_a_setting_without_values_has_no_point():
    (axes,) = sweep_figure({"x": {"a": [(1, [0.1]), (2, [])]}}, label="K").axes
    assert list(axes.lines[0].get_xdata()) == [1]


def test_files_are_those_asked_for(tmp_path):
    assert save_figure(bars_figure({"x": {"a": [0.5]}}), tmp_path / "bars", [".svg"]) == [tmp_path / "bars.svg"]
    assert [path.name for path in tmp_path.iterdir()] == ["bars.svg"]
