"""The quickstart and its baseline over several seeds: ``python benchmarks/quickstart.py``.

All other methods are in ``comparison.py``.

Runs ``caopd fit --config configs/quickstart.yaml`` for every method and seed (questions, order and rollouts all
follow the seed), one process each, and records the validation before and after training. Finished runs are kept: a
second call goes on where the first one ended.
"""

from __future__ import annotations

import argparse
import json
import statistics
from functools import partial
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from comparing.results import EVENTS, known, mean_and_spread
from fits import QUICKSTART, ROOT, all_or_exit, environment, fit, run_all, run_once

METHODS = {"SDFT": ["--model.method=SDFT"], "CaOPD": []}
SHOWN = ("accuracy", "ece", "brier", "ocg", "spr", "auroc", "mean_confidence", "format_adherence")


def run_one(method: str, seed: int, num_rounds: int, directory: Path) -> dict:
    """Return the record of one fit; run it unless an earlier call has."""
    options = [f"--data.seed={seed}", f"--data.task.seed={seed}", *METHODS[method]]
    options += [f"--trainer.max_epochs={num_rounds}", f"--trainer.check_val_every_n_epoch={max(1, num_rounds // 4)}"]
    return {"method": method, "seed": seed, **run_once(fit(f"{method}-{seed}", options), directory)}


def save_diagrams(directory: Path, methods: list[str], seed: int, images: Path, name: str) -> None:
    """Save the reliability diagrams that TensorBoard shows: of the base model, and of each method's last validation."""
    images.mkdir(parents=True, exist_ok=True)
    for method in methods:
        (events_file,) = (directory / f"{method}-{seed}").rglob("events*")
        events = EventAccumulator(str(events_file), size_guidance={"images": 0})
        events.Reload()
        for event in EVENTS:
            diagrams = events.Images(f"val/{event}/reliability")
            (images / f"{name}-base-{event}.png").write_bytes(diagrams[0].encoded_image_string)
            (images / f"{name}-{method.lower()}-{event}.png").write_bytes(diagrams[-1].encoded_image_string)


def summary(records: list[dict], methods: list[str], event: str) -> str:
    """Return a Markdown table of one event: mean and standard deviation over the seeds, then every run."""
    lines = [f"| {event} | seed | " + " | ".join(SHOWN) + " | seconds |", "|---|---|" + "---|" * (len(SHOWN) + 1)]
    rows = {"base": [{**r, "final": r["initial"], "seconds": 0.0} for r in records if r["method"] == methods[0]]}
    rows |= {method: [r for r in records if r["method"] == method] for method in methods}
    for name, runs in rows.items():
        cells = [mean_and_spread(known([run["final"][event] for run in runs], key)) for key in SHOWN]
        seconds = f"{statistics.median(run['seconds'] for run in runs):.0f} (median)" if name != "base" else ""
        lines.append(f"| **{name}** | all | " + " | ".join(cells) + f" | {seconds} |")
    for name, runs in rows.items():
        for run in sorted(runs, key=lambda run: run["seed"]):
            cells = [mean_and_spread(known([run["final"][event]], key)) for key in SHOWN]
            seconds = f"{run['seconds']:.0f}" if name != "base" else ""
            lines.append(f"| {name} | {run['seed']} | " + " | ".join(cells) + f" | {seconds} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=["SDFT", "CaOPD"])
    parser.add_argument("--name", default="quickstart", help="of the result files")
    parser.add_argument("--seeds", type=int, nargs="+", default=[11, 12, 13, 14, 15])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--directory", type=Path, default=ROOT / "runs" / "benchmark-quickstart")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--images", type=Path, default=ROOT / "docs" / "images")
    parser.add_argument("--rounds", type=int, default=100, help="of every run; the quickstart's are 100")
    arguments = parser.parse_args()
    arguments.directory.mkdir(parents=True, exist_ok=True)
    found = run_all(
        [
            partial(run_one, method, seed, arguments.rounds, arguments.directory)
            for seed in arguments.seeds
            for method in arguments.methods
        ],
        arguments.processes,
    )
    records = all_or_exit(found)
    machine = environment(arguments.processes) | {"config": QUICKSTART}
    output = arguments.results / arguments.name
    output.with_suffix(".json").write_text(json.dumps({"environment": machine, "runs": records}, indent=2) + "\n")
    tables = [
        f"## {event}: {meaning}\n\n{summary(records, arguments.methods, event)}" for event, meaning in EVENTS.items()
    ]
    chosen = ["--methods", *arguments.methods, "--name", arguments.name, "--seeds", *map(str, arguments.seeds)]
    call = " ".join(["python benchmarks/quickstart.py", *chosen])
    output.with_suffix(".md").write_text(
        f"# {', '.join(arguments.methods)} on the embedded model\n\n"
        f"`{call}`; {machine['cpus']} CPU cores, {arguments.processes} runs at a time, "
        f"one thread each; {machine['timestamp'][:10]}. 2,000 held-out questions; mean ± standard deviation over "
        "the seeds. Nothing was tuned on these seeds.\n\n" + "\n\n".join(tables) + "\n"
    )
    save_diagrams(arguments.directory, arguments.methods, arguments.seeds[0], arguments.images, arguments.name)
    print("\n\n".join(tables))


if __name__ == "__main__":
    main()
