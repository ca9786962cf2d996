"""What a report shows of runs made by hand: tables and figures, and why there is none."""

import numpy as np
import pytest
import torch
from scipy import stats

from caopd.commands.report.curves import CURVES
from caopd.commands.report.figures import figures
from caopd.commands.report.metric_tables import tables
from caopd.commands.report.sets import RunSet
from caopd.metrics.functional.certainty import calibration_certainty

from .records import predictions, run, seeds


def record(name, predicted=None, rollouts=None, sampled=None, **greedy):
    """A run whose greedy completions were measured, and its sampled ones where there is anything of them."""
    events = {"greedy": {"n": 4, **greedy}, **({} if sampled is None else {"sampled": {"n": 4, **sampled}})}
    return RunSet(name, [run(name, final=events, predicted=predicted, rollouts=rollouts)])


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
    title = "third: sampled rollouts\nECE 0.750   OCG -0.750"
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


def test_a_run_that_measured_nothing_has_tables_and_every_figure_says_what_is_missing():
    nothing = RunSet("nothing", [run("nothing")])
    assert [table.name for table in tables([nothing])] == ["runs", "metrics_greedy"]
    sections = figures([nothing])
    assert not any(section.figures for section in sections)
    reasons = {section.title.partition(":")[0]: section.reasons for section in sections}
    assert all(names == ["nothing"] for why in reasons.values() for names in why.values())
    said = {title: " ".join(why) for title, why in reasons.items()}
    assert "nor rollouts" in said["Reliability"]
    assert said["Confidence against accuracy"] == "nothing was measured after training"
    assert "`predictions.greedy.jsonl`" in said["Risk and coverage"]
    assert "TensorBoard" in said["Training"]


SILENT = predictions([np.nan, np.nan], [1, 0])


@pytest.mark.parametrize(
    ("title", "one", "why"),
    [
        (
            "Calibration and ranking: greedy",
            record("one", brier=0.5, spr=None),
            "the SPR after training is undefined: of the comp",
        ),
        ("Calibration and ranking: greedy", record("one", brier=None, spr=None), "the SPR after training is undefined"),
        (
            "Confidence against accuracy: greedy",
            record("one", accuracy=0.5),
            "the Mean confidence after training is undefined: no",
        ),
        ("Reliability", record("one", {"greedy": SILENT}), "none of its greedy predictions states a confidence"),
        ("Risk and coverage: greedy", record("one", {"greedy": SILENT}), "with confidences"),
    ],
)
def test_what_is_undefined_is_said_in_place_of_the_figure(title, one, why):
    (section,) = [each for each in figures([one]) if each.title == title]
    assert not section.figures
    ((found, names),) = section.reasons.items()
    assert why in found
    assert names == ["one"]


def test_a_figure_of_some_runs_names_the_others(sections):
    section = sections["Calibration and ranking: greedy"]
    assert section.figures
    undefined = (
        "the SPR after training is undefined: of the completions that state a confidence, none is right or none is"
    )
    assert section.reasons == {
        "nothing was measured before training": ["first"],
        f"{undefined} wrong": ["second", "third"],
    }
    found = sections["Confidence against accuracy: sampled"].reasons
    assert found["no sampled completions were measured after training"] == ["second", "third"]


def test_curves_that_a_run_did_not_log_are_named():
    logged = {tag: [(0, 0.5)] for tag in CURVES}
    some = {tag: curve for tag, curve in logged.items() if tag not in ("rollout/mu_hat", "val/sampled/ece")}
    sets = [
        RunSet(name, [run(name, curves=curves)]) for name, curves in (("all", logged), ("some", some), ("none", {}))
    ]
    section = next(section for section in figures(sets) if section.title == "Training")
    (one, other) = section.reasons.items()
    assert one == ("its log has no `val/sampled/ece`, `rollout/mu_hat`", ["some"])
    assert (other[0].startswith("the run directory holds neither TensorBoard"), other[1]) == (True, ["none"])


def values(accuracy, **more):
    return {"n": 4, "accuracy": accuracy, "mean_confidence": accuracy / 2, "spr": 0.5, "brier": 0.25, **more}


THREE = seeds(
    "three",
    *(
        {"initial": {"greedy": values(0.125)}, "final": {"greedy": values(accuracy)}, "curves": {"train/loss": curve}}
        for accuracy, curve in ((0.25, [(0, 1.0), (1, 4.0)]), (0.5, [(0, 2.0)]), (0.75, [(0, 6.0)]))
    ),
)


def test_seeds_are_compared_by_their_mean_and_its_interval():
    found = {table.name: table for table in tables([THREE, *RECORDS[:1]])}
    before, after, other = found["metrics_greedy"].rows[:3]
    low, high = stats.t.interval(0.95, 2, loc=0.5, scale=stats.sem([0.25, 0.5, 0.75]))
    cell = after["accuracy"]
    assert (cell.value, cell.low, cell.high) == pytest.approx((0.5, max(0, low), min(1, high)), abs=1e-4)
    assert (after["seeds"], after["n"], other["seeds"], other["n"]) == (3, 12, 1, 4)
    assert (before["accuracy"].value, before["accuracy"].low) == (0.125, 0.125)
    assert other["accuracy"] == 0.5  # a run alone has the intervals over its prompts
    assert after["auroc" if "auroc" in after else "spr"].value == 0.5
    assert [row["accuracy"] for row in found["seeds_greedy"].rows] == [0.25, 0.5, 0.75]
    assert "Student's t" in found["metrics_greedy"].note
    assert "seeds_greedy" not in {table.name for table in tables(RECORDS)}


def of_seeds(name, *finals):
    return seeds(name, *({"final": {"greedy": values(**each)}} for each in finals))


def test_sets_differ_seed_by_seed():
    first = of_seeds("first", *({"accuracy": each, "ocg": 0.1} for each in (0.2, 0.5, 0.9)))
    second = of_seeds("second", *({"accuracy": each, "ocg": -0.3} for each in (0.25, 0.5625, 0.9375)))
    table = next(each for each in tables([first, *RECORDS[:1], second]) if each.name == "differences_greedy")
    (row,) = table.rows
    assert (row["run"], row["minus"], row["seeds"]) == ("second", "first", 3)
    found, oracle = row["accuracy"], stats.ttest_1samp([0.05, 0.0625, 0.0375], 0).confidence_interval()
    assert (found.value, found.low, found.high) == pytest.approx((0.05, oracle.low, oracle.high), abs=1e-5)
    assert row["ocg"].value == pytest.approx(0.2)  # further from 0
    assert "|Overconfidence gap|" in table.html()


def test_only_seeds_that_both_have_are_subtracted():
    first, second = (of_seeds(name, *({"accuracy": 0.25 * n} for n in range(k))) for name, k in (("a", 3), ("b", 2)))
    (row,) = next(each for each in tables([first, second]) if each.name == "differences_greedy").rows
    assert (row["seeds"], row["accuracy"].value) == (2, 0.0)
    apart = RunSet("c", second.runs[1:])
    assert "differences_greedy" not in {each.name for each in tables([first, apart])}


def test_a_value_that_a_seed_lacks_has_no_mean():
    two = seeds("two", {"final": {"greedy": values(0.5)}}, {"final": {"greedy": values(0.5, spr=None)}})
    (row,) = next(table for table in tables([two]) if table.name == "metrics_greedy").rows
    assert row["spr"] is None
    sections = {section.title: section for section in figures([two])}
    assert sections["Calibration and ranking: greedy"].reasons.keys() == {
        "of one of its seeds, the SPR after training is undefined: of the completions that state a confidence, none is "
        "right or none is wrong"
    }


def test_seeds_are_one_point_with_a_cross_and_one_line_with_a_band():
    sections = {section.title: section for section in figures([THREE])}
    confidence = sections["Confidence against accuracy: greedy"].figures["confidence-greedy"]
    assert lines(confidence)["three"].get_data() == ([0.5], [0.25])
    half = stats.t.ppf(0.975, 2) * stats.sem([0.25, 0.5, 0.75])
    crosses = [line.get_xdata() for line in confidence.axes[0].lines if len(line.get_xdata()) == 2]
    assert any(list(cross) == pytest.approx([0.5 - half, 0.5 + half], abs=1e-4) for cross in crosses)
    (axes,) = sections["Training"].figures["training"].axes
    assert axes.lines[0].get_data() == ([0], [3.0])  # at the step that all have
    heights = axes.collections[0].get_paths()[0].vertices[:, 1]
    half = stats.t.ppf(0.975, 2) * stats.sem([1, 2, 6])
    assert (heights.min(), heights.max()) == pytest.approx((3 - half, 3 + half), abs=1e-3)


def test_seeds_without_predictions_are_counted_and_named():
    some = seeds("some", {"predicted": {"greedy": PREDICTED}}, {}, {"predicted": {"greedy": PREDICTED}})
    sections = {section.title: section for section in figures([some])}
    assert sections["Reliability"].reasons == {"only 2 of its 3 seeds have greedy predictions": ["some"]}
    assert [name for name, _ in sections["Risk and coverage: greedy"].missing] == ["some, seed 1"]


def test_seeds_are_one_line_of_risk_and_coverage_and_one_row_of_predictions():
    both = seeds("both", *({"predicted": {"greedy": predictions([0.5, 0.9], [1, right])}} for right in (0, 1)))
    sections = {section.title: section for section in figures([both])}
    line = lines(sections["Risk and coverage: greedy"].figures["risk-coverage-greedy"])["both"]
    assert dict(zip(*line.get_data(), strict=True)) == {0.5: 0.5, 1.0: 0.25}
    rows = next(table for table in tables([both]) if table.name == "predictions_greedy").rows
    assert (rows[0]["seeds"], rows[0]["n"], rows[0]["accuracy"].value) == (2, 4, 0.75)


@pytest.mark.parametrize("named", [True, False])
def test_seeds_share_a_reliability_diagram_in_which_prompts_of_the_same_id_are_one(named):
    """Both seeds answer alike, so that the second one tells nothing new where its prompts are the same."""
    confidence, correct = [0.8] * 20, [1, 0] * 10
    names = tuple(range(20)) if named else ()
    both = seeds("both", *[{"predicted": {"greedy": predictions(confidence, correct, names)}}] * 2)
    (diagram,) = next(each for each in figures([both]) if each.title == "Reliability").figures.values()
    pair = torch.tensor(confidence * 2), torch.tensor(correct * 2)
    found = calibration_certainty(*pair, torch.tensor([*range(20)] * 2) if named else torch.arange(40))
    title, _, between, *_ = diagram.get_suptitle().splitlines()
    assert title == "both: greedy predictions, 2 seeds"
    assert between == f"true ECE {found.low:.3f} to {found.high:.3f}"
    assert diagram.axes[1].get_ylabel() == "% of 40"
