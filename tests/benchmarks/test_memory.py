"""Memory of recorded points, measured again: ``python benchmarks/curves.py`` makes the record, and renews it.

Memory is the peak of a fit's resident set beyond interpreter and libraries. It is made of tensors of hundreds of
megabytes, so that neither other work on the machine nor the allocator changes it by more than a few per cent.
"""

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from curves import cost
from curving.points import BASE, run_of
from fits import run_once

RECORD = Path(__file__).parents[2] / "benchmarks" / "results" / "curves.json"
MARGIN = 1.2
POINTS = {"long shared prompts": replace(BASE, prompt=1024), "a large vocabulary": replace(BASE, vocabulary=32_768)}


def recorded(point):
    every = json.loads(RECORD.read_text())["points"]
    (mib,) = [each["mib"] for each in every if asdict(point).items() <= each.items()]
    return mib


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
@pytest.mark.parametrize("name", POINTS)
def test_a_step_takes_no_more_memory_than_recorded(name, tmp_path):
    point = POINTS[name]
    expected = recorded(point)
    assert expected > 200  # tensors, beside which what is not is small
    found = run_once(run_of(point, tmp_path), tmp_path, cost)["memory_mib"]
    print(f"{name}: {found:.0f} MiB, recorded {expected:.0f}")
    assert found <= MARGIN * expected, (
        f"{name} take {found:.0f} MiB, {found / expected - 1:.0%} more than the record. If that is meant, renew it: "
        "python benchmarks/curves.py"
    )
