"""A run that is killed, and started again with the same command, ends as one that is not; long form: benchmarks."""

import subprocess
import sys

import pytest

from .conftest import ROOT

SCRIPT = ROOT / "benchmarks" / "killing" / "short.py"
PLACES_OF_ONE = [
    "checkpoint, in place:5:",  # the round's, behind which the best checkpoint and the round's end are still to come
    "rollout, sampled:1:",
    "training, before a step:2:",
    "validation, within:2:",
    "metrics, opened:1:",
]
PLACES_OF_TWO = ["training, behind a gradient:2:1", "validation, logged:1:0"]


@pytest.mark.parametrize(("num_processes", "places"), [(1, PLACES_OF_ONE), (2, PLACES_OF_TWO)], ids=["one", "two"])
def test_killed_and_started_again_a_run_ends_as_one_that_was_not(num_processes, places, tmp_path):
    command = [sys.executable, SCRIPT, tmp_path, str(num_processes), *places]
    result = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert (result.returncode, result.stdout) == (0, ""), result.stderr[-3000:]
