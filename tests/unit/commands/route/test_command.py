"""``caopd route`` as a user runs it: two files in, table, JSON and figures out, errors as messages."""

import json
import os
import random

import pytest

from caopd.cli import main

NAMES = [f"q{k}" for k in range(40)]


def rows_of(seed, correct_share, names=NAMES):
    rng = random.Random(seed)
    return [
        {
            "prompt_id": name,
            "confidence": None if rng.random() < 0.1 else rng.randrange(11) / 10,
            "correct": int(rng.random() < correct_share),
        }
        for name in names
    ]


SMALL, LARGE = rows_of(1, 0.4), rows_of(2, 0.8)


@pytest.fixture
def write(tmp_path):
    def written(name, rows):
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

    return written


@pytest.fixture
def files(write):
    """The large model's lines in another order: prompts are joined by their names."""
    return write("small.jsonl", SMALL), write("large.jsonl", random.Random(3).sample(LARGE, len(LARGE)))


def test_json_holds_the_curve_of_the_joined_prompts(files, tmp_path):
    output = tmp_path / "deep" / "route"
    options = ["--small_cost=2", "--large_cost=5", "--target_accuracy=0.7", "--budget=5", f"--output={output}"]
    assert main(["route", *files, *options]) == 0
    found = json.loads((output / "route.json").read_text())
    assert found["points"][0]["cost"] == 2
    for point in found["points"]:
        threshold = point["threshold"]
        if threshold is None:
            kept = SMALL if point["deferred"] == 0 else []
        else:
            kept = [row for row in SMALL if row["confidence"] is not None and row["confidence"] >= threshold]
        names = {row["prompt_id"] for row in kept}
        right = sum(row["correct"] for row in kept)
        right += sum(row["correct"] for row in LARGE if row["prompt_id"] not in names)
        assert point["deferred"] == pytest.approx(1 - len(kept) / 40)
        assert point["cost"] == pytest.approx(2 + 5 * point["deferred"])
        assert point["accuracy"] == pytest.approx(right / 40)
    assert found["for_target"] in found["points"]
    assert found["for_target"]["accuracy"] >= 0.7
    assert found["for_budget"]["cost"] <= 5
    assert found["relative_area"] == pytest.approx(found["area_above_random"] / found["oracle_area_above_random"])
    assert (found["small_accuracy"], found["large_accuracy"]) == (
        sum(row["correct"] for row in SMALL) / 40,
        sum(row["correct"] for row in LARGE) / 40,
    )


def test_prompts_without_a_verdict_in_either_file_are_left_out_with_a_warning(write, tmp_path):
    small = [{**row, "correct": None} if row["prompt_id"] == "q3" else row for row in SMALL]
    large = [{**row, "correct": None} if row["prompt_id"] == "q7" else row for row in LARGE]
    left = [[row for row in rows if row["prompt_id"] not in ("q3", "q7")] for rows in (SMALL, LARGE)]
    with pytest.warns(UserWarning, match="2 prompts without a verdict"):
        assert main(["route", write("a", small), write("b", large), f"--output={tmp_path / 'found'}"]) == 0
    assert main(["route", write("c", left[0]), write("d", left[1]), f"--output={tmp_path / 'expected'}"]) == 0
    found, expected = (json.loads((tmp_path / name / "route.json").read_text()) for name in ("found", "expected"))
    assert {**found, "small": "", "large": ""} == {**expected, "small": "", "large": ""}


def test_figures_are_written_as_vectors_and_pixels_and_are_the_same_every_time(files, tmp_path):
    contents = []
    for name in ("first", "second"):
        assert main(["route", *files, f"--output={tmp_path / name}"]) == 0
        contents.append({path.name: path.read_bytes() for path in sorted((tmp_path / name).iterdir())})
    assert contents[0] == contents[1]
    assert list(contents[0]) == ["route.json", "route.pdf", "route.png", "route.svg"]
    assert contents[0]["route.pdf"].startswith(b"%PDF")
    assert contents[0]["route.png"].startswith(b"\x89PNG")
    assert b"<svg" in contents[0]["route.svg"]


def test_nothing_is_left_of_files_that_cannot_all_be_written(files, tmp_path, capsys, largest_file):
    largest_file(20_000)  # route.json fits, a figure does not
    assert main(["route", *files, f"--output={tmp_path / 'route'}"]) == 1
    assert "Expected room for" in capsys.readouterr().err
    assert sorted(os.listdir(tmp_path)) == ["large.jsonl", "small.jsonl"]


def test_the_table_shows_both_ends_and_what_was_chosen(files, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    assert main(["route", *files, "--budget=6.0"]) == 0
    printed = capsys.readouterr().out
    assert "keep all" in printed
    assert "defer all" in printed
    assert sum(line.rstrip("│ ").endswith("budget") for line in printed.splitlines()) == 1
    assert "area above random deferral" in printed


def test_what_cannot_be_reached_is_said_and_null(files, tmp_path, capsys):
    options = ["--target_accuracy=1", "--budget=0.5", f"--output={tmp_path}"]
    assert main(["route", *files, *options]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "no threshold reaches an accuracy of 1" in printed
    assert "the small model alone costs 1" in printed
    found = json.loads((tmp_path / "route.json").read_text())
    assert (found["for_target"], found["for_budget"]) == (None, None)


@pytest.mark.parametrize(
    ("small", "large", "options", "message"),
    [
        (SMALL[:-3], LARGE, [], "3 of {large} are not in {small}: 'q37', 'q38', 'q39'"),
        (SMALL, LARGE[1:], [], "1 of {small} are not in {large}: 'q0'"),
        ([*SMALL, SMALL[4]], LARGE, [], "1 prompts have several: 'q4'"),
        ([*SMALL, {"confidence": 1, "correct": 1}], LARGE, [], "1 have none"),
        (SMALL, [{"prompt_id": "q0", "confidence": 3, "correct": 1}], [], "line 1: expected `confidence`"),
        (SMALL, LARGE, ["--large_cost=-1"], "`large_cost`"),
        (SMALL, LARGE, ["--target_accuracy=80"], "`--target_accuracy` to be from 0 to 1, but got 80"),
        (SMALL, LARGE, ["--budget=nan"], "`--budget` to be at least 0, but got nan"),
    ],
)
def test_errors_are_messages_and_nothing_is_written(write, tmp_path, capsys, small, large, options, message):
    paths = {"small": write("small.jsonl", small), "large": write("large.jsonl", large)}
    assert main(["route", *paths.values(), f"--output={tmp_path / 'out'}", *options]) == 2
    captured = capsys.readouterr()
    assert message.format(**paths) in captured.err
    assert captured.out == ""
    assert not (tmp_path / "out").exists()


def of(event, rows):
    return [{**row, "event": event} for row in rows]


def test_the_event_of_the_files_is_shown_and_two_events_are_no_cascade(write, tmp_path, capsys):
    small, large = write("s.jsonl", of("sampled", SMALL)), write("l.jsonl", of("sampled", LARGE))
    assert main(["route", small, large, f"--output={tmp_path / 'route'}"]) == 0
    assert "sampled answers below the threshold" in capsys.readouterr().out
    assert json.loads((tmp_path / "route" / "route.json").read_text())["event"] == "sampled"
    assert main(["route", small, write("g.jsonl", of("greedy", LARGE))]) == 2
    assert "of one event, but their lines are sampled and greedy" in " ".join(capsys.readouterr().err.split())
