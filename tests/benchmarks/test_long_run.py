"""The long run's slope against a line that is known, and a short form of the run: nothing is held on to."""

import numpy as np
import pytest

import long_run


def test_the_slope_is_that_of_the_line_and_its_interval_that_of_the_noise():
    rng, held = np.random.default_rng(0), 0
    for _ in range(200):
        found = long_run.slope(range(400), [3.0 + 0.002 * n + rng.normal() for n in range(400)])
        held += found["low"] <= 2.0 <= found["high"]
        assert found["low"] < found["per_1000"] < found["high"]
    assert 180 <= held <= 199  # of 95 %
    steady = long_run.slope(range(100), [7.0] * 100)
    assert steady == {"per_1000": 0.0, "low": 0.0, "high": 0.0}


@pytest.fixture(scope="module")
def found():
    return long_run.samples(14, 4)


def test_a_run_holds_as_many_files_threads_and_processes_at_its_end_as_at_its_beginning(found):
    assert [each["round"] for each in found] == list(range(1, 15))
    for name in long_run.COUNTS:
        assert found[-1][name] <= found[6][name], name
    assert found[-1]["entries"] == found[6]["entries"]  # old checkpoints and rollouts are deleted
    assert found[-1]["directory"] - found[6]["directory"] < 2**20


def test_the_page_shows_what_was_measured(found):
    asked = {"rounds": 14, "validate_every": 4, "warm_up": 4}
    record = {
        "timestamp": "2026-01-01",
        "cpus": 2,
        "threads": 1,
        "versions": {"torch": "2", "lightning": "2"},
        "settings": asked,
        "seconds": 5.0,
        "summary": long_run.summary(found, 4),
    }
    page = long_run.table(record)
    assert f"| resident memory, MiB | {found[4]['rss'] / 2**20:.1f} |" in page
    assert f"| threads | {min(each['threads'] for each in found[4:])} |" in page
