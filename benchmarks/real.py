"""A real language model on this machine's CPU: ``tox -e real``, which is ``python benchmarks/real.py``.

SmolLM2-135M-Instruct learns to answer sums in the format (SFT), and then which sums it gets right (CaOPD): the commands
of the command line that do it, each shown before it runs, and then a table and a figure of what came, on held-out
questions. What is finished is not done again, and a fit that was interrupted goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from caopd.plots.style import save_figure
from comparing.results import EVENTS
from fits import ROOT, checkpoint_of, environment
from reckoning.figure import kinds_figure
from reckoning.page import SHOWN, interval, table
from reckoning.results import TRAINED, measured, predictions_of
from reckoning.settings import CONFIG, SFT_CONFIG

BEFORE, AFTER = "after SFT", "after CaOPD"


def commands(directory: Path, asked: argparse.Namespace) -> dict[str, list[str]]:
    """Return name -> arguments of ``caopd``, in order; ``CHECKPOINT`` stands for the last one of the fit before.

    Args:
        directory: Of all files.
        asked: The sizes, and further options, that :func:`main` reads.
    """
    options, of_sft = ([f"--{each}" for each in given] for given in (asked.options, asked.sft_options))
    start = f"--model.source.name_or_path={directory / 'start'}"
    ours = ["--config", CONFIG, start, *options]
    quick = ["--trainer.limit_val_batches=0", "--ckpt_path=last"]

    def predict(name: str, *more: str) -> list[str]:
        folder = directory / name
        places = [f"--trainer.default_root_dir={folder}", f"--predictions.output={folder / 'predictions.jsonl'}"]
        sizes = [f"--data.task.num_test={asked.num_test}", "--data.evaluation.tasks={}"]
        return ["predict", *ours, *sizes, *places, *more]

    return {
        "sft": [
            *("fit", "--config", SFT_CONFIG, f"--trainer.default_root_dir={directory / 'sft'}"),
            *(*options, *of_sft, *quick),
        ],
        "export": ["export", "CHECKPOINT", str(directory / "start")],
        BEFORE: predict("before"),
        "caopd": [
            *(
                "fit",
                *ours,
                f"--trainer.max_epochs={asked.rounds}",
                f"--trainer.default_root_dir={directory / 'caopd'}",
            ),
            *quick,
        ],
        AFTER: predict("after", "--ckpt_path=CHECKPOINT"),
    }


def run(name: str, arguments: list[str], directory: Path, threads: int) -> float:
    """Run a command unless it has finished with these arguments, and return the seconds that it took.

    Args:
        name: Of its record.
        arguments: Of ``caopd``.
        directory: Of the record.
        threads: Of torch, and of a vLLM that shares the cores.

    Raises:
        SystemExit: With its status, if it fails.
    """
    finished = directory / f"{name.replace(' ', '-')}.json"
    if finished.is_file() and (record := json.loads(finished.read_text()))["arguments"] == arguments:
        return record["seconds"]
    print(f"\n$ caopd {shlex.join(arguments)}", flush=True)
    start = time.perf_counter()
    environ = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    status = subprocess.run([sys.executable, "-m", "caopd", *arguments], cwd=ROOT, env=environ, check=False).returncode
    if status:
        sys.exit(status)
    seconds = time.perf_counter() - start
    finished.write_text(json.dumps({"arguments": arguments, "seconds": seconds}))
    return seconds


def page(record: Mapping) -> str:
    """Return what came, as Markdown."""
    minutes = {name: f"{seconds / 60:.0f}" for name, seconds in record["seconds"].items()}
    versions = record["environment"]["versions"]
    rows = [
        [event, name, *(interval(found["all"].get(measure)) for measure in SHOWN)]
        for event, methods in record["tasks"][TRAINED].items()
        for name, found in methods.items()
    ]
    return "\n\n".join(
        [
            "# A real language model on a laptop",
            f"`tox -e real`; {record['environment']['timestamp'][:10]}, {record['environment']['cpus']} CPU cores, "
            f"torch {versions['torch']}: {record['rounds']} rounds of CaOPD, {record['num_test']} held-out questions, "
            "95 % intervals.",
            table(["event", "", *SHOWN], rows),
            table(["minutes", *minutes], [[f"{sum(record['seconds'].values()) / 60:.0f} in all", *minutes.values()]]),
        ]
    )


def main() -> None:
    """Run what is missing, and write what came."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--directory", type=Path, default=ROOT / "runs" / "real")
    parser.add_argument("--rounds", type=int, default=40, help="of CaOPD")
    parser.add_argument("--num_test", type=int, default=200, help="held-out questions")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="by default as many as there are cores")
    parser.add_argument("--options", nargs="*", default=[], metavar="NAME=VALUE", help="of all commands but the export")
    parser.add_argument("--sft_options", nargs="*", default=[], metavar="NAME=VALUE", help="of the first fit alone")
    parser.add_argument("--output", type=Path, help="record, page and figure: OUTPUT.json, .md and .svg")
    asked = parser.parse_args()
    directory = asked.directory.absolute()
    directory.mkdir(parents=True, exist_ok=True)
    seconds, folder = {}, directory
    for name, arguments in commands(directory, asked).items():
        last = str(checkpoint_of(folder)) if any("CHECKPOINT" in each for each in arguments) else ""
        seconds[name] = run(name, [each.replace("CHECKPOINT", last) for each in arguments], directory, asked.threads)
        folder = directory / name if arguments[0] == "fit" else folder
    places = {BEFORE: "before", AFTER: "after"}
    tasks = {
        event: {
            name: {"all": measured(predictions_of(directory / place, TRAINED, event))} for name, place in places.items()
        }
        for event in EVENTS
    }
    record = {
        "environment": environment(1) | {"threads_per_process": asked.threads},
        **{"rounds": asked.rounds, "num_test": asked.num_test, "options": asked.options},
        "seconds": seconds,
        "tasks": {TRAINED: tasks},
    }
    output = asked.output or directory / "result"
    output.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
    output.with_suffix(".md").write_text(page(record) + "\n")
    save_figure(kinds_figure(record), output, (".svg",))
    print(f"\n{page(record)}\n\nfigure, confidence against success by kind: {output.with_suffix('.svg')}")


if __name__ == "__main__":
    main()
