"""A run that is killed again and again ends as one that is not: ``python benchmarks/kills.py``.

A small run of ``caopd fit`` (``killing/run.yaml``: two tasks in sequence, an adaptive budget, an estimator that
remembers, a best checkpoint, early stopping) is made once without a kill. Then the same command, with
``--ckpt_path=last``, is started, ended by SIGKILL at a random moment or at a stated place, and started again, until it
ends by itself. What both have left is compared bit by bit: every checkpoint (weights, teacher, optimizer, schedule,
estimator, loops, callbacks), ``metrics.json``, ``stages.json``, the rollouts, and every value in the logs by its step.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
import tempfile
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from fits import ROOT, environment
from killing.outcome import Outcome, differences, outcome
from killing.processes import run
from killing.victim import FILES, PLACES

RESULTS = ROOT / "benchmarks" / "results"
RUN = ("--config=configs/quickstart.yaml", "--config=benchmarks/killing/run.yaml", "--ckpt_path=last")
RANDOM = "a random moment"
SECONDS_OF_START = 2.0
KILLS_PER_RUN = 8
NUM_SHOWN = 20
"""Differences of a run that are recorded."""


@dataclass(frozen=True)
class Setup:
    """How a run is started.

    Attributes:
        name: In the table.
        num_processes: Number of processes that train together.
        share: Share of all kills.
        options: Further options of the command.
        forked: Whether its processes are forks of this one, which has imported everything; else they are the command.
    """

    name: str
    num_processes: int
    share: float
    options: tuple[str, ...] = ()
    forked: bool = True


TWO = ("--trainer.devices=2",)
SHARDED = (
    "--trainer.strategy=caopd.training.sharded.AtomicModelParallelStrategy",
    "--trainer.strategy.data_parallel_size=2",
    "--trainer.strategy.tensor_parallel_size=1",
    "--trainer.inference_mode=false",
)
SETUPS = (
    Setup("one process", 1, 0.5),
    Setup("one process, the command itself", 1, 0.05, forked=False),
    Setup("two, DDP", 2, 0.28, (*TWO, "--trainer.strategy=ddp")),
    Setup("two, DDP, the command itself", 2, 0.05, (*TWO, "--trainer.strategy=ddp"), forked=False),
    Setup("two, FSDP2", 2, 0.12, (*TWO, *SHARDED)),
)
SHARDED_BY_ALL = ("two, FSDP2",)
"""Setups in which every process writes files; in the others process 0 alone does."""


@dataclass(frozen=True)
class Kill:
    """A kill that is to happen.

    Attributes:
        place: Name of the place, or ``RANDOM``.
        moment: How often the place is reached before, counted from 1; at random, the share of a whole run's seconds.
        ranks: The processes that are killed.
    """

    place: str
    moment: float
    ranks: tuple[int, ...]


def kills(setup: Setup, number: int, generator: random.Random) -> deque[Kill]:
    """Return so many kills and some more, as some come too late: every other one at a place, the rest at random."""
    planned: deque[Kill] = deque()
    while len(planned) < 3 * number:
        for place in generator.sample(PLACES, len(PLACES)):
            rank = generator.randrange(setup.num_processes)
            writes = 0 if place.partition(",")[0] in FILES and setup.name not in SHARDED_BY_ALL else rank
            planned.append(Kill(place, generator.choice((1, 1, 2, 3)), (writes,)))
            several = generator.random() < 0.3
            planned.append(Kill(RANDOM, generator.random(), tuple(range(setup.num_processes)) if several else (rank,)))
    return planned


def record_setup(setup: Setup, num_kills: int, generator: random.Random, directory: Path) -> dict:
    """Return what was killed in runs of one kind, and what they differed in."""
    directory.mkdir(parents=True)
    ended = run(command(setup, directory / "whole"), directory / "whole.log", setup.num_processes, forked=setup.forked)
    if any(ended.statuses):
        raise SystemExit(f"the run that is not killed ended with {ended.statuses}: see {directory / 'whole.log'}")
    expected, seconds = outcome(directory / "whole"), ended.seconds
    planned, runs, done = kills(setup, num_kills, generator), [], 0
    while done < num_kills:
        name = f"run{len(runs)}"
        runs.append(
            killed_run(setup, planned, seconds, directory / name, expected, min(KILLS_PER_RUN, num_kills - done))
        )
        done += len(runs[-1]["kills"])
        print(f"{setup.name}: {done} kills, {len(runs[-1]['differences'])} differences in {name}", flush=True)
    return {"setup": setup.name, "seconds": round(seconds, 1), "values": len(expected), "runs": runs}


def killed_run(
    setup: Setup, planned: deque[Kill], seconds: float, directory: Path, expected: Outcome, num_kills: int
) -> dict:
    """Start a run again until it has been killed so often and ends, and return the kills and differences."""
    made, starts, log = [], 0, directory.with_suffix(".log")
    while True:
        kill = planned.popleft() if len(made) < num_kills else None
        try:
            ended = start(setup, kill, seconds, directory, log)
        except TimeoutError as error:
            return _record(made, starts, [f"{kill}: {error}; see {log}"])
        starts += 1
        if kill is None or not ended.was_killed:
            break
        alone = ended.seconds_alone and round(ended.seconds_alone, 2)
        made.append({**asdict(kill), "seconds_alone": alone})
    if kill is not None and kill.place != RANDOM and kill.moment > 1:  # the run ended before: first in another run
        planned.appendleft(replace(kill, moment=1))
    if any(ended.statuses):
        return _record(made, starts, [f"the run ended with {ended.statuses}: see {log}"])
    found = differences(expected, outcome(directory))
    if not found:
        shutil.rmtree(directory)
    return _record(made, starts, found)


def start(setup: Setup, kill: Kill | None, seconds: float, directory: Path, log: Path):
    """Run the command once, killed or not."""
    place, after = "", None
    if kill is not None and kill.place == RANDOM:
        after = (SECONDS_OF_START + kill.moment * max(1.0, seconds - SECONDS_OF_START), kill.ranks)
    elif kill is not None:
        place = f"{kill.place}:{kill.moment:.0f}:{kill.ranks[0]}"
    return run(command(setup, directory), log, setup.num_processes, place, after, forked=setup.forked)


def command(setup: Setup, directory: Path) -> list[str]:
    return ["fit", *RUN, *setup.options, f"--trainer.default_root_dir={directory}"]


def _record(made: list[dict], starts: int, found: list[str]) -> dict:
    return {"kills": made, "starts": starts, "num_differences": len(found), "differences": found[:NUM_SHOWN]}


def report(record: dict) -> str:
    """Return the page: a row for every place, a column for every kind of run."""
    setups, machine = record["setups"], record["environment"]
    num_kills = sum(len(each["kills"]) for setup in setups for each in setup["runs"])
    num_runs = sum(len(setup["runs"]) for setup in setups)
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    lines = [
        "# Killed and started again",
        "",
        f"`{record['command']}`; {machine['cpus']} CPU cores, one thread each; {machine['timestamp'][:10]}; "
        f"{versions}. {num_kills} kills (SIGKILL) of {num_runs} runs, each started again with the same command until "
        f"it ended, and compared with a run that was not killed: {setups[0]['values']:,} values and hashes. "
        "Seconds (`time/*`) are left out. A cell is kills / differences found in the runs that had them. Where a "
        "process was killed before the processes were connected, the other one was ended as a launcher does.",
        "",
        "| place | " + " | ".join(setup["setup"] for setup in setups) + " |",
        "|---|" + "---|" * len(setups),
    ]
    places = (*PLACES, RANDOM)
    lines += [f"| {place} | " + " | ".join(_cell(setup, (place,)) for setup in setups) + " |" for place in places]
    lines.append("| **all** | " + " | ".join(f"**{_cell(setup, places)}**" for setup in setups) + " |")
    lines += ["", *(_alone(setup) for setup in setups if "two" in setup["setup"])]
    for setup in setups:
        lines += [f"- {setup['setup']}: {line}" for each in setup["runs"] for line in each["differences"]]
    return "\n".join(lines) + "\n"


def _cell(setup: dict, places: Sequence[str]) -> str:
    with_place = [each for each in setup["runs"] if any(kill["place"] in places for kill in each["kills"])]
    number = sum(kill["place"] in places for each in setup["runs"] for kill in each["kills"])
    return f"{number} / {sum(each['num_differences'] for each in with_place)}" if number else "-"


def _alone(setup: dict) -> str:
    alone = [kill["seconds_alone"] for each in setup["runs"] for kill in each["kills"]]
    found = [seconds for seconds in alone if seconds is not None]
    if not found:
        return f"{setup['setup']}: no process survived another."
    return (
        f"{setup['setup']}: {len(found)} times a process survived the other, and ended by itself within "
        f"{statistics.median(found):.1f} s (median), {max(found):.1f} s at most."
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=120, help="of all kinds of runs together")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2], choices=[1, 2])
    parser.add_argument("--seed", type=int, default=0, help="of the places and moments")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--again", nargs="+", help="kinds of runs, made again for the record that is in --output")
    parser.add_argument("--directory", type=Path, help="of the runs; by default a temporary one")
    options = parser.parse_args(arguments)
    setups = [setup for setup in SETUPS if setup.num_processes in options.processes]
    total = sum(setup.share for setup in setups)
    setups = [setup for setup in setups if options.again is None or setup.name in options.again]
    directory = options.directory or Path(tempfile.mkdtemp(prefix="caopd-kills-"))
    generator = random.Random(options.seed)
    found = [
        record_setup(setup, round(options.kills * setup.share / total), generator, directory / str(index))
        for index, setup in enumerate(setups)
    ]
    chosen = f"--kills {options.kills} --processes {' '.join(map(str, options.processes))} --seed {options.seed}"
    options.output.mkdir(parents=True, exist_ok=True)
    if options.again is None:
        record = {"command": f"python benchmarks/kills.py {chosen}", "environment": environment(1), "setups": found}
    else:
        record = json.loads((options.output / "kills.json").read_text())
        new = {setup["setup"]: setup for setup in found}
        record["setups"] = [new.get(setup["setup"], setup) for setup in record["setups"]]
        record["command"] += f", then with --again {' '.join(map(repr, options.again))}"
    (options.output / "kills.json").write_text(json.dumps(record, indent=1) + "\n")
    (options.output / "kills.md").write_text(report(record))
    print(report(record))
    if any(each["num_differences"] for setup in found for each in setup["runs"]):
        raise SystemExit(1)
    if options.directory is None:
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
