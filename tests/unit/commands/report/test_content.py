"""What a report shows of records made by hand."""

from pathlib import Path

import numpy as np
import pytest

from caopd.commands.report.collect import RunRecord
from caopd.commands.report.content import figures, tables
from caopd.commands.score.predictions import Predictions
from caopd.run_directory import Measured


def predictions(confidence, correct):
    n = len(correct)
    return Predictions(
        np.array(confidence, dtype=np.float64),
        np.array(correct, dtype=bool),
        np.full(n, -1, np.int8),
        np.full(n, -1, np.int8),
        np.arange(n),
        np.full(n, -1),
        (),
    )


def record(name, predicted=None, rollouts=None, sampled=None, **greedy):
    """A run whose greedy completions were measured, and its sampled ones where there is anything of them."""
    events = {"greedy": {"n": 4, **greedy}, **({} if sampled is None else {"sampled": {"n": 4, **sampled}})}
    return RunRecord(name, Path(name), {}, None, Measured(1, events), {}, predicted or {}, rollouts)


def lines(figure):
    (axes,) = figure.axes
    return {line.get_label(): line for line in axes.lines}


PREDICTED = predictions([0.9, 0.5, np.nan, 0.1], [1, 0, 1, 0])
SAMPLED = predictions([0.5, 0.5], [0, 1])
ROLLOUTS = (np.array([0.25, np.nan]), np.array([True, False]), np.array([0, 0]))
RECORDS = [
    record(
        "first",
        sampled={"accuracy": 0.375, "mean_confidence": 0.7},
        accuracy=0.5,
        mean_confidence=0.75,
        spr=0.5,
        brier=0.25,
    ),
    record(
        "second", {"greedy": PREDICTED, "sampled": SAMPLED}, accuracy=0.25, mean_confidence=0.5, spr=None, brier=0.3
    ),
    record("third", rollouts=ROLLOUTS, accuracy=0.1),
]


@pytest.fixture
def sections():
    return {section.title: section for section in figures(RECORDS)}


def test_points_are_the_metrics_and_what_is_undefined_has_none(sections):
    confidence = lines(sections["Confidence against accuracy: greedy"].figures["confidence-greedy"])
    assert confidence["first"].get_data() == ([0.5], [0.75])
    assert confidence["second"].get_data() == ([0.25], [0.5])
    assert "third" not in confidence
    pareto = lines(sections["Calibration and ranking: greedy"].figures["pareto-greedy"])
    assert pareto["first"].get_data() == ([0.5], [0.75])
    assert "second" not in pareto


def test_a_run_looks_the_same_in_all_figures(sections):
    dot = lines(sections["Confidence against accuracy: greedy"].figures["confidence-greedy"])["second"]
    line = lines(sections["Risk and coverage: greedy"].figures["risk-coverage-greedy"])["second"]
    assert (line.get_marker(), line.get_color()) == (dot.get_marker(), dot.get_markerfacecolor())


def test_risks_are_those_of_the_completions_that_state_a_confidence(sections):
    line = lines(sections["Risk and coverage: greedy"].figures["risk-coverage-greedy"])["second"]
    points = dict(zip(*line.get_data(), strict=True))
    assert points == pytest.approx({1 / 3: 0, 2 / 3: 1 / 2, 1: 2 / 3})


def test_reliability_is_of_predictions_else_of_rollouts_else_absent(sections):
    plotted = sections["Reliability"].figures
    assert list(plotted) == ["reliability-2-greedy", "reliability-2-sampled", "reliability-3-sampled"]
    assert plotted["reliability-2-greedy"].get_suptitle().startswith("second: greedy predictions\n")
    assert plotted["reliability-2-sampled"].get_suptitle().startswith("second: sampled predictions\nECE 0.000   ")
    # One rollout states 0.25 and is right: the gap is 0.75.
    title = "third: sampled rollouts of the last round\nECE 0.750   OCG -0.750"
    assert plotted["reliability-3-sampled"].get_suptitle().startswith(f"{title}\nif calibrated: ECE ")


def test_each_event_has_tables_and_figures_of_its_own_which_name_it(sections):
    found = {table.name: table for table in tables(RECORDS)}
    assert list(found) == ["runs", "metrics_greedy", "predictions_greedy", "metrics_sampled", "predictions_sampled"]
    for name, table in found.items():
        if name != "runs":
            event = name.rpartition("_")[2]
            assert table.title.endswith(f": {event}")
            assert {row["event"] for row in table.rows} == {event}
    assert [row["accuracy"] for row in found["metrics_greedy"].rows] == [0.5, 0.25, 0.1]
    assert [row["accuracy"] for row in found["metrics_sampled"].rows] == [0.375]
    assert found["predictions_sampled"].rows[0]["accuracy"].value == 0.5
    confidence = lines(sections["Confidence against accuracy: sampled"].figures["confidence-sampled"])
    assert confidence["first"].get_data() == ([0.375], [0.7])
    for section in sections.values():
        for name, figure in section.figures.items():
            words = figure.get_suptitle() + figure.axes[0].get_title()
            assert name.rpartition("-")[2] in words, name


def test_a_long_curve_keeps_its_ends_and_is_thinned():
    n = 5000
    many = record("many", {"greedy": predictions(np.linspace(0, 1, n), np.arange(n) % 2 == 0)}, accuracy=0.5)
    section = next(section for section in figures([many]) if section.title == "Risk and coverage: greedy")
    coverage = lines(section.figures["risk-coverage-greedy"])["many"].get_xdata()
    assert len(coverage) < 500
    assert (coverage[0], coverage[-1]) == (1 / n, 1.0)


def test_a_report_of_a_run_that_measured_nothing_has_tables_and_says_what_is_missing():
    nothing = RunRecord("nothing", Path("nothing"), {}, None, None, {}, {}, None)
    shown = [table.name for table in tables([nothing])]
    assert shown == ["runs", "metrics_greedy"]
    texts = {section.title: section.text for section in figures([nothing]) if not section.figures}
    assert "caopd predict" in texts["Risk and coverage: greedy"]
    assert "TensorBoard" in texts["Training"]
