"""Points of the cost curves: their sizes, what is kept of them, lines, page and figure."""

import json
import resource
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from curving.figure import curves_figure
from curving.page import UNITS, page
from curving.points import AXES, BASE, NUM_LAYERS, NUM_PROMPTS, POINTS, along, planned, run_of
from curving.results import line, on, point_of, x_of
from curving.works import question, write_rows
from peering.clock import high_water

STEPS = [{"training": seconds, "generation": 0.5, "whole": 9.0} for seconds in (1.0, 7.0, 2.0)]
PLAN = {
    "memory_bytes": [{"name": "interpreter and libraries", "training": 100 * 2**20}],
    "peak_bytes": 400 * 2**20,
    "seconds": {
        "rollouts": 9.0,
        "teacher's forward passes": 0.5,
        "student's forward and backward passes": 2.0,
        "optimizer steps": 0.25,
    },
    "round": {"tokens the student reads": 300, "tokens the teacher reads": 500},
    "setup": {"student": {"trained": 3_000_000}},
}


def record(cost=lambda point: 1.0):
    points = [
        point_of(point, {"steps": STEPS, "memory_mib": 100.0 * cost(point)}, PLAN) | {"weights": 1000 * point.width}
        for point in reversed(POINTS)
    ]
    machine = {"cpus": 2, "machine": "x", "timestamp": "2026-11-27T00:00:00+00:00", "versions": {"torch": "2.13.0"}}
    return {"environment": machine, "points": points}


def test_one_setting_at_a_time_is_varied():
    assert len(POINTS) == len(set(POINTS)) == 1 + sum(len(values) - 1 for values in AXES.values())
    for axis, values in AXES.items():
        points = along(axis)
        assert BASE in points
        assert [getattr(point, axis) for point in points] == sorted(values)
        assert {replace(point, **{axis: 0}) for point in points} == {replace(BASE, **{axis: 0})}


def test_a_point_keeps_medians_and_what_is_planned_beyond_the_libraries():
    kept = point_of(BASE, {"steps": STEPS, "memory_mib": 123.46}, PLAN)
    assert asdict(BASE).items() <= kept.items()
    assert (kept["training_seconds"], kept["generation_seconds"], kept["mib"]) == (2.0, 0.5, 123.5)
    assert (kept["planned_training_seconds"], kept["planned_mib"]) == (2.75, 300.0)
    assert (kept["tokens_read"], kept["weights"]) == (800, 3_000_000)


def test_lines_are_those_of_least_squares():
    x, y = [1, 2, 4, 8, 16], [3.0, 5.5, 8.0, 18.0, 32.0]
    slope, intercept = np.polyfit(x, y, 1)
    found = line(x, y)
    assert (found.slope, found.intercept) == pytest.approx((slope, intercept))
    assert found.largest_error == pytest.approx(max(abs(np.polyval([slope, intercept], x) - y) / np.array(y)))


def test_an_axis_has_its_points_in_order_whatever_the_records():
    made = record()
    for axis, values in AXES.items():
        assert [point[axis] for point in on(made, axis)] == list(values)
    layers = on(made, "width")[0]
    assert x_of("width", layers) == (1000 * 128 - 8192 * 128) / 1e6
    assert x_of("prompt", on(made, "prompt")[0]) == 64


def test_the_page_states_slopes_and_every_point():
    made = record(cost=lambda point: 2 + point.rollouts)
    text = page(made)
    assert "| memory, MiB | rollout of a prompt | 100 | 200 | 0 | 0% |" in text
    assert "the plan says 0.17 to 1.00 times the memory and 1.38 to 1.38 times the seconds" in text
    assert text.count("\n## ") == 1 + len(UNITS) == 1 + len(AXES)
    assert text.count("| 2.00 | 2.75 | 0.50 |") == sum(map(len, AXES.values()))
    assert "| 16 | 2.00 | 2.75 | 0.50 | 1,800 | 300 | -83% |" in text
    assert "torch 2.13.0" in text


def test_the_figure_has_a_panel_for_every_setting_of_time_and_of_memory():
    axes = curves_figure(record()).axes
    assert len(axes) == 2 * len(AXES)
    assert [panel.get_ylabel() for panel in axes if panel.get_ylabel()] == ["training, CPU s", "memory, MiB"]
    measured, fitted, said = axes[0].lines
    assert list(measured.get_ydata()) == [2.0] * len(AXES["rollouts"])
    assert list(fitted.get_ydata()) == pytest.approx([2.0, 2.0])
    assert list(said.get_ydata()) == [2.75] * len(AXES["rollouts"])


def test_a_run_has_the_sizes_that_its_point_says(tmp_path):
    point = replace(BASE, rollouts=2, prompt=64, completion=8, vocabulary=2048, width=64)
    plan = planned(point, tmp_path)
    setup = plan["setup"]
    assert setup["prompts"] == {"mean": 64, "longest": 64}
    assert setup["completions"] == {"mean": 8, "longest": 8}
    size = setup["student"]["size"]
    assert (size["vocab_size"], size["hidden_size"], size["num_layers"]) == (2048, 64, NUM_LAYERS)
    assert plan["round"]["completions"] == NUM_PROMPTS * 2
    assert plan["round"]["optimizer steps"] == plan["round"]["micro-batches of a process"] == 1
    elsewhere = run_of(point, tmp_path / "other")
    assert elsewhere.fingerprint == run_of(point, tmp_path).fingerprint  # its folder has no part in it
    assert f"--data.sampling.max_new_tokens={point.completion}" in elsewhere.arguments


def test_questions_have_the_length_asked_for_and_differ(tmp_path):
    assert {len(question(number, 90)) for number in range(12)} == {90}
    assert len({question(number, 90) for number in range(12)}) == 12
    with pytest.raises(ValueError, match="too short"):
        question(0, 30)
    options = write_rows(tmp_path / "rows.jsonl", [90, 100])
    assert len(options) == 3
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [len(row["prompt"]) for row in rows] == [90, 100]


def test_the_peak_is_that_of_the_resident_set():
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20
    held = b"1" * (300 * 2**20)
    assert high_water() > resident + 299
    del held
    assert high_water() > resident + 299
