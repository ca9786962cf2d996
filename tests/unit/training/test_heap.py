"""What is freed goes back to the system."""

import subprocess
import sys

import pytest

FREED = """
import sys
import psutil, torch
from caopd.training.heap import give_back_at_once

def resident():
    return psutil.Process().memory_info().rss / 2**20

if sys.argv[1] == "given back":
    give_back_at_once()
del_first = torch.ones(4 * 2**18)
del del_first  # from here on, glibc takes blocks of this size from its heap
before = resident()
blocks = [torch.ones(3 * 2**18) for _ in range(100)]
blocks = blocks[-1:]  # the last one lies above all others in the heap
print(resident() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's own ways")
def test_large_blocks_are_given_back_when_they_are_freed():
    mib = {
        how: float(
            subprocess.run([sys.executable, "-c", FREED, how], capture_output=True, text=True, check=True).stdout
        )
        for how in ("kept", "given back")
    }
    assert mib["kept"] > 200
    assert mib["given back"] < 20
