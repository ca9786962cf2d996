"""What sharded training holds, measured again: ``python benchmarks/sharded_memory.py`` makes and renews the record."""

import json
import sys
from pathlib import Path

import pytest

from sharded_memory import SECONDS_OF_REST, measured, summary, table, write_models

RECORD = Path(__file__).parents[2] / "benchmarks" / "results" / "sharded_memory.json"
MOST_OF_ONE, MOST_OF_A_SAVE, MOST_BESIDE_SHARDS = 0.4, 1.0, 1.3
MOST_OF_READING = {"float32": 1.3, "bfloat16": 1.6}
"""Files of 16 bits are mapped beside the model while it is read: half a model more."""


CASES = [("float32", False), ("float32", True), ("bfloat16", False)]


def assert_pays(run, at_rest_alone):
    found, number = run["moments"], run["processes"]
    assert found["trained"]["rest"][-1] / number <= MOST_OF_ONE * at_rest_alone
    assert found["saving"]["peak"][-1] - found["saving"]["rest"][-1] <= MOST_OF_A_SAVE
    assert found["before"]["reading"][0] <= MOST_OF_READING[run["files"]]
    assert found["before"]["peak"][0] - found["loaded"]["rest"][0] <= MOST_BESIDE_SHARDS


def test_the_record_is_shown_as_it_is_and_four_processes_hold_less_each():
    record = json.loads(RECORD.read_text())
    assert RECORD.with_suffix(".md").read_text() == table(record)
    (alone,) = (run["moments"]["trained"]["rest"][-1] for run in record["runs"] if run["processes"] == 1)
    four = [run for run in record["runs"] if run["processes"] == 4]
    assert [(run["files"], run["one_file"]) for run in four] == CASES
    for run in four:
        assert_pays(run, alone)


def test_sizes_are_beyond_what_was_held_before():
    """Two processes that hold 10 and 20 bytes before, and a model of 5 bytes; the first has shards from second 5 on."""
    marks = [{"moment": moment, "seconds": second} for second, moment in ((0.0, "before"), (10.0, "loaded"))]
    held = [
        (0.5, [10.0, 20.0]),
        (4.0, [10.1, 43.9]),
        (5.0, [30.0, 25.0]),
        (9.0, [11.0, 20.0]),
        (10.5, [15.0, 24.0]),
        (10.9, [16.0, 24.0]),
    ]
    assert SECONDS_OF_REST == 1.0
    found = summary(held, marks, size=5.0)["moments"]
    assert found["before"] == {"rest": [0.0], "rest_largest": [0.0], "peak": [5.0], "reading": [4.8]}
    assert found["loaded"] == {"rest": [1.8], "rest_largest": [1.0], "peak": [2.0]}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads sizes from /proc")
def test_four_processes_hold_as_little_as_recorded(tmp_path):
    record = json.loads(RECORD.read_text())
    (alone,) = (run["moments"]["trained"]["rest"][-1] for run in record["runs"] if run["processes"] == 1)
    size = write_models(tmp_path)
    assert_pays(measured(tmp_path / "float32", 4, True, size), alone)
