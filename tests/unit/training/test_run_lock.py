"""One process at a time trains in a run directory."""

import os
import signal
import subprocess
import sys

import pytest

from caopd.errors import ConfigError
from caopd.training.run_lock import RunLock

HOLDING = """
import sys
from pathlib import Path
from caopd.training.run_lock import RunLock

lock = RunLock()
lock.acquire(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_the_lock_of_a_killed_process_is_free(tmp_path):
    command = [sys.executable, "-c", HOLDING, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        with pytest.raises(ConfigError, match=rf"training in {tmp_path}, but there is one \(process {process.pid} on"):
            RunLock().acquire(tmp_path)
        os.kill(process.pid, signal.SIGKILL)
    lock = RunLock()
    lock.acquire(tmp_path)
    lock.acquire(tmp_path)  # the same object: it has it
    lock.release()
    assert list(tmp_path.iterdir()) == []
