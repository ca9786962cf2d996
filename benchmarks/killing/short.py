"""The short form: ``python benchmarks/killing/short.py FOLDER NUM_PROCESSES PLACE...`` prints each difference found.

It is a process of its own, since what it forks must not find other threads' locks.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from killing.outcome import differences, outcome  # noqa: E402 (found by the path above)
from killing.processes import run  # noqa: E402

CONFIGS = ("configs/quickstart.yaml", "benchmarks/killing/run.yaml")
TWO = ("--trainer.devices=2", "--trainer.strategy=ddp")
PATIENCE = 60


def compared(folder: Path, num_processes: int, places: Sequence[str]) -> list[str]:
    """Kill a run at one place after the other, and return what it leaves other than one that was not killed.

    Args:
        folder: Of the runs; it must be empty.
        num_processes: Number of processes that train together.
        places: As in :mod:`killing.victim`, in the order in which the run comes to them.
    """

    def start(name: str, place: str = "") -> tuple[int, tuple[int, ...]]:
        arguments = [*(f"--config={ROOT / path}" for path in CONFIGS), *(TWO if num_processes > 1 else ())]
        arguments += ["--ckpt_path=last", f"--trainer.default_root_dir={folder / name}"]
        ended = run(["fit", *arguments], folder / f"{name}.log", num_processes, place, patience=PATIENCE)
        return ended.num_killed, ended.statuses

    done = (0, (0,) * num_processes)
    found = [f"the whole run: {ended}" for ended in [start("whole")] if ended != done]
    found += [f"{place}: {ended}" for place in places for ended in [start("killed", place)] if ended[0] != 1]
    found += [f"the last start: {ended}" for ended in [start("killed")] if ended != done]
    return [*found, *differences(outcome(folder / "whole"), outcome(folder / "killed"))]


if __name__ == "__main__":
    sys.stdout.write("".join(f"{each}\n" for each in compared(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])))
