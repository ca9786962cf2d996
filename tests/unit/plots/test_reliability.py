"""The reliability diagram plots the numbers of its bins."""

import importlib
import math
import sys

import pytest
import torch
from scipy.stats import binom

from caopd.errors import DataError
from caopd.metrics import reliability_bins
from caopd.metrics.functional import calibration_certainty
from caopd.plots import reliability_diagram

# Bins 0 (right 0 of 1), 5 (right 2 of 2) and 9 (right 1 of 2); the other seven are empty.
BINS = reliability_bins(torch.tensor([0.05, 0.5, 0.5, 0.9, 1.0], dtype=torch.float64), torch.tensor([0, 1, 1, 1, 0]))


def bars(axes):
    return [
        (round(patch.get_x(), 6), patch.get_y(), patch.get_height(), patch.get_hatch())
        for patch in axes.containers
        for patch in patch.patches
    ]


def test_bars_reach_the_accuracy_and_gaps_the_mean_confidence():
    upper, _ = reliability_diagram(BINS).axes
    solid = {x: height for x, _, height, hatch in bars(upper) if hatch is None}
    gaps = {x: (bottom, bottom + height, hatch) for x, bottom, height, hatch in bars(upper) if hatch}
    assert solid == pytest.approx({0.0: 0.0, 0.5: 1.0, 0.9: 0.5})
    assert gaps[0.0] == (0.0, pytest.approx(0.05), "////")
    assert gaps[0.5] == (0.5, pytest.approx(1.0), "....")
    assert gaps[0.9] == (0.5, pytest.approx(0.95), "////")


def test_hatched_heights_weighted_by_the_counts_are_the_ece():
    upper, lower = reliability_diagram(BINS).axes
    share = {x: height / 100 for x, _, height, _ in bars(lower) if height}
    ece = sum(share[x] * height for x, _, height, hatch in bars(upper) if hatch)
    assert sum(share.values()) == pytest.approx(1.0)
    assert ece == pytest.approx(BINS.ece)


def test_an_empty_bin_has_a_band_and_no_bar_while_accuracy_zero_has_a_cap():
    upper, _ = reliability_diagram(BINS).axes
    caps = {tuple(line.get_xdata()): line.get_ydata()[0] for line in upper.lines if len(line.get_xdata()) == 2}
    assert caps[(0.0, 0.1)] == 0.0
    assert (0.1, 0.2) not in caps
    plotted = {x for x, *_ in bars(upper)}
    bands = {round(p.get_x(), 6) for p in upper.patches if p.get_hatch() is None and p.get_zorder() == 0}
    assert plotted == {0.0, 0.5, 0.9}
    assert bands == {0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8}


def test_the_lower_panel_marks_accuracy_and_mean_confidence():
    upper, lower = reliability_diagram(BINS).axes
    marks = {line.get_label(): line.get_xdata()[0] for line in lower.lines}
    assert marks == {"Accuracy 0.600": pytest.approx(0.6), "Mean confidence 0.590": pytest.approx(0.59)}
    assert upper.get_shared_x_axes().joined(upper, lower)


def bars_of_calibrated(axes):
    """Ends of the consistency bars, by the confidence at which they stand."""
    lines = [line for line in axes.lines if line.get_marker() == "_"]
    return {round(line.get_xdata()[0], 6): tuple(line.get_ydata()) for line in lines}


def test_consistency_bars_hold_the_accuracies_of_a_calibrated_model():
    """Ends are quantiles of a binomial, at the mean confidence of each bin that is not empty."""
    confidence = torch.tensor([0.25] * 40 + [0.95] * 7 + [1.0], dtype=torch.float64)
    upper, _ = reliability_diagram(reliability_bins(confidence, torch.ones(48))).axes
    mean = (7 * 0.95 + 1) / 8
    expected = {x: tuple(binom.ppf([0.025, 0.975], n, x) / n) for x, n in ((0.25, 40), (mean, 8))}
    found = bars_of_calibrated(upper)
    assert found.keys() == {0.25, round(mean, 6)}
    for x, ends in expected.items():
        assert found[round(x, 6)] == pytest.approx(ends, abs=0.026), x  # a step of the binomial of 40


def test_completions_of_a_prompt_count_as_fewer_in_the_bars_and_the_certainty_is_printed():
    """Ten equal completions a prompt are one: the bars are those of 30 completions, not of 300."""
    right = torch.arange(30) % 2 == 0
    confidence, correct = torch.full((300,), 0.5), right.repeat_interleave(10)
    certainty = calibration_certainty(confidence, correct, torch.arange(30).repeat_interleave(10))
    figure = reliability_diagram(reliability_bins(confidence, correct), certainty=certainty)
    assert bars_of_calibrated(figure.axes[0])[0.5] == pytest.approx((10 / 30, 20 / 30), abs=0.034)
    assert figure.get_suptitle().splitlines()[-2:] == [
        f"true ECE {certainty.low:.3f} to {certainty.high:.3f}",
        f"if calibrated {certainty.floor:.3f}, p = {certainty.p_value:.2g}",
    ]


def test_title_and_legends_are_within_the_figure():
    confidence = torch.linspace(0.25, 0.75, 300)
    correct = torch.arange(300) % 3 == 0
    figure = reliability_diagram(
        reliability_bins(confidence, correct),
        title="validation, sampled completions, step 100000",
        spr=0.5,
        certainty=calibration_certainty(confidence, correct),
    )
    figure.canvas.draw()
    entries = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert {"Overconfident", "No completions", "Calibrated, 95 %"} <= set(entries)
    shown = [figure._suptitle, *(axes.get_legend() for axes in figure.axes)]
    for box in (each.get_window_extent() for each in shown):
        assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= box.y0 < box.y1 <= figure.bbox.y1


def test_certainty_of_other_bins_is_refused():
    certainty = calibration_certainty(torch.full((4,), 0.5), torch.tensor([1, 0, 1, 0]), n_bins=3)
    with pytest.raises(DataError, match="of the 10 bins that are plotted, but got one of 3"):
        reliability_diagram(BINS, certainty=certainty)


@pytest.mark.parametrize(
    ("settings", "heading"),
    [
        ({}, "ECE 0.390   OCG -0.010"),
        ({"title": "run", "spr": 0.25}, "run\nECE 0.390   OCG -0.010   SPR 0.250"),
        ({"spr": math.nan, "ocg": 0.5}, "ECE 0.390   OCG +0.500"),
    ],
)
def test_the_heading_holds_the_numbers(settings, heading):
    assert reliability_diagram(BINS, **settings).get_suptitle() == heading


def test_the_figure_saves_as_an_image_with_ink_on_it(tmp_path):
    from matplotlib.image import imread

    path = tmp_path / "figure.png"
    reliability_diagram(BINS, title="run").savefig(path)
    pixels = imread(path)[..., :3]
    assert pixels.min() < 0.2
    assert pixels.std() > 0.05


def test_without_completions_there_is_nothing_to_plot():
    with pytest.raises(DataError, match="only empty bins"):
        reliability_diagram(reliability_bins(torch.zeros(0), torch.zeros(0)))


def test_plots_import_where_matplotlib_is_refused(monkeypatch):
    # None in sys.modules refuses an import; torchmetrics, which takes matplotlib when it is there, is loaded.
    for name in list(sys.modules):
        if name.partition(".")[0] == "matplotlib":
            monkeypatch.setitem(sys.modules, name, None)
        if name.startswith("caopd.plots"):
            monkeypatch.delitem(sys.modules, name)
    plots = importlib.import_module("caopd.plots")
    with pytest.raises(ModuleNotFoundError, match="matplotlib"):
        plots.reliability_diagram(BINS)


def test_drawing_leaves_pyplot_alone():
    from matplotlib import pyplot

    before = pyplot.get_fignums()
    reliability_diagram(BINS)
    assert pyplot.get_fignums() == before
