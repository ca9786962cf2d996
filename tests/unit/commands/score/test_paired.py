"""``caopd score A B --paired`` as a user runs it, and its differences against resamples made by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import brier_score_loss

from caopd.cli import main
from caopd.commands.score.paired import compare, matched
from caopd.commands.score.predictions import read_predictions
from caopd.metrics.catalogue import CATALOGUE
from caopd.metrics.functional.paired import Completions, calibration_difference


def rows(seed=0, number=120, gap=0.0, per_prompt=1):
    """Predictions of prompts that are as difficult whatever the seed, stated too high by a gap."""
    rng, difficulty = np.random.default_rng(seed), np.random.default_rng(99).integers(1, 8, number) / 10
    return [
        {
            "prompt_id": f"p{k}",
            "confidence": round(difficulty[k] + gap, 1),
            "correct": int(rng.random() < difficulty[k]),
        }
        for k in range(number)
        for _ in range(per_prompt)
    ]


@pytest.fixture
def files(tmp_path):
    def write(*contents):
        paths = [tmp_path / f"{'ab'[number]}.jsonl" for number in range(len(contents))]
        for path, content in zip(paths, contents, strict=True):
            path.write_text("".join(json.dumps(row) + "\n" for row in content))
        return paths

    return write


def compared(paths, **settings):
    first, second, _ = matched([read_predictions(path) for path in paths], paths)
    return compare(first, second, **settings)


def test_a_worse_file_is_called_so_in_every_place(files, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    first, second = files(rows(), rows(seed=1, gap=0.3)[::-1])
    output = tmp_path / "paired.json"
    assert main(["score", str(first), str(second), "--paired", f"--output={output}", "--resamples=200"]) == 0
    found = json.loads(output.read_text())
    assert (found["first"], found["second"], found["n_prompts"]) == (str(first), str(second), 120)
    differences = found["differences"]
    assert set(differences) == set(CATALOGUE)
    for name in ("ece", "debiased_ece", "ocg", "brier"):
        assert differences[name]["verdict"] == "worse", name
        assert 0 < differences[name]["low"] < differences[name]["high"], name
    assert differences["mean_confidence"]["verdict"] == "higher"
    assert differences["accuracy"]["verdict"] == "no difference shown"
    assert differences["unique_value_ece"]["verdict"] == "not judged"
    assert differences["answer_parse_rate"]["verdict"] == ""
    printed = capsys.readouterr().out
    (line,) = [line for line in printed.splitlines() if line.strip("│ ").startswith("ece ")]
    ece = differences["ece"]
    assert f"{ece['difference']:+.3f} [{ece['low']:+.3f}, {ece['high']:+.3f}]" in line
    assert "worse" in line
    assert any(f"first: {first}" in line for line in printed.splitlines())


def test_swapped_files_swap_the_verdicts(files):
    there = compared(files(rows(), rows(seed=1, gap=0.3)), resamples=100)
    back = compared(files(rows(seed=1, gap=0.3), rows()), resamples=100)
    opposite = {"better": "worse", "worse": "better", "higher": "lower", "lower": "higher"}
    for name, each in there.items():
        assert back[name].verdict == opposite.get(each.verdict, each.verdict), name


def test_no_measure_of_a_file_differs_from_itself(files):
    for name, each in compared(files(rows(), rows()), resamples=50).items():
        assert each.verdict in ("no difference shown", "not judged", ""), name
        assert each.difference in (0.0, None), name


@pytest.mark.parametrize("per_prompt", [1, 3])
def test_intervals_are_those_of_prompts_resampled_for_both(files, per_prompt):
    """From lists of repeated completions, with the lines of the second file in another order."""
    a, b = rows(per_prompt=per_prompt), rows(seed=1, gap=0.1, per_prompt=per_prompt)
    found = compared(files(a, b[::-1]), resamples=300, seed=4)["brier"]
    rng, drawn = np.random.default_rng(4), []
    for _ in range(300):
        prompts = rng.integers(120, size=120, dtype=np.uint32)
        index = (prompts[:, None].astype(int) * per_prompt + np.arange(per_prompt)).ravel()
        values = [
            brier_score_loss([side[k]["correct"] for k in index], [side[k]["confidence"] for k in index])
            for side in (a, b)
        ]
        drawn.append(values[1] - values[0])
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=1e-12)


def test_calibration_is_compared_with_the_paired_interval_of_errors(files):
    a, b = rows(), rows(seed=1, gap=0.1)
    found = compared(files(a, b), resamples=5, seed=2)
    sets = [
        Completions(
            torch.tensor([row["confidence"] for row in side], dtype=torch.float64),
            torch.tensor([row["correct"] for row in side]),
            torch.arange(120),
        )
        for side in (a, b)
    ]
    for name, n_bins in (("ece", 10), ("ocg", 1)):
        expected = calibration_difference(*sets, n_bins=n_bins, seed=2)
        assert found[name].difference == pytest.approx(expected.value, abs=1e-12), name
        assert (found[name].low, found[name].high) == (expected.low, expected.high), name


def test_prompts_without_a_verdict_are_left_out_of_both_and_counted(files, tmp_path, capsys):
    a, b = rows(), rows(seed=1)
    a[3]["correct"] = b[7]["correct"] = None
    output = tmp_path / "paired.json"
    arguments = [*map(str, files(a, b)), "--paired", f"--output={output}", "--resamples=5"]
    assert main(["score", *arguments]) == 0
    found = json.loads(output.read_text())
    assert (found["n_prompts"], found["n_prompts_left_out"]) == (118, 2)
    kept = [row["correct"] for k, row in enumerate(a) if k not in (3, 7)]
    assert found["differences"]["accuracy"]["first"] == pytest.approx(np.mean(kept))
    assert "left out of both: 2" in capsys.readouterr().out


def without_id(row):
    return {key: value for key, value in row.items() if key != "prompt_id"}


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (rows(), rows()[:-2], "to hold the same prompts, but 2 of .*a.jsonl are not in .*b.jsonl: 'p118', 'p119'"),
        (rows()[1:], rows(), "but 1 of .*b.jsonl are not in .*a.jsonl: 'p0'"),
        (
            [{**row, "event": "greedy"} for row in rows()],
            [{**row, "event": "sampled"} for row in rows()],
            "of one event, but the first says greedy and the second sampled",
        ),
        (rows(), [*rows(), rows()[5]], "as many lines of each prompt, but 1 prompts differ: 'p5'"),
        (rows(), [without_id(row) for row in rows()], "a `prompt_id`, which pairs the two files, but 120 have none"),
        ([{**rows()[0], "correct": None}, rows()[1]], [rows()[0], {**rows()[1], "correct": None}], "there is none"),
    ],
)
def test_files_that_do_not_match_are_refused(files, first, second, message, capsys):
    from re import search

    assert main(["score", *map(str, files(first, second)), "--paired"]) == 2
    assert search(message, " ".join(capsys.readouterr().err.split()))


@pytest.mark.parametrize(
    ("number", "options", "message"),
    [
        (1, ["--paired"], "Expected two files with `--paired`, but got 1"),
        (2, [], "Expected one file, or two with `--paired`, which compares them, but got 2 without it"),
        (2, ["--paired", "--resamples=0"], "Expected `resamples` to be at least 1 with `--paired`"),
    ],
)
def test_numbers_of_files_and_resamples_are_checked(files, number, options, message, capsys):
    paths: list[Path] = files(*[rows(number=4)] * number)
    assert main(["score", *map(str, paths), *options]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
