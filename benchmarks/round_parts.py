"""Where the time of a round goes: ``python benchmarks/round_parts.py --data DIR``.

``caopd fit`` on one thread, looked at every five milliseconds of CPU time: the quickstart, and SmolLM2-135M on science
questions and on tool use (DIR holds ``science/`` and ``tooluse/``, docs/data.md; without it they are left out), some
rounds each without validation, sampled by transformers. The time since the last look counts for the innermost part that
the run is found in; within a long operation, such as a backward pass, there is no look before its end. Writes
``benchmarks/results/round_parts.json`` and ``.md``; finished runs are kept.
"""

from __future__ import annotations

import argparse
import json
import signal
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType

from caopd.cli import main as caopd
from fits import QUICKSTART, ROOT, Run, all_or_exit, environment, run_all, run_once

INTERVAL = 0.005
"""CPU seconds between two looks."""
Within = tuple[str, str]
"""A function's name, and what the path of its file holds."""
ROUND: tuple[Within, ...] = (("setup_data", "loops/fit_loop.py"), ("advance", "loops/fit_loop.py"))
"""What a round is: the making of its micro-batches, then their steps."""
PARTS: dict[str, tuple[Within, ...]] = {
    "sampling": (("generate", "rollouts/transformers_engine.py"),),
    "student and loss, forward": (("training_step", "training/module.py"),),
    "teacher, forward": (("_teacher_output", "training/module.py"),),
    "backward": (("backward", "strategies/strategy.py"),),
    "optimizer, gradients clipped": (("adam", "optim/adam.py"), ("clip_gradients", "precision/precision.py")),
    "teacher moves": (("update", "models/teacher.py"),),
    "comparison of samples with the model": (("check_parity", "rounds/parity.py"),),
    "verdicts and readings": (("each", "verifiers/verification.py"),),
    "prompts of rollouts": (("student_prompts", "rounds/encoding.py"),),
    "spliced confidences, teachers' prompts": (("tokenized", "rounds/round.py"),),
    "estimates, samples, statistics": (("of_groups", "rounds/round.py"), ("estimated", "rounds/groups.py")),
    "rollouts written": (("_keep", "training/datamodule.py"),),
    "rows of micro-batches": (("micro_batches", "rounds/batches.py"),),
    "checks that numbers are finite": (
        ("check", "training/step_guard.py"),
        ("check_weights", "training/step_guard.py"),
    ),
}
"""Part -> the functions that it is made of."""
DATA = {
    "science": ("science/physics.train.jsonl", "science/physics.test.jsonl"),
    "tool use": ("tooluse/train.jsonl", "tooluse/test.jsonl"),
}
CONFIGS = {
    "quickstart": QUICKSTART,
    "science": "configs/smollm2_science.yaml",
    "tool use": "configs/smollm2_tool_use.yaml",
}

ROUNDS = {"quickstart": 10, "science": 1, "tool use": 1}
"""How many rounds are looked at."""


def part_of(frame: FrameType | None) -> str | None:
    """Return the innermost part that a frame is in, ``all else`` of a round; None outside of rounds."""
    innermost = "all else"
    while frame is not None:
        code = frame.f_code
        if _is_one_of(code.co_name, code.co_filename, ROUND):
            return innermost
        if innermost == "all else":
            found = (part for part, functions in PARTS.items() if _is_one_of(code.co_name, code.co_filename, functions))
            innermost = next(found, innermost)
        frame = frame.f_back
    return None


def _is_one_of(name: str, path: str, functions: tuple[Within, ...]) -> bool:
    return any(name == function and file in path for function, file in functions)


@contextmanager
def looks() -> Iterator[dict[str, float]]:
    """Give the CPU seconds of every part that the main thread is found in, :data:`INTERVAL` after :data:`INTERVAL`."""
    found: dict[str, float] = defaultdict(float)
    last = time.process_time()

    def look(number: int, frame: FrameType | None) -> None:
        nonlocal last
        now = time.process_time()
        if (part := part_of(frame)) is not None:
            found[part] += now - last
        last = now

    before = signal.signal(signal.SIGPROF, look)
    signal.setitimer(signal.ITIMER_PROF, INTERVAL, INTERVAL)
    try:
        yield found
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def options_of(name: str, data: Path | None) -> list[str]:
    """Return the options of ``caopd fit`` for a config by its name here."""
    options = ["--config", CONFIGS[name], f"--trainer.max_epochs={ROUNDS[name]}", "--trainer.limit_val_batches=0"]
    options += ["--trainer.enable_progress_bar=false", "--data.engine=caopd.rollouts.TransformersEngine"]
    if name in DATA:
        assert data is not None
        train, test = (str(data / file) for file in DATA[name])
        files = json.dumps({"train": train, "validation": test, "test": test})
        options += [f"--data.task.init_args.source.files={files}"]
    return options


def profile(options: list[str], directory: Path) -> None:
    """Run ``caopd fit`` in this process, and write what it was found at into its folder."""
    with looks() as found:
        status = caopd(["fit", *options, f"--trainer.default_root_dir={directory}"])
    if status:
        raise SystemExit(status)
    (directory / "parts.json").write_text(json.dumps(found))


def seconds_of(folder: Path) -> dict:
    """Return the CPU seconds of each part in a folder's run."""
    return {"seconds": json.loads((folder / "parts.json").read_text())}


def page(record: dict) -> str:
    """Return the shares as Markdown."""
    runs, machine = record["runs"], record["environment"]
    lines = [
        "# Where a round goes",
        "",
        f"`python benchmarks/round_parts.py --data DIR`, {machine['timestamp'][:10]}, torch "
        f"{machine['versions']['torch']}: shares of CPU time on one thread.",
        "",
        f"| part | {' | '.join(f'{name} (`{CONFIGS[name]}`)' for name in runs)} |",
        "|---|" + "---|" * len(runs),
    ]
    totals = {name: sum(run["seconds"].values()) for name, run in runs.items()}
    for part in (*PARTS, "all else"):
        shares = [f"{run['seconds'].get(part, 0) / totals[name]:.3f}" for name, run in runs.items()]
        lines.append(f"| {part} | {' | '.join(shares)} |")
    seconds = [f"{total / ROUNDS[name]:.1f}" for name, total in totals.items()]
    return "\n".join([*lines, f"| CPU seconds of a round | {' | '.join(seconds)} |"]) + "\n"


def main() -> None:
    """Look at what is missing and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--data", type=Path, help="folder that holds science/ and tooluse/")
    parser.add_argument("--configs", nargs="+", choices=list(CONFIGS), default=list(CONFIGS))
    parser.add_argument("--directory", type=Path, default=ROOT / "runs" / "benchmark-round-parts")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "round_parts.json")
    parser.add_argument("--profile", type=Path, help=argparse.SUPPRESS)  # of this script's own processes
    asked, options = parser.parse_known_args()
    if asked.profile:
        profile(options, asked.profile)
        return
    directory = asked.directory.absolute()
    directory.mkdir(parents=True, exist_ok=True)
    data = asked.data.absolute() if asked.data else None
    names = [name for name in asked.configs if data or name not in DATA]
    runs = []
    for name in names:
        arguments = ("benchmarks/round_parts.py", "--profile", "{run}", *options_of(name, data))
        runs.append(Run(name.replace(" ", "-"), arguments, CONFIGS[name]))
    found = all_or_exit(run_all([partial(run_once, run, directory, seconds_of) for run in runs], 1))
    record = {"environment": environment(1), "runs": dict(zip(names, found, strict=True))}
    asked.output.write_text(json.dumps(record, indent=1) + "\n")
    asked.output.with_suffix(".md").write_text(page(record))


if __name__ == "__main__":
    main()
