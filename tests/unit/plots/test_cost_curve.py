"""The figure of a cascade plots the numbers of its curve."""

import pytest
import torch

from caopd.metrics import cascade_curve
from caopd.plots import cascade_figure

CURVE = cascade_curve(
    torch.tensor([torch.nan, 0.25, 0.5, 0.75]), torch.tensor([0, 0, 1, 1]), torch.tensor([1, 1, 1, 0])
)


@pytest.fixture
def lines():
    figure = cascade_figure(CURVE, {"target": CURVE.points[2]})
    (axes,) = figure.axes
    return {line.get_label().partition(":")[0]: (list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines}


def test_lines_are_the_curve_and_what_it_is_compared_with(lines):
    assert lines["by confidence"] == ([1.0, 3.5, 6.0, 8.5, 11.0], [0.5, 0.75, 1.0, 1.0, 0.75])
    assert lines["oracle deferral"] == ([1.0, 6.0, 8.5, 11.0], [0.5, 1.0, 1.0, 0.75])
    assert [sorted(values) for values in lines["random deferral"]] == [[1.0, 11.0], [0.5, 0.75]]
    assert lines["large model alone"] == ([10.0], [0.75])
    assert lines["target"] == ([6.0], [1.0])


def test_lines_differ_without_colour():
    (axes,) = cascade_figure(CURVE).axes
    styles = [(line.get_linestyle(), line.get_marker()) for line in axes.lines]
    assert len(set(styles)) == len(styles)
    assert axes.collections[0].get_hatch() == "////"
