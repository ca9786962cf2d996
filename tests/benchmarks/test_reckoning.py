"""The benchmark of generated sums: its runs, what is measured of their predictions, page and figure."""

import json
import random
import re
from statistics import fmean

import pytest
import yaml

from caopd.cli import main as caopd
from reckoning.figure import kinds_figure
from reckoning.kept import keep, kept, settings_of, unpack
from reckoning.page import page
from reckoning.results import TRAINED, largest_gap, results, tasks_of
from reckoning.settings import BASELINE, START, Setting, export_run, method_run, predict_run, sft_run, slug

KINDS = {"1+1": 0.9, "2-1": 0.5, "2*1": 0.1}
"""Success rate by kind."""
EVENTS = ("greedy", "sampled")
MADE = {
    "cpu_seconds": {"sft": 90.0, "fit": 60.0, "predicting": 30.0},
    "environment": {"timestamp": "2026-01-02T03:04", "cpus": 2, "processes": 1, "versions": {"torch": "2"}},
}


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
        "asked": {"options": [], "sft_options": [], "fit_options": ["trainer.max_epochs=3"]},
        "runs": [{"method": BASELINE, "seed": 11, **MADE}],
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
    assert names == {"1+1", "2\N{MINUS SIGN}1", "2\N{MULTIPLICATION SIGN}1"}


def test_a_name_that_would_be_written_over_another_is_left_out():
    places = {"1+1": (0.9, 0.9), "2+1": (0.85, 0.88), "2+2": (0.85, 0.7), "3-3": (0.0, 0.1)}
    found = {kind: {"accuracy": {"value": x}, "mean_confidence": {"value": y}} for kind, (x, y) in places.items()}
    figure = kinds_figure({"tasks": {TRAINED: {"sampled": {BASELINE: {"all": {"categories": found}}}}}})
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.texts] == ["1+1", "2+2", "3\N{MINUS SIGN}3"]
    marks = [mark for mark in axes.collections if mark.get_offsets().shape == (1, 2)]
    assert len(marks) == len(places)  # every kind has its mark


def test_predictions_are_the_same_after_they_were_kept_as_a_table(predicted, tmp_path):
    runs, _ = predicted
    for method, seeds in runs.items():
        for seed, folder in seeds.items():
            record = {"method": method, "seed": seed, "settings": "a", **MADE}
            keep(f"{slug(method)}-{seed}", folder, record, tmp_path / "tables")
    keys = [(method, seed) for method, seeds in runs.items() for seed in seeds]
    found = kept(dict.fromkeys(keys, "a"), tmp_path / "tables")
    assert [each.key for each in found] == keys
    assert [each.key for each in kept({keys[0]: "a", keys[1]: "others"}, tmp_path / "tables")] == [keys[0]]
    unpacked = {method: {} for method in runs}
    for each in found:
        unpacked[each.key[0]][each.key[1]] = unpack(each, tmp_path / "unpacked")
    (tmp_path / "first").mkdir()
    wanted = results(runs, BASELINE, tmp_path / "first", resamples=20)
    assert results(unpacked, BASELINE, tmp_path, resamples=20) == wanted


def test_a_table_keeps_what_a_completion_lacks(tmp_path):
    row = {"prompt_id": "1 + 2", "category": "1+1", "correct": False, "confidence": None, "event": "greedy"}
    outcomes = {"answer_outcome": "parsed", "confidence_outcome": "missing"}
    for event in EVENTS:
        (tmp_path / f"predictions.{event}.jsonl").write_text(json.dumps({**row, **outcomes, "event": event}) + "\n")
    folder = unpack(keep("run", tmp_path, {"settings": "a"}, tmp_path / "tables"), tmp_path / "unpacked")
    assert json.loads((folder / "predictions.greedy.jsonl").read_text()) == {**row, **outcomes}


def test_settings_are_what_is_asked_for_whatever_the_code(monkeypatch):
    def settings(**changed):
        setting = Setting(**changed)
        return settings_of([sft_run(setting), method_run("SDFT", 11, setting, sft_run(setting))])

    asked = settings()
    assert settings(fit_options=("--trainer.max_epochs=7",)) != asked
    assert settings(processes=1) == asked
    monkeypatch.setattr("fits.package_hash", lambda: "another")
    assert settings() == asked


@pytest.mark.filterwarnings("ignore:LightningCLI's args parameter")
@pytest.mark.parametrize("method", [START, "CaOPD on SDPO", "RLCR", "CaOPD on SDFT, self-consistency"])
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
            chosen = config["model"]["method"]
            assert chosen["class_path"].split(".")[-1] == method.split()[0]
            if method == "CaOPD on SDPO":  # all else as on SDFT
                assert chosen["init_args"]["backbone"]["class_path"].endswith(".SDPO")
                assert (chosen["init_args"]["num_levels"], chosen["init_args"]["gain"]) == (21, 0.5)
            assert config["trainer"]["max_epochs"] == 7
    tasks = config["data"]["evaluation"]["tasks"].values()
    assert [(task["init_args"]["num_test"], task["init_args"]["seed"]) for task in tasks] == [(200, 11), (200, 11)]
