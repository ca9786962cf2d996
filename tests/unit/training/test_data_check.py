"""``caopd data check`` names every row that is wrong."""

import json

import pytest

from caopd.cli import main

COLUMNS = "{question: Question, answer: Answer, category: Topic}"
ROWS = ["Question,Answer,Topic", "Capital of France?,Paris,places", "Author of Faust?,Goethe,books"]


@pytest.fixture
def check(tmp_path, capsys):
    def run(lines, *arguments):
        file = tmp_path / "rows.csv"
        file.write_text("\n".join(lines))
        status = main(["data", "check", str(file), *arguments])
        return status, capsys.readouterr()

    return run


def of_columns(*more):
    return ("--task=QuestionAnswering", "--task.verifier", "ShortAnswer", "--task.source.columns", COLUMNS, *more)


def test_good_rows_are_counted_and_the_first_is_shown(check):
    status, told = check(ROWS, *of_columns())
    assert status == 0
    assert "2 questions, and nothing wrong" in told.out
    assert "categories: places (1), books (1)" in told.out
    assert "Capital of France?\nGive your final answer between <answer> and </answer>." in told.out
    assert "target:\nParis" in told.out


def test_every_wrong_row_is_named(check):
    status, told = check([*ROWS, "Who?,,books", ",4,books", "When?,1808,books"], *of_columns())
    assert status == 2
    assert "2 cannot" in told.err
    for line, column in ((4, "answer"), (5, "question")):
        assert f"rows.csv, line {line}: " in told.err
        assert f"column {column!r}" in told.err
    assert "line 6" not in told.err


def test_many_wrong_rows_are_counted(check):
    status, told = check([*ROWS, *["Who?,,books"] * 30], *of_columns())
    assert status == 2
    assert "30 cannot" in told.err
    assert "and 20 more" in told.err


def test_a_task_that_needs_no_settings(tmp_path, capsys):
    file = tmp_path / "rows.jsonl"
    rows = [{"prompt": "Which?\nA: iron\nB: neon", "answer": answer} for answer in ("B", "neon", "B", "7")]
    file.write_text("\n".join(map(json.dumps, rows)))
    assert main(["data", "check", str(file), "--task", "ScienceQA"]) == 2
    message = capsys.readouterr().err
    assert "line 2" in message
    assert "line 4" in message


def test_settings_that_are_wrong(check):
    assert "Did you mean 'ScienceQA'?" in check(ROWS, "--task=SienceQA")[1].err
    assert "Did you mean 'verifier'?" in check(ROWS, *of_columns("--task.verifer=Numeric"))[1].err
    status, told = check(ROWS, "--task=QuestionAnswering")
    assert status == 2
    assert "verifier" in told.err


def test_a_file_that_is_not_there(capsys):
    assert main(["data", "check", "nowhere.csv", "--task=ScienceQA"]) == 2
    assert "Expected a data file at nowhere.csv" in capsys.readouterr().err
