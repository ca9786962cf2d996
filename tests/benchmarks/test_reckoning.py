"""The benchmark of generated sums: its runs, what is measured of their predictions, page and figure."""

import json
import random
import re
from statistics import fmean

import pytest
import yaml

from caopd.cli import main as caopd
from reckoning.figure import kinds_figure
from reckoning.page import page
from reckoning.results import TRAINED, largest_gap, results, tasks_of
from reckoning.settings import BASELINE, START, Setting, export_run, method_run, predict_run, sft_run

KINDS = {"1+1": 0.9, "2-1": 0.5, "2*1": 0.1}
"""Success rate by kind."""
EVENTS = ("greedy", "sampled")


def write_predictions(folder, task, event, seed, stated, rate=lambda kind: KINDS[kind]):
    rng = random.Random(f"{seed}{task}{event}")
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {
            "event": event,
            "prompt_id": f"{kind} {number}",
            "category": kind,
            "confidence": stated(kind),
            "correct": int(rng.random() < rate(kind)),
        }
        for kind in KINDS
        for number in range(100)
    ]
    name = f"predictions.{event}.jsonl" if task == TRAINED else f"predictions.{task}.{event}.jsonl"
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return rows


@pytest.fixture
def predicted(tmp_path):
    """Two methods, two seeds, two tasks: one is always sure, the other states the success rate of the kind."""
    runs, rows = {}, {}
    for method, stated in ((BASELINE, lambda kind: 1.0), ("CaOPD on SDFT", lambda kind: KINDS[kind])):
        for seed in (11, 12):
            folder = tmp_path / f"{method}-{seed}" / "version"
            for task in (TRAINED, "more_digits"):
                for event in EVENTS:
                    rows[method, seed, task, event] = write_predictions(folder, task, event, seed, stated)
            runs.setdefault(method, {})[seed] = tmp_path / f"{method}-{seed}"
    return runs, rows


def test_measures_are_those_of_the_predictions(predicted, tmp_path):
    runs, rows = predicted
    found = results(runs, BASELINE, tmp_path, resamples=40)
    assert list(found) == tasks_of(runs[BASELINE][11]) == [TRAINED, "more_digits"]
    for task, events in found.items():
        for event, methods in events.items():
            for method, measures in methods.items():
                every = [row for seed in (11, 12) for row in rows[method, seed, task, event]]
                assert measures["all"]["n"] == len(every) == 600
                assert measures["all"]["accuracy"]["value"] == pytest.approx(fmean(row["correct"] for row in every))
                assert measures["seeds"]["12"]["n"] == 300
                for kind, each in measures["all"]["categories"].items():
                    mine = [row for row in every if row["category"] == kind]
                    gap = fmean(row["confidence"] - row["correct"] for row in mine)
                    assert each["ocg"]["value"] == pytest.approx(gap)
    sampled = found[TRAINED]["sampled"]
    against = sampled["CaOPD on SDFT"]["against"]
    assert "against" not in sampled[BASELINE]
    assert against["accuracy"]["difference"] == 0  # the same verdicts, question by question
    assert against["ece"]["high"] < -0.2  # 1 against the success rate
    kind, gap = largest_gap(sampled[BASELINE]["all"]["categories"])
    assert (kind, gap) == ("2*1", pytest.approx(0.9, abs=0.06))


def test_page_and_figure_show_every_method_kind_and_target(predicted, tmp_path):
    runs, _ = predicted
    record = {
        "environment": {"timestamp": "2026-01-02T03:04", "cpus": 2, "processes": 1, "versions": {"torch": "2"}},
        "asked": {"seeds": [11, 12], "options": [], "sft_options": [], "fit_options": ["trainer.max_epochs=3"]},
        "sft": {"cpu_seconds": 90.0},
        "runs": [{"method": BASELINE, "seed": 11, "cpu_seconds": 60.0, "predicting": 30.0}],
        "tasks": results(runs, BASELINE, tmp_path, resamples=40),
    }
    text = page(record)
    for expected in (
        "at most .06",
        "`2*1`",
        "CaOPD on SDFT",
        "more_digits, sampled",
        "fit_options: trainer.max_epochs=3",
    ):
        assert expected in text
    for lines in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({line.count("|") for line in lines.splitlines()}) == 1, lines
    figure = kinds_figure(record)
    assert [axes.get_title() for axes in figure.axes] == list(runs)
    names = {text.get_text() for axes in figure.axes for text in axes.texts}
    assert names == {"1·1", "2·1"}


@pytest.mark.filterwarnings("ignore:LightningCLI's args parameter")
@pytest.mark.parametrize("method", [START, "CaOPD on SDPO", "RLCR"])
def test_runs_are_valid_commands_of_equal_budgets_from_the_same_model(method, tmp_path, capsys):
    setting = Setting(options=("--trainer.precision=bf16-mixed",), fit_options=("--trainer.max_epochs=7",))
    export = export_run(sft_run(setting), tmp_path / "a.ckpt")
    predicting = predict_run(method, 11, setting, export, None if method == START else tmp_path / "b.ckpt")
    runs = [predicting] if method == START else [method_run(method, 11, setting, export), predicting]
    for run in runs:
        with pytest.raises(SystemExit) as ended:
            caopd([*run.arguments[2:], "--print_config"])
        output = capsys.readouterr()
        assert not ended.value.code, output.err
        config = yaml.safe_load(output.out)
        assert config["model"]["source"]["name_or_path"] == "{directory}/export"
        assert config["data"]["task"]["init_args"]["seed"] == config["data"]["seed"] == 11
        assert config["trainer"]["precision"] == "bf16-mixed"
        assert config["data"]["round"]["num_rollouts"] == 8
        if run is not predicting:
            assert config["model"]["method"]["class_path"].split(".")[-1] == method.split()[0]
            assert config["trainer"]["max_epochs"] == 7
    tasks = config["data"]["evaluation"]["tasks"].values()
    assert [(task["init_args"]["num_test"], task["init_args"]["seed"]) for task in tasks] == [(400, 11), (400, 11)]
