"""Runs of the command as forks of one process that has imported everything: importing takes longer than a small run.

As where runs are killed (``benchmarks/killing``), each is ``caopd``'s own ``main``, and two processes get the
environment that ``torchrun`` would give them. The process that forks is none of pytest's, whose threads may hold locks.
"""

import json
import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
SECONDS = 600


@dataclass(frozen=True)
class Ended:
    """A run that has ended: the exit status of each of its processes, and all that they have printed."""

    statuses: list[int]
    stderr: str

    @property
    def returncode(self):
        """That of the first process which did not end well; 0 if all did."""
        return next(filter(None, self.statuses), 0)


class Forks:
    """The process that forks; it starts with the first run, and ends with this one."""

    def __init__(self):
        self._process = None

    def run(self, arguments, directory, num_processes=1, place=""):
        """Run the command in a directory, and return how all its processes ended, killed at a place or not."""
        if self._process is None:
            command = [sys.executable, "-m", "tests.forks"]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            self._process = subprocess.Popen(command, cwd=ROOT, text=True, bufsize=1, **pipes)
        arguments = list(map(str, arguments))
        log = directory / f"printed{len(list(directory.glob('printed*')))}.txt"
        run = {"arguments": arguments, "log": str(log), "num_processes": num_processes, "place": place}
        settings = {"environment": {**os.environ, "OMP_NUM_THREADS": "1"}, "directory": str(directory), "run": run}
        self._process.stdin.write(f"{json.dumps(settings)}\n")
        statuses, printed = self._process.stdout.readline(), log.read_text(errors="replace")
        assert statuses, f"the run did not end within {SECONDS} s: {printed[-3000:]}"
        return Ended(json.loads(statuses), printed)

    def end(self):
        """End the process."""
        if self._process is not None:
            self._process.stdin.close()
            self._process.wait(60)
            self._process.stdout.close()


def serve():
    """Run what is asked for, a line for each run, until there is nobody left to ask."""
    from killing.processes import run

    assert threading.active_count() == 1, "a fork would have no other thread, and the locks that it holds"
    for line in sys.stdin:
        request = json.loads(line)
        os.environ.clear()
        os.environ.update(request["environment"])
        os.chdir(request["directory"])
        sys.path[0] = request["directory"]
        ended = run(**{**request["run"], "log": Path(request["run"]["log"]), "patience": SECONDS})
        print(json.dumps(ended.statuses), flush=True)


if __name__ == "__main__":
    sys.path.insert(1, str(ROOT / "benchmarks"))
    serve()
