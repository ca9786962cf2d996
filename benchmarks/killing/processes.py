"""Starts runs in processes that can be killed.

Importing torch and Lightning takes longer than the small run itself. So this process imports them once and forks: each
run is ``caopd``'s own ``main`` in a child. Two processes get the environment that ``torchrun`` would give them. Some
runs are the command itself, imports and all.
"""

from __future__ import annotations

import atexit
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import caopd.training.subcommands  # imported once, before any fork
from caopd.cli import main as caopd
from killing.victim import VARIABLE

KILLED = -signal.SIGKILL
SECONDS_BETWEEN_LOOKS = 0.02
_CONNECTED = "All distributed processes registered"
"""What Lightning says when the processes have found each other."""


@dataclass(frozen=True)
class Ended:
    """How the processes of a run ended.

    Attributes:
        statuses: Exit status of each process, by rank; negative for a signal.
        seconds: From the start to the end of the last process.
        seconds_alone: From the first kill to the end of the last process that was not killed; None without such.
    """

    statuses: tuple[int, ...]
    seconds: float
    seconds_alone: float | None

    @property
    def was_killed(self) -> bool:
        """Whether a process was killed."""
        return KILLED in self.statuses

    @property
    def num_killed(self) -> int:
        """Number of processes that were killed."""
        return self.statuses.count(KILLED)


def run(
    arguments: Sequence[str],
    log: Path,
    num_processes: int = 1,
    place: str = "",
    kill_after: tuple[float, Sequence[int]] | None = None,
    patience: float = 120.0,
    forked: bool = True,
) -> Ended:
    """Run ``caopd`` and return how it ended.

    Args:
        arguments: Of the command.
        log: File that its output is added to.
        num_processes: Number of processes that train together.
        place: Where a process kills itself, as in :mod:`killing.victim`; nowhere by default.
        kill_after: Seconds after which processes are killed, and their ranks.
        patience: Seconds after the first kill, or the start, until everything is killed that is left.
        forked: Whether the run is a fork of this process, or the command in a process of its own.
    """
    start = time.monotonic()
    settings = {VARIABLE: place} | ({} if num_processes == 1 else _torchrun(num_processes))
    begin = _fork if forked else _spawn
    with log.open("a") as output:
        output.write(f"\n===== {place or kill_after or 'not killed'}\n")
        output.flush()
        pids = [
            begin(arguments, settings | _ranks(rank, num_processes), output.fileno()) for rank in range(num_processes)
        ]
        return _wait(pids, start, kill_after, patience, log)


def _wait(
    pids: list[int], start: float, kill_after: tuple[float, Sequence[int]] | None, patience: float, log: Path
) -> Ended:
    statuses: dict[int, int] = {}
    first_kill: float | None = None
    deadline = start + patience
    seconds, ranks = kill_after or (0.0, ())
    while len(statuses) < len(pids):
        if ranks and time.monotonic() - start >= seconds:
            for rank in ranks:
                if rank not in statuses:
                    os.kill(pids[rank], signal.SIGKILL)
            ranks = ()
        for rank, pid in enumerate(pids):
            if rank not in statuses and (ended := os.waitpid(pid, os.WNOHANG))[0]:
                statuses[rank] = os.waitstatus_to_exitcode(ended[1])
                if statuses[rank] == KILLED and first_kill is None:
                    first_kill = time.monotonic()
                    deadline = first_kill + patience
                    if not _are_connected(log):  # as a launcher does, which starts the processes and sees them end
                        _end(pids, statuses)
        if time.monotonic() > deadline:
            _end(pids, statuses)
            raise TimeoutError(f"{len(pids) - len(statuses)} of {len(pids)} processes did not end within {patience} s")
        time.sleep(SECONDS_BETWEEN_LOOKS)
    end = time.monotonic()
    survived = first_kill is not None and any(status != KILLED for status in statuses.values())
    alone = end - first_kill if survived and first_kill is not None else None
    return Ended(tuple(statuses[rank] for rank in range(len(pids))), end - start, alone)


def _are_connected(log: Path) -> bool:
    """Return whether the processes of the last run in a log have found each other."""
    return _CONNECTED in log.read_text(errors="replace").rpartition("\n===== ")[2]


def _end(pids: list[int], statuses: dict[int, int]) -> None:
    for rank, pid in enumerate(pids):
        if rank not in statuses:
            os.kill(pid, signal.SIGKILL)


def _fork(arguments: Sequence[str], settings: dict[str, str], output: int) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    status = 70
    try:
        atexit._clear()  # as multiprocessing does: what the parent's imports have registered is the parent's
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.environ.update(settings)
        sys.argv = ["caopd", *arguments]
        status = caopd(list(arguments))
    except SystemExit as stop:  # as after --print_config
        status = int(stop.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        atexit._run_exitfuncs()  # the others of a run are told that it ends
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _spawn(arguments: Sequence[str], settings: dict[str, str], output: int) -> int:
    command = [sys.executable, "-m", "caopd", *arguments]
    paths = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}  # the config names a callback of this folder
    return subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, **paths, **settings}).pid


def _torchrun(num_processes: int) -> dict[str, str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "kills", "GROUP_RANK": "0"}
    return shared | dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), str(num_processes))


def _ranks(rank: int, num_processes: int) -> dict[str, str]:
    return {} if num_processes == 1 else dict.fromkeys(("RANK", "LOCAL_RANK"), str(rank))
