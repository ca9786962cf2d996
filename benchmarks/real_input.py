"""A real language model on real questions: ``python benchmarks/real_input.py --data DIR``.

Trains SmolLM2-135M-Instruct on science questions and on tool-use requests for some rounds, stops, resumes from the
checkpoint, and records times, metrics and sample completions. DIR holds ``science/`` and ``tooluse/`` in the form that
docs/data.md shows.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

ROOT = Path(__file__).parent.parent
TASKS = {
    "science": ("smollm2_science", "science/chemistry.train.jsonl", "science/chemistry.test.jsonl"),
    "tool_use": ("smollm2_tool_use", "tooluse/train.jsonl", "tooluse/test.jsonl"),
}


def caopd(arguments: list[str], log: Path) -> float:
    """Run the command in its own process and return its seconds."""
    start = time.perf_counter()
    with log.open("w") as output:
        command = [sys.executable, "-m", "caopd", *arguments]
        subprocess.run(command, check=True, stdout=output, stderr=subprocess.STDOUT)
    return time.perf_counter() - start


def scalars(run_directory: Path) -> dict[str, list[float]]:
    """Return what the run logged."""
    events = EventAccumulator(str(run_directory))
    events.Reload()
    names = ("train/", "rollout/", "time/")
    return {
        tag: [round(event.value, 4) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
        if tag.startswith(names)
    }


def run_task(name: str, data: Path, directory: Path, rounds: int) -> dict:
    """Train for one round less than ``rounds``, stop, resume for the last one, and return the record."""
    config, train, test = TASKS[name]
    root = directory / name
    root.mkdir(parents=True, exist_ok=True)
    files = {"train": str(data / train), "validation": str(data / test), "test": str(data / test)}
    arguments = [
        *("fit", "--config", str(ROOT / "configs" / f"{config}.yaml")),
        f"--data.task.init_args.source.files={json.dumps(files)}",
        "--trainer.enable_progress_bar=false",
    ]
    first, second = root / "first", root / "resumed"
    seconds = caopd(
        [*arguments, f"--trainer.max_epochs={rounds - 1}", f"--trainer.default_root_dir={first}"], root / "1.log"
    )
    (checkpoint,) = first.rglob("*.ckpt")
    resumed = caopd(
        [
            *arguments,
            f"--trainer.max_epochs={rounds}",
            f"--trainer.default_root_dir={second}",
            f"--ckpt_path={checkpoint}",
        ],
        root / "2.log",
    )
    (metrics,) = second.rglob("metrics.json")
    (rollouts,) = second.rglob("rollouts/*.jsonl")
    groups = [json.loads(line) for line in rollouts.read_text().splitlines()]
    return {
        "seconds": round(seconds, 1),
        "seconds_resumed": round(resumed, 1),
        "checkpoint_mib": round(checkpoint.stat().st_size / 2**20),
        **json.loads(metrics.read_text()),
        "first": scalars(next(first.rglob("events*")).parent),
        "resumed": scalars(next(second.rglob("events*")).parent),
        "samples": [
            {"id": group["example"]["id"], "mu_hat": group["mu_hat"], "text": group["rollouts"][0]["rollout"]["text"]}
            for group in groups[:3]
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--directory", type=Path, default=ROOT / "runs" / "benchmark-real-input")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "real_input.json")
    arguments = parser.parse_args()
    record = {
        "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": "smollm2-135m-instruct, float32",
        "cpus": os.cpu_count(),
        "versions": {name: version(name) for name in ("torch", "lightning", "transformers", "caopd")},
        "tasks": {
            name: run_task(name, arguments.data.absolute(), arguments.directory, arguments.rounds)
            for name in arguments.tasks
        },
    }
    arguments.output.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    print(json.dumps(record, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
