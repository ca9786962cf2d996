"""Tables show means and spreads over seeds as they are, and nothing is missing silently."""

import statistics

import numpy as np
import pytest
from scipy.stats import ttest_rel

from comparing.claims import CLAIMS, against_the_papers
from comparing.figures import distillation_curves, gradient_curves, sizes, write_figures
from comparing.page import page
from comparing.paired import difference
from comparing.results import BASE, CURVES, SHOWN, Comparison, known, mean_and_spread, table
from comparing.settings import CAOPD, METHODS

ENVIRONMENT = {"cpus": 2, "processes": 2, "timestamp": "2026-11-25T12:00:00+00:00"}
ASKED = {"num_rounds": 50, "num_prompts": 256, "num_held_out": 2000, "seeds": [21, 22, 23], "ablation_seeds": 2}


def metrics(accuracy, confidence):
    gap = confidence - accuracy
    values = dict.fromkeys(SHOWN, 1.0)
    return values | {
        "accuracy": accuracy,
        "mean_confidence": confidence,
        "ocg": gap,
        "ece": abs(gap),
        "brier": 0.1 + abs(gap),
        "spr": 0.5 if abs(gap) < 0.1 else 0.0,
        "auroc": 0.5,
    }


def both(greedy):
    """The same of both events, but that the sampled completions are right less often."""
    return {"greedy": greedy, "sampled": greedy | {"accuracy": greedy["accuracy"] - 0.125}}


def record(part, setting, seed, final, width=64):
    curve = [(0, 0.36), (80, final["accuracy"])]
    return {
        "part": part,
        "setting": setting,
        "seed": seed,
        "width": width,
        "seconds": 100.0,
        "cpu_seconds": 60.0,
        "initial": both(metrics(0.36 + (seed - 21) / 100, 1.0)),
        "final": both(final),
        "curves": {tag: curve for tag in CURVES if tag.startswith("val/")},
    }


def outcome(method, seed):
    calibrated = method in (CAOPD, "CaOPD on SDPO", "RLCR", "CAR", "CAR, unscaled")
    accuracy = 0.6 + (seed - 21) / 100
    return metrics(accuracy, accuracy - 0.02 if calibrated else 1.0)


@pytest.fixture
def comparison():
    records = [record("methods", name, seed, outcome(name, seed)) for seed in (21, 22, 23) for name in METHODS]
    records += [record("rollouts", g, seed, metrics(0.6, 0.5)) for seed in (21, 22) for g in ("32", "1", "4")]
    records += [record("divergences", "reverse / reverse", 21, metrics(0.6, 0.7))]
    records += [record("sizes", name, 21, outcome(name, 21), 32) for name in ("SDFT", CAOPD)]
    for width, parameters in ((32, 72_000), (64, 199_000)):
        knowledge = {"parameters": parameters, "known": 1.0, "unknown": 0.3, "copied": 0.99}
        records.append({"part": "models", "width": width, "cpu_seconds": 50.0, "seconds": 50.0, **knowledge})
    return Comparison(records, [], ENVIRONMENT, ASKED)


def test_mean_and_spread_are_those_of_the_sample():
    values = [0.61, 0.64, 0.7]
    assert mean_and_spread(values) == f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}"
    assert mean_and_spread([0.5]) == "0.500"
    assert mean_and_spread([]) == "-"


def test_an_undefined_metric_is_left_out_of_the_mean():
    assert known([{"spr": None}, {"spr": 0.5}, {}], "spr") == [0.5]


def test_a_row_says_how_many_seeds_it_has(comparison):
    cells = [cell.strip() for cell in table("", comparison.methods("greedy")).splitlines()[-1].split("|")]
    accuracies = [0.6, 0.61, 0.62]
    assert cells[1:4] == [
        "CAR, unscaled",
        "3",
        f"{statistics.mean(accuracies):.3f} ± {statistics.stdev(accuracies):.3f}",
    ]
    assert cells[-2] == "60"


def test_every_number_stands_in_a_table_of_its_event(comparison):
    """Sampled completions are right less often here, so a table of the wrong event would show."""
    text = page(comparison)
    for event, accuracy in (("greedy", "0.370 ± 0.010"), ("sampled", "0.245 ± 0.010")):
        section = text.split(f"## Methods: {event}\n")[1].split("\n## ")[0]
        assert f"| {event} | seeds | accuracy |" in section
        assert f"| base | 3 | {accuracy} |" in section
        assert f"\n## Rollouts per prompt: CaOPD on SDFT, {event}\n" in text
        assert f"\n## Sizes of the model: {event}\n" in text
    rows = [
        line.split(" | ")[1] for line in against_the_papers(comparison).splitlines() if line.startswith("| SDFT st")
    ]
    assert rows == ["greedy", "sampled"]
    panels = distillation_curves(comparison, "sampled").axes
    assert panels[0].get_title() == "Accuracy (held out, sampled)"


def test_the_base_counts_once_a_seed(comparison):
    base = comparison.methods("greedy")[BASE]
    assert [run["accuracy"] for run in base] == pytest.approx([0.36, 0.37, 0.38])


def test_ablations_share_the_main_runs_of_their_seeds_in_order(comparison):
    groups = comparison.rollouts("greedy")
    assert list(groups) == ["1", "4", "8", "32"]
    assert [run["accuracy"] for run in groups["8"]] == pytest.approx([0.6, 0.61])
    assert list(comparison.divergences("greedy")) == ["forward / forward", "reverse / reverse"]


def test_sizes_hold_base_and_both_methods_at_every_width(comparison):
    by_width = comparison.sizes("greedy")
    assert list(by_width) == [32, 64]
    assert all(list(groups) == [BASE, "SDFT", CAOPD] for groups in by_width.values())
    assert [len(groups["SDFT"]) for groups in by_width.values()] == [1, 2]
    panels = sizes(comparison, "greedy").axes
    assert [axes.get_title() for axes in panels] == [BASE, "SDFT", CAOPD]


def test_a_claim_is_judged_by_the_numbers(comparison):
    kept = "CaOPD is as accurate as its backbone."
    assert _judged(comparison)[kept] == "yes"
    for each in comparison.of("methods"):
        if each["setting"] == CAOPD:
            each["final"]["greedy"]["accuracy"] -= 0.1
    assert _judged(comparison)[kept] == "**no**"
    assert f"- *{kept}*" in against_the_papers(comparison)


def test_what_the_seeds_do_not_tell_is_open(comparison):
    more_accurate = next(claim.published for claim in CLAIMS if claim.published.startswith("SDPO is more accurate"))
    assert _judged(comparison)[more_accurate] == "open"
    for shift, each in zip((0.05, -0.01, 0.03), _of(comparison, "SDPO"), strict=True):
        each["final"]["greedy"]["accuracy"] += shift
    assert _judged(comparison)[more_accurate] == "open"
    for each in _of(comparison, "SDPO"):
        each["final"]["greedy"]["accuracy"] += 0.2
    assert _judged(comparison)[more_accurate] == "yes"


def test_differences_are_paired_by_seed_and_tested(comparison):
    for shift, each in zip((0.05, -0.01, 0.03), reversed(_of(comparison, "SDPO")), strict=True):
        each["final"]["greedy"]["accuracy"] += shift
    groups = comparison.methods("greedy")
    groups["SDPO"].reverse()
    found = difference(groups, "SDFT", "SDPO", "accuracy")
    assert found.values == pytest.approx((0.03, -0.01, 0.05))
    first, second = ([run["accuracy"] for run in groups[name]] for name in ("SDFT", "SDPO"))
    assert found.p == pytest.approx(ttest_rel(second[::-1], first).pvalue)
    between = ttest_rel(second[::-1], first).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx(tuple(between))
    assert str(found) == f"+0.023 [{found.low:+.3f}, {found.high:+.3f}], p = {found.p:.2g}"
    assert not found.rises
    alone = {name: runs[:1] for name, runs in groups.items()}
    assert not difference(alone, "base", "GRPO", "accuracy").rises  # one seed tells nothing of others
    assert str(difference(alone, "base", "GRPO", "accuracy")) == "+0.240, one seed"


def test_two_figures_of_curves_give_a_method_the_same_colour(comparison):
    def styles(figure):
        return {line.get_label(): (line.get_color(), line.get_marker()) for line in figure.axes[0].lines}

    first, second = (styles(make(comparison, "greedy")) for make in (distillation_curves, gradient_curves))
    assert set(first) | set(second) == set(METHODS)
    assert set(first) & set(second) == {CAOPD}
    assert first[CAOPD] == second[CAOPD]
    assert all(len(set(style)) == len(style) for style in (list(first.values()), list(second.values())))


def _of(comparison, setting):
    return [each for each in comparison.of("methods") if each["setting"] == setting]


def test_a_claim_about_runs_that_are_missing_is_left_out(comparison):
    without = [each for each in comparison.records if each.get("setting") != "SDPO"]
    claims = _judged(Comparison(without, [], ENVIRONMENT, ASKED))
    assert not any("SDPO" in claim for claim in claims)
    assert any("SDFT" in claim for claim in claims)


def test_every_claim_gives_the_likely_reason_of_a_difference():
    assert all(len(claim.reason) > 20 for claim in CLAIMS)


def _judged(comparison):
    """Claim -> what the page says of it for greedy completions."""
    rows = [line.split(" | ") for line in against_the_papers(comparison).splitlines()[2:] if line.startswith("|")]
    return {cells[0].strip("| "): cells[3].strip("| ") for cells in rows if cells[1:2] == ["greedy"]}


def test_the_page_names_failed_runs_and_every_run(comparison):
    failed = Comparison(comparison.records, ["grpo-24 ended with status 1; the end of x:\nlog"], ENVIRONMENT, ASKED)
    text = page(failed)
    assert "- grpo-24 ended with status 1" in text
    assert text.count("\n| methods |") == 3 * len(METHODS) * 2  # both events
    assert "## Runs that failed or are missing" not in page(comparison)


def test_parts_without_runs_have_no_table_and_no_figure(comparison, tmp_path):
    alone = Comparison(comparison.of("methods"), [], ENVIRONMENT, ASKED)
    assert {path.name for path in write_figures(alone, tmp_path)} == {
        f"comparison-{name}-{event}.svg"
        for name in ("brier", "confidence", "curves", "curves-gradients")
        for event in ("greedy", "sampled")
    }
    assert "## Sizes" not in page(alone)
    assert {path.stem for path in write_figures(comparison, tmp_path)} >= {
        "comparison-rollouts-greedy",
        "comparison-sizes-sampled",
    }
