"""What a long run holds on to: ``OMP_NUM_THREADS=1 python benchmarks/long_run.py``.

``caopd fit`` on the embedded model with every default on, in rounds as small as they can be: after each round the
process says how much memory, how many open files, threads and children it has, and how large its run directory is. A
leak of some bytes a round shows in the slope of its resident memory over 1,000 rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
import psutil
from lightning import Callback, LightningModule, Trainer
from scipy.stats import linregress, t

from caopd.run_directory import run_directory

ROOT = Path(__file__).parent.parent
SETTINGS = {
    "data.round.num_prompts_per_round": 2,
    "data.round.num_rollouts": 2,
    "data.batch_size": 2,
    "data.sampling.max_new_tokens": 4,
    "data.task.num_train": 64,
    "data.task.num_validation": 8,
    "data.evaluation.batch_size": 8,
    "data.evaluation.max_new_tokens": 4,
}
"""Beside `configs/quickstart.yaml`: one optimizer step a round."""
COUNTS = {"files": "open files", "threads": "threads", "children": "child processes"}
MIB = 2**20
NUM_BLOCKS = 20
"""Memory moves by itself from round to round: the slope is fitted to means of so many blocks of rounds."""
NUM_KEPT = 50
"""Rounds of the record, evenly spaced."""


class Sampler(Callback):
    """Writes, after every round, a line of what the process holds.

    Args:
        output: The file of JSON lines.
    """

    def __init__(self, output: str) -> None:
        self._output = Path(output)
        self._directory = Path()
        self._start = time.perf_counter()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Ask for the run directory."""
        self._directory = run_directory(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the line; the validation of the round has been."""
        process = psutil.Process()
        sample = {
            "round": trainer.current_epoch + 1,
            "seconds": round(time.perf_counter() - self._start, 2),
            "rss": process.memory_info().rss,
            "files": process.num_fds(),
            "threads": process.num_threads(),
            "children": len(process.children(recursive=True)),
            "directory": sum(path.stat().st_size for path in self._directory.rglob("*") if path.is_file()),
            "entries": sum(1 for _ in self._directory.rglob("*")),
        }
        with self._output.open("a") as file:
            file.write(json.dumps(sample) + "\n")


def samples(num_rounds: int, validate_every: int) -> list[dict[str, float]]:
    """Run ``caopd fit`` in a process of its own and return what it held after every round.

    Args:
        num_rounds: Rounds of the run.
        validate_every: Rounds between two validations.
    """
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "samples.jsonl")
        sampler = {"class_path": "long_run.Sampler", "init_args": {"output": str(output)}}
        options = {**SETTINGS, "trainer.max_epochs": num_rounds, "trainer.check_val_every_n_epoch": validate_every}
        command = [sys.executable, "-m", "caopd", "fit", f"--config={ROOT / 'configs' / 'quickstart.yaml'}"]
        command += [f"--{name}={value}" for name, value in options.items()]
        command += [f"--trainer.callbacks+={json.dumps(sampler)}", f"--trainer.default_root_dir={folder}"]
        path = os.pathsep.join([str(ROOT / "benchmarks"), str(ROOT)])
        run = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
        if run.returncode:
            raise RuntimeError(run.stderr[-4000:])
        return [json.loads(line) for line in output.read_text().splitlines()]


def slope(rounds: Sequence[float], values: Sequence[float]) -> dict[str, float]:
    """Return the slope per 1,000 rounds and its 95 % interval, of a line through the means of blocks.

    Args:
        rounds: Numbers of the rounds.
        values: What was measured after each.

    Example:
        >>> slope(range(100), [5.0 + 0.25 * n for n in range(100)])["per_1000"]
        250.0
    """
    blocks = [np.array_split(np.asarray(each, dtype=float), NUM_BLOCKS) for each in (rounds, values)]
    x, y = ([block.mean() for block in each] for each in blocks)
    line = linregress(x, y)
    half = t.ppf(0.975, NUM_BLOCKS - 2) * np.nan_to_num(line.stderr)  # undefined where nothing moves
    edges = {"low": line.slope - half, "high": line.slope + half}
    return {name: round(1000 * float(value), 6) for name, value in {"per_1000": line.slope, **edges}.items()}


def summary(found: Sequence[Mapping[str, float]], num_warm_up: int) -> dict:
    """Return the slopes of memory and of the run directory in MiB, and the extremes of what is counted.

    Args:
        found: Samples of every round.
        num_warm_up: Rounds at the beginning that are left out.
    """
    warm = found[num_warm_up:]
    rounds = [each["round"] for each in warm]
    return {
        "rss_mib": {"first": warm[0]["rss"] / MIB, "last": warm[-1]["rss"] / MIB}
        | slope(rounds, [each["rss"] / MIB for each in warm]),
        "directory_mib": {"first": warm[0]["directory"] / MIB, "last": warm[-1]["directory"] / MIB}
        | slope(rounds, [each["directory"] / MIB for each in warm]),
        "entries": [min(each["entries"] for each in warm), max(each["entries"] for each in warm)],
        **{name: [min(each[name] for each in warm), max(each[name] for each in warm)] for name in COUNTS},
    }


def table(record: Mapping) -> str:
    """Return the record as Markdown."""
    found, asked, day = record["summary"], record["settings"], record["timestamp"][:10]
    lines = [
        "# A long run",
        "",
        f"`python benchmarks/long_run.py`; {record['cpus']} CPU cores, {record['threads']} threads, "
        f"{day}; torch {record['versions']['torch']}, Lightning {record['versions']['lightning']}.",
        "",
        f"{asked['rounds']:,} rounds of one optimizer step on the embedded model, every default on, a checkpoint after "
        f"every round and a validation every {asked['validate_every']}: {record['seconds']:,.0f} s. The first "
        f"{asked['warm_up']} rounds are left out.",
        "",
        "| | first | last | per 1,000 rounds (95 % interval) |",
        "|---|---|---|---|",
    ]
    for name, title in (("rss_mib", "resident memory, MiB"), ("directory_mib", "run directory, MiB")):
        each = found[name]
        interval = f"{each['per_1000']:+.2f} ({each['low']:+.2f} to {each['high']:+.2f})"
        lines.append(f"| {title} | {each['first']:.1f} | {each['last']:.1f} | {interval} |")
    lines += ["", "| | fewest | most |", "|---|---|---|"]
    for name, title in {**COUNTS, "entries": "files and folders of the run directory"}.items():
        lines.append(f"| {title} | {found[name][0]} | {found[name][1]} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--validate_every", type=int, default=20)
    parser.add_argument("--warm_up", type=int, default=100)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "long_run.json")
    arguments = parser.parse_args()
    found = samples(arguments.rounds, arguments.validate_every)
    record = {
        "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpus": os.cpu_count(),
        "threads": int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)),
        "versions": {name: version(name) for name in ("torch", "lightning", "transformers", "caopd")},
        "settings": {name: getattr(arguments, name) for name in ("rounds", "validate_every", "warm_up")},
        "seconds": found[-1]["seconds"],
        "summary": summary(found, arguments.warm_up),
        "samples": found[:: max(1, len(found) // NUM_KEPT)],
    }
    arguments.output.write_text(json.dumps(record, indent=2) + "\n")
    arguments.output.with_suffix(".md").write_text(table(record))
    print(table(record))


if __name__ == "__main__":
    main()
