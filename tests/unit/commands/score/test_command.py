"""``caopd score`` as a user runs it: files in, table and JSON out, errors as messages."""

import json
import math

import pytest
from sklearn.metrics import roc_auc_score

from caopd.cli import main
from caopd.metrics import CalibrationMetrics

MEASURES = {"value", "low", "high", "n"}
REQUIRED = {"accuracy", "ece", "brier", "ocg", "spr", "auroc", "mean_confidence", "format_adherence"}
ROWS = [
    {"prompt_id": f"p{k // 2}", "category": "ab"[k // 20], "confidence": (k * 7 % 11) / 10, "correct": int(k % 3 == 0)}
    for k in range(40)
]
for row in ROWS:
    row["confidence"] = None if row["confidence"] == 1.0 else row["confidence"]


@pytest.fixture
def file(tmp_path):
    def write(rows):
        path = tmp_path / "predictions.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

    return write


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric:UserWarning")
def test_json_holds_every_measure_overall_and_by_group(file, tmp_path, capsys):
    output = tmp_path / "deep" / "metrics.json"
    assert main(["score", file(ROWS), f"--output={output}", "--resamples=200", "--seed=3"]) == 0
    found = json.loads(output.read_text())
    stated = [row for row in ROWS if row["confidence"] is not None]
    assert (found["n"], found["n_parsed"], found["n_prompts"]) == (40, len(stated), 20)
    assert (found["level"], found["resamples"], found["seed"], found["task"]) == (0.95, 200, 3, None)
    assert found["accuracy"]["value"] == pytest.approx(14 / 40)
    auroc = roc_auc_score([row["correct"] for row in stated], [row["confidence"] for row in stated])
    assert found["auroc"]["value"] == pytest.approx(auroc, abs=1e-12)
    assert found["auroc"]["n"] == len(stated)
    for scores in (found, *found["categories"].values()):
        assert set(CalibrationMetrics().compute()) | REQUIRED <= set(scores)
        for name, measure in scores.items():
            if isinstance(measure, dict) and name not in ("categories", "calibrated"):
                assert set(measure) == MEASURES, name
                if measure["value"] is not None:
                    assert measure["low"] <= measure["high"], name
    assert list(found["categories"]) == ["a", "b"]
    assert found["categories"]["a"]["n"] == 20
    assert found["answer_parse_rate"] == {"value": None, "low": None, "high": None, "n": 0}


def test_the_table_shows_values_with_intervals_for_every_group(file, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    output = tmp_path / "metrics.json"
    named = [{**row, "category": {"a": "[bold]", "b": "plain"}[row["category"]]} for row in ROWS]
    assert main(["score", file(named), f"--output={output}", "--resamples=100"]) == 0
    printed, found = capsys.readouterr().out, json.loads(output.read_text())
    (header,) = [line for line in printed.splitlines() if "overall" in line]
    assert header.index("overall") < header.index("[bold]") < header.index("plain")
    (line,) = [line for line in printed.splitlines() if line.strip("│ ").startswith("accuracy ")]
    for scores in (found, *found["categories"].values()):
        value, low, high = (scores["accuracy"][key] for key in ("value", "low", "high"))
        assert f"{value:.3f} [{low:.3f}, {high:.3f}]" in line
    (line,) = [line for line in printed.splitlines() if "answer_parse_rate" in line]
    assert line.count(" - ") == 3


def test_groups_are_shown_as_they_are_named_and_escaped_where_that_cannot_be(file, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    names = {
        "[red]:fire:": "[red]:fire:",
        "东京": "东京",
        "a\udfff": r"a\udfff",
        "\x1b[2J": r"\x1b[2J",
        "two\nlines": r"two\nlines",
    }
    rows = [{"confidence": 0.5, "correct": 1, "category": name} for name in names]
    output = tmp_path / "metrics.json"
    assert main(["score", file(rows), f"--output={output}", "--resamples=0"]) == 0
    printed = capsys.readouterr().out
    assert all(shown in printed for shown in names.values())
    assert "\x1b" not in printed
    assert list(json.loads(output.read_text(encoding="utf-8"))["categories"]) == list(names)


def test_a_file_whose_name_is_not_utf8_is_scored(tmp_path, capsys):
    path = tmp_path / "caf\udce9.jsonl"
    path.write_text('{"confidence": 0.5, "correct": 1}\n')
    output = tmp_path / "[b]\udce9.json"
    assert main(["score", str(path), f"--output={output}"]) == 0
    assert json.loads(output.read_text())["file"] == str(path)
    assert capsys.readouterr().out.splitlines()[-1] == f"metrics: {tmp_path}/[b]\\udce9.json"


def test_narrow_terminals_get_several_tables(file, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    assert main(["score", file(ROWS), "--resamples=20"]) == 0
    assert capsys.readouterr().out.count("smooth_ece") == 3


def test_responses_are_read_and_verified_by_the_task(file, tmp_path):
    rows = [
        {"response": f"<answer>{answer}</answer>{confidence}", "target": "B"}
        for answer, confidence in [
            ("B", "\n<confidence>0.9</confidence>"),
            ("C", "\n<confidence>20%</confidence>"),
            ("B", ""),
        ]
    ]
    output = tmp_path / "metrics.json"
    arguments = [f"--output={output}", "--task=caopd.tasks.ScienceQA", "--confidence_format=tag", "--resamples=0"]
    assert main(["score", file(rows), *arguments]) == 0
    found = json.loads(output.read_text())
    assert found["accuracy"]["value"] == pytest.approx(2 / 3)
    assert found["brier"]["value"] == pytest.approx((0.1**2 + 0.2**2) / 2)
    assert found["format_adherence"]["value"] == pytest.approx(2 / 3)
    assert found["answer_parse_rate"]["value"] == 1.0
    assert found["spr"] == {"value": 1.0, "low": None, "high": None, "n": 2}


def test_a_file_without_any_confidence_gives_nulls_and_no_zeros(file, tmp_path, capsys):
    output = tmp_path / "metrics.json"
    rows = [{"confidence": None, "correct": k % 2} for k in range(10)]
    assert main(["score", file(rows), f"--output={output}", "--resamples=50"]) == 0
    found = json.loads(output.read_text())
    assert [found[name]["value"] for name in ("ece", "brier", "ocg", "spr", "auroc", "mean_confidence")] == [None] * 6
    assert found["accuracy"]["value"] == 0.5
    assert found["format_adherence"] == {"value": 0.0, "low": 0.0, "high": 0.0, "n": 10}
    assert "NaN" not in output.read_text()


@pytest.mark.parametrize(
    ("rows", "arguments", "message"),
    [
        ([], [], "at least one prediction"),
        ([*ROWS, {"confidence": 2, "correct": 1}], [], "line 41: expected `confidence` to be a number from 0 to 1"),
        (ROWS, ["--resamples=-1"], "`resamples` and `seed` to be at least 0, but got -1 and 0"),
        (ROWS, ["--task=chess"], "one of science_qa, tool_use, draw"),
        (ROWS, ["--confidence_format=tag"], "`--confidence_format` beside `--task`"),
        (ROWS, ["--resamples=many"], "invalid int value: 'many'"),
        (ROWS, ["--sed=1"], "unrecognized arguments: --sed=1"),
    ],
)
def test_errors_are_messages_and_nothing_is_written(file, tmp_path, capsys, rows, arguments, message):
    output = tmp_path / "metrics.json"
    assert main(["score", file(rows), f"--output={output}", *arguments]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""
    assert not output.exists()


OWN = """
from caopd.types import AnswerOutcome, Verdict


class Looks:
    def verify(self, text, target):
        with open("no_such_table.csv") as table:
            return table.read()


class Grades:
    def verify(self, text, target):
        return Verdict(0.25, text, AnswerOutcome.PARSED)
"""


@pytest.fixture
def own_verifiers(tmp_path, monkeypatch):
    (tmp_path / "own_verifiers.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("own_verifiers")
def test_an_error_of_the_users_verifier_keeps_its_traceback_and_names_the_response(file, capsys):
    rows = [{"response": "the answer is 6", "target": "6"}]
    assert main(["score", file(rows), "--task=own_verifiers.Looks"]) == 1
    shown, message = capsys.readouterr().err.split("\nerror: ")
    assert shown.startswith("Traceback (most recent call last):")
    assert 'with open("no_such_table.csv") as table:' in shown
    assert "FileNotFoundError" in shown.splitlines()[-1]
    for word in ("own_verifiers.Looks", "'the answer is 6'", "FileNotFoundError", "no_such_table.csv"):
        assert word in message
    assert "file cannot be read or written" not in message


@pytest.mark.usefixtures("own_verifiers")
def test_half_a_point_is_refused_with_its_line(file, capsys):
    rows = [{"response": "the answer is 6", "target": "6"}]
    assert main(["score", file(rows), "--task=own_verifiers.Grades"]) == 2
    message = capsys.readouterr().err
    for word in ("line 1", "own_verifiers.Grades", "correct=0.25", "'the answer is 6'"):
        assert word in message


def test_a_file_that_is_not_there_is_a_message(tmp_path, capsys):
    assert main(["score", str(tmp_path / "none.jsonl")]) == 2
    assert "none.jsonl" in capsys.readouterr().err


def test_help_names_every_option(capsys):
    assert main(["score", "--help"]) == 0
    printed = capsys.readouterr().out
    for option in ("FILE", "--output", "--task", "--confidence_format", "--resamples", "--seed"):
        assert option in printed


def test_values_without_intervals_are_those_with_them(file, tmp_path):
    found = []
    for resamples in (0, 30):
        output = tmp_path / f"{resamples}.json"
        assert main(["score", file(ROWS), f"--output={output}", f"--resamples={resamples}"]) == 0
        found.append(json.loads(output.read_text()))
    for name in REQUIRED:
        assert found[0][name]["value"] == found[1][name]["value"]
        assert found[0][name]["low"] is None
        assert not math.isnan(found[1][name]["low"])


def test_the_event_of_a_file_stands_beside_every_number(file, tmp_path, capsys):
    output = tmp_path / "metrics.json"
    for event in ("greedy", "sampled", None, "login"):
        rows = [row if event is None else {**row, "event": event} for row in ROWS]
        assert main(["score", file(rows), f"--output={output}", "--resamples=0"]) == 0
        known = event if event in ("greedy", "sampled") else None  # logs of others may mean something else by it
        assert json.loads(output.read_text())["event"] == known
        shown = capsys.readouterr().out
        assert all((f"{each}/ece" in shown) == (each == known) for each in ("greedy", "sampled"))


def test_lines_of_both_events_are_not_scored_together(file, capsys):
    assert main(["score", file([{**row, "event": "sampled" if k else "greedy"} for k, row in enumerate(ROWS)])]) == 2
    assert "of one `event`, but some are of 'greedy' and others of 'sampled'" in " ".join(
        capsys.readouterr().err.split()
    )
