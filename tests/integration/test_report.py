"""``caopd report`` on real runs: what its pages show is what the runs measured, and a browser shows it offline."""

import base64
import csv
import hashlib
import itertools
import json
import re
import xml.etree.ElementTree as ET

import pytest

from caopd.cli import main
from caopd.commands.report.browser import SCRIPT
from caopd.commands.report.collect import collect
from caopd.commands.score.bootstrap import score
from caopd.commands.score.predictions import read_predictions
from tests.chromium import CHROMIUM, REASON, Chromium

FIGURES = [
    *("reliability-1-greedy", "reliability-1-sampled", "reliability-2-sampled"),
    *("confidence-greedy", "risk-coverage-greedy", "pareto-greedy"),
    *("confidence-sampled", "risk-coverage-sampled", "pareto-sampled"),
    "training",
]


@pytest.fixture(scope="module")
def runs(fit, tmp_path_factory):
    """A run with predictions, and one without; the predictions lack some confidences."""
    root = tmp_path_factory.mktemp("runs")
    settings = {"trainer.check_val_every_n_epoch": 1}
    first = fit(root / "first", **settings)
    second = fit(root / "second", **settings, **{"model.method": "SDFT"})
    rows = [
        {"prompt_id": k, "confidence": None if k % 7 == 0 else (k * 3 % 11) / 10, "correct": int(k % 3 == 0)}
        for k in range(60)
    ]
    for step, event in itertools.product((4, 8), ("greedy", "sampled")):
        own = [{**row, "event": event, "correct": row["correct"] if step == 8 else 0} for row in rows]
        (first.directory / f"step_{step:06d}").mkdir(exist_ok=True)
        file = first.directory / f"step_{step:06d}" / f"predictions.{event}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in own))
    return first.directory, second.directory


@pytest.fixture(scope="module")
def report(runs, tmp_path_factory):
    directory = tmp_path_factory.mktemp("report")
    assert main(["report", *map(str, runs), f"--output={directory}", "--title=A <comparison>"]) == 0
    return directory


def rows_of(report, name):
    with (report / "tables" / f"{name}.csv").open() as file:
        return list(csv.DictReader(file))


def test_the_metrics_are_those_of_the_runs(runs, report):
    for event in ("greedy", "sampled"):
        check_the_metrics(runs, rows_of(report, f"metrics_{event}"), event)


def check_the_metrics(runs, rows, event):
    assert {row["event"] for row in rows} == {event}
    assert [(row["run"], row["moment"]) for row in rows] == [
        ("CaOPD on SDFT", "before"),
        ("CaOPD on SDFT", "after"),
        ("SDFT", "before"),
        ("SDFT", "after"),
    ]
    for number, directory in enumerate(runs):
        measured = json.loads((directory / "metrics.json").read_text())
        for row, moment in zip(rows[2 * number :], ("initial", "final"), strict=False):
            for name in ("accuracy", "mean_confidence", "ece", "brier", "ocg", "spr", "auroc", "format_adherence"):
                assert (float(row[name]) if row[name] else None) == measured[moment][event][name]
            for name in ("ece", "noise_floor"):
                ends = [float(row[f"{name}_{end}"]) for end in ("low", "high")]
                assert ends == [measured[moment][event][f"{name}_{end}"] for end in ("low", "high")]


def test_predictions_have_the_intervals_of_caopd_score(runs, report):
    (row,) = rows_of(report, "predictions_greedy")
    scores, _ = score(read_predictions(runs[0] / "step_000008" / "predictions.greedy.jsonl"))
    for name in ("accuracy", "ece", "smooth_ece", "brier", "spr", "aurc"):
        found = [float(row[key]) for key in (name, f"{name}_low", f"{name}_high")]
        estimate = scores.estimates[name]
        assert found == [estimate.value, estimate.low, estimate.high]
    certainty = scores.certainty
    floor = [float(row[key]) for key in ("noise_floor", "noise_floor_low", "noise_floor_high")]
    assert floor == [certainty.floor, certainty.floor_low, certainty.floor_high]


def test_every_figure_is_there_as_vector_and_pixels(report):
    assert sorted({path.stem for path in (report / "figures").iterdir()}) == sorted(FIGURES)
    for name in FIGURES:
        assert {path.suffix for path in (report / "figures").glob(f"{name}.*")} == {".svg", ".pdf", ".png"}


def test_markdown_shows_tables_and_names_figures_that_are_there(report):
    text = (report / "report.md").read_text()
    assert re.findall(r"\(figures/(.*?)\.svg\)", text) == FIGURES
    for row in rows_of(report, "metrics_greedy"):
        assert f"| {row['run']} | {row['moment']} |" in text


def test_the_page_needs_nothing_else_and_runs_one_script_alone(report):
    page = (report / "report.html").read_text()
    assert "<title>A &lt;comparison&gt;</title>" in page
    assert not re.findall(r"<(?:link|img|iframe|object)\b|\bsrc=|@import|url\((?!#)", page)
    assert not [target for target in re.findall(r'href="(.*?)"', page) if not target.startswith("#")]
    data, script = re.findall(r"<script(.*?)>(.*?)</script>", page, flags=re.DOTALL)
    assert data[0] == ' type="application/json" id="completions-data"'
    assert script == ("", SCRIPT.read_text())
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="(.*?)"', page)
    allowed = dict(each.split(maxsplit=1) for each in policy.split("; "))
    assert allowed == {
        "default-src": "'none'",
        "style-src": "'unsafe-inline'",
        "img-src": "data:",
        "script-src": f"'sha256-{digest}'",
    }


def test_ids_of_the_page_are_unique_and_every_reference_finds_one(report):
    page = (report / "report.html").read_text()
    ids = re.findall(r'\bid="(.*?)"', page)
    assert len(ids) == len(set(ids)) > 100
    assert set(re.findall(r'href="#(.*?)"|url\(#(.*?)\)', page)) <= {pair for i in ids for pair in ((i, ""), ("", i))}


def test_figures_are_well_formed_and_named(report):
    plotted = re.findall(r"<svg.*?</svg>", (report / "report.html").read_text(), flags=re.DOTALL)
    assert len(plotted) == len(FIGURES)
    assert all(ET.fromstring(svg).get("aria-label") for svg in plotted)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    if CHROMIUM is None:
        pytest.skip(REASON)
    browser = Chromium(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


MEASURE = """
[...document.querySelectorAll("figure > svg")].map(svg => {
  const box = svg.getBoundingClientRect();
  const used = [...svg.querySelectorAll("use")].every(use => svg.querySelector(use.getAttribute("xlink:href")));
  const seen = box.width > 200 && box.height > 200 && box.right <= innerWidth;
  return [seen, used, svg.querySelectorAll("path").length > 20];
})
"""


def test_chromium_shows_every_figure_and_has_nothing_to_complain_of(report, chromium):
    chromium.open(report / "report.html")
    assert chromium.evaluate(MEASURE) == [[True, True, True]] * len(FIGURES)
    assert chromium.evaluate("document.querySelector('#completions-found').textContent").startswith("304 of 304 comp")
    assert chromium.complaints == []


@pytest.mark.parametrize("dark", [False, True])
def test_a_small_screen_is_as_wide_as_the_page_in_light_and_dark(report, chromium, dark):
    chromium.open(report / "report.html", width=400, height=800, dark=dark)
    assert chromium.evaluate("document.documentElement.scrollWidth <= innerWidth")
    luminance = (
        "getComputedStyle(document.body).{}.match(/\\d+/g).slice(0, 3).reduce((sum, part) => sum + +part / 765, 0)"
    )
    paper, ink = (chromium.evaluate(luminance.format(name)) for name in ("backgroundColor", "color"))
    assert (paper < 0.2, ink > 0.8) == (dark, dark)
    assert chromium.complaints == []


def test_the_browser_would_complain(chromium, tmp_path):
    """The checks above would pass on a browser that says nothing."""
    (tmp_path / "bad.html").write_text("<!DOCTYPE html><title>x</title><script>there_is_none()</script>")
    chromium.open(tmp_path / "bad.html")
    assert len(chromium.complaints) == 1
    assert "there_is_none" in chromium.complaints[0]


def test_a_folder_is_searched_for_runs_and_runs_can_be_named(runs, tmp_path):
    root = runs[0].parents[2]
    assert main(["report", str(root), f"--output={tmp_path}", "--names", "one", "two & three"]) == 0
    assert [row["run"] for row in rows_of(tmp_path, "runs")] == ["one", "two & three"]
    assert r"two \& three" in (tmp_path / "tables" / "runs.tex").read_text()


def test_a_run_that_went_on_and_another_seed_are_one_line(runs, fit, tmp_path):
    """A run goes on for a further round in another directory, and a second seed is fitted at one go."""
    settings = {"trainer.check_val_every_n_epoch": 1, "trainer.max_epochs": 3, "model.method": "SDFT"}
    longer = fit(tmp_path / "longer", **settings, ckpt_path=runs[1] / "checkpoints" / "round1.ckpt").directory
    other = fit(tmp_path / "other", **settings, **{"data.seed": 1}).directory
    assert main(["report", *map(str, (runs[1], longer, other)), f"--output={tmp_path / 'report'}"]) == 0
    listed = rows_of(tmp_path / "report", "runs")
    assert [(row["run"], row["steps"]) for row in listed] == [("SDFT, seed 0", "12"), ("SDFT, seed 1", "12")]
    assert [row["went_on_from"] for row in listed] == [str(runs[1]), ""]
    (before, after) = rows_of(tmp_path / "report", "metrics_greedy")
    ends = [json.loads((each / "metrics.json").read_text())["final"]["greedy"] for each in (longer, other)]
    first, second = (end["brier"] for end in ends)
    assert float(after["brier"]) == pytest.approx((first + second) / 2)
    assert float(after["brier_high"]) == pytest.approx(min(1, (first + second) / 2 + 12.7062 * abs(first - second) / 2))
    (going_on, whole) = collect([runs[1], longer, other])
    for name, curve in whole.curves.items():
        assert [step for step, _ in going_on.curves[name]] == [step for step, _ in curve], name
    assert len(whole.curves["train/loss"]) == 12
    assert (before["seeds"], before["n"]) == ("2", "48")


def test_a_run_with_nothing_but_metrics_is_reported(runs, tmp_path):
    bare = tmp_path / "bare"
    bare.mkdir()
    final = {"accuracy": 0.5, "spr": None, "n": 4}
    (bare / "metrics.json").write_text(json.dumps({"initial": None, "final": {"step": 3, "greedy": final}}))
    assert main(["report", str(bare), str(runs[1]), f"--output={tmp_path / 'report'}"]) == 0
    text = (tmp_path / "report" / "report.md").read_text()
    assert "| unnamed | after | greedy | 4 | **0.500** | - | - |" in text
    assert "not all measured on the same prompts" in text
    assert "- unnamed; SDFT: the run directory holds no `predictions.greedy.jsonl` with confidences" in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["{empty}"], "there is no metrics.json in it or below"),
        (["{run}", "--names", "a", "b"], "Expected 1 different names"),
        (["{run}", "{other}", "--names", "a", "a"], "Expected 2 different names"),
        (["{broken}"], "`initial` and `final`"),
    ],
)
def test_errors_are_messages_and_nothing_is_written(runs, tmp_path, capsys, options, message):
    places = {"empty": tmp_path / "empty", "broken": tmp_path / "broken", "run": runs[0], "other": runs[1]}
    for name in ("empty", "broken"):
        places[name].mkdir()
    (places["broken"] / "metrics.json").write_text("{}")
    given = [option.format(**places) for option in options]
    assert main(["report", f"--output={tmp_path / 'report'}", *given]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "report").exists()
