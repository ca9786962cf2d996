"""Names and titles stand in figures as they are: read back from SVG files that hold text as text."""

import io
import xml.etree.ElementTree as ET

import matplotlib as mpl
import pytest
import torch

from caopd.metrics import cascade_curve, reliability_bins
from caopd.plots import bars_figure, cascade_figure, reliability_diagram, sweep_figure
from caopd.plots.comparison import Track, confidence_figure, curves_figure, pareto_figure, risk_coverage_figure

NAMES = {
    r"$\frac{1}{2$": r"$\frac{1}{2$",
    "$x$": "$x$",
    r"5$ \$6": r"5$ \$6",
    "_baseline": "_baseline",
    "<b>&amp;</b>": "<b>&amp;</b>",
    "a\nb\udce9\x08": r"a\nb\udce9\x08",
}
CURVE = cascade_curve(torch.tensor([0.75, 0.25]), torch.tensor([1, 0]), torch.tensor([1, 1]))
BINS = reliability_bins(torch.tensor([0.05, 0.5]), torch.tensor([0, 1]))
FIGURES_OF_NAMES = {
    "tracks": lambda names: confidence_figure(dict.fromkeys(names, Track((0.1, 0.2), (0.5, 0.5)))),
    "pareto": lambda names: pareto_figure(dict.fromkeys(names, Track(None, (0.5, 0.5)))),
    "series": lambda names: risk_coverage_figure({key: [(0.5, 0.1), (1.0, 0.2)] for key in names}),
    "panels": lambda names: curves_figure({key: {"run": [(0, 1)]} for key in names}),
    "bars": lambda names: bars_figure({"title": {key: [0.5] for key in names}}),
    "titles of bars": lambda names: bars_figure({key: {"x": [0.5]} for key in names}),
    "sweep": lambda names: sweep_figure({"title": {key: [(1, [0.5])] for key in names}}, label="K"),
}
FIGURES_OF_ONE = {
    "label of a sweep": lambda name: sweep_figure({"title": {"x": [(1, [0.5])]}}, label=name),
    "cascade": lambda name: cascade_figure(CURVE, title=name),
    "reliability": lambda name: reliability_diagram(BINS, title=name),
}


def texts_of(figure):
    output = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none"}):
        figure.savefig(output, format="svg")
    root = ET.fromstring(output.getvalue())
    return ["".join(element.itertext()).strip() for element in root.iter("{http://www.w3.org/2000/svg}text")]


@pytest.mark.parametrize("kind", FIGURES_OF_NAMES)
def test_a_figure_shows_all_names(kind):
    shown = texts_of(FIGURES_OF_NAMES[kind](NAMES))
    assert {name: shown.count(NAMES[name]) for name in NAMES} == dict.fromkeys(NAMES, 1)


@pytest.mark.parametrize("kind", FIGURES_OF_ONE)
@pytest.mark.parametrize("name", NAMES)
def test_a_figure_shows_the_name(kind, name):
    assert texts_of(FIGURES_OF_ONE[kind](name)).count(NAMES[name]) == 1
