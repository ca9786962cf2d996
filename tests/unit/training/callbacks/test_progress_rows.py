"""Rows of progress: counts, rates and times, drawn in a terminal and said elsewhere."""

import io

import pytest
from rich.console import Console

from caopd.training.callbacks import progress_rows
from caopd.training.callbacks.progress_rows import ProgressRows, Row


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets."""
    now = [1000.0]
    monkeypatch.setattr(progress_rows.time, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize(
    ("done", "seconds", "words"),
    [
        (0, 5, "rollout 0/2000 completions"),
        (500, 5, "rollout 500/2000 completions, 100/s, 0:00:15 left"),
        (500.7, 5, "rollout 500/2000 completions, 100/s, 0:00:14 left"),
        (10, 20, "rollout 10/2000 completions, 0.50/s, 1:06:20 left"),
        (2000, 20, "rollout 2000/2000 completions, 100/s, 0:00:00 left"),
    ],
)
def test_the_time_left_follows_from_the_rate(clock, done, seconds, words):
    row = Row("rollout", "completions", 2000)
    clock[0] += seconds
    row.done = done
    assert row.words() == words


def test_a_row_that_knows_its_time_left_says_that(clock):
    row = Row("run", "rounds", 10, 3, lambda: 42.0)
    clock[0] += 5
    assert row.words() == "run 3/10 rounds, 0:00:42 left"
    assert Row("verify").words() == "verify"


def shown(terminal, width=80):
    return ProgressRows(Console(file=io.StringIO(), force_terminal=terminal, width=width))


@pytest.mark.parametrize("is_installed", [True, False])
def test_a_notebook_draws_where_it_can_and_else_is_said_lines(is_installed, monkeypatch):
    installed = {"ipywidgets": object()} if is_installed else {}
    monkeypatch.setattr(progress_rows, "find_spec", installed.get)
    assert ProgressRows(Console(file=io.StringIO(), force_jupyter=True)).is_live == is_installed


def text_of(rows):
    return rows._console.file.getvalue()


def test_a_terminal_shows_every_row_within_80_columns(clock):
    rows = shown(True)
    rows.rows = [Row("run", "rounds", 100, 3), Row("round 4", total=8.0), Row("validation", "completions", 4000, 1000)]
    rows.values = {"loss": 1.40625, "mu_hat": 0.5, "accuracy": float("nan"), "ECE": 0.1}
    clock[0] += 10
    lines = [text(line) for line in rows._console.render_lines(rows._drawn(), pad=False)]
    assert max(map(len, lines)) <= 80
    assert [line.split("━")[0].strip() for line in lines] == ["run", "round 4", "validation", lines[3]]
    assert lines[2].endswith("1000/4000 completions 100/s  0:00:10, 0:00:30 left")
    assert lines[3] == "loss 1.406  mu_hat 0.500  ECE 0.100"


def test_a_narrow_terminal_shows_words_in_place_of_bars(clock):
    rows = shown(True, width=60)
    rows.rows = [Row("run", "rounds", 100, 3), Row("validation", "completions", 4000, 1000)]
    clock[0] += 10
    lines = [text(line) for line in rows._console.render_lines(rows._drawn(), pad=False)]
    assert lines[:2] == [
        "run 3/100 rounds, 0.30/s, 0:05:23 left",
        "validation 1000/4000 completions, 100/s, 0:00:30 left",
    ]


def text(segments):
    return "".join(segment.text for segment in segments).rstrip()


def test_without_a_terminal_a_line_is_said_once_a_minute_and_nothing_is_drawn(clock):
    rows = shown(False)
    rows.rows = [Row("run", "rounds", 100, 3), Row("rollout", "completions", 2000)]
    rows.start()
    for _ in range(130):
        clock[0] += 1
        rows.rows[1].done += 10
        rows.advanced()
    rows.stop()
    assert text_of(rows).splitlines() == [
        "run 3/100 rounds, 0.05/s, 0:32:20 left; rollout 600/2000 completions, 10/s, 0:02:20 left",
        "run 3/100 rounds, 0.03/s, 1:04:40 left; rollout 1200/2000 completions, 10/s, 0:01:20 left",
    ]


def test_a_terminal_is_not_written_full_of_lines(clock):
    rows = shown(True)
    rows.rows = [Row("rollout", "completions", 2000)]
    clock[0] += 500
    rows.advanced()
    assert text_of(rows) == ""


def test_what_is_said_is_no_markup():
    rows = shown(False)
    rows.say("[red]\x1b[1m")
    assert text_of(rows) == "[red]\\x1b[1m\n"
