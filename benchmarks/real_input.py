"""A real language model on real questions: ``python benchmarks/real_input.py --data DIR``.

SmolLM2-135M-Instruct on science questions and on tool-use requests: supervised fine-tuning in the answer format (SFT),
export, then CaOPD for some rounds, stopped and resumed from its checkpoint. Records times, metrics before and after,
sample completions and the reliability diagrams, all of both events: prints their tables, and writes them beside
``--output``. DIR holds ``science/`` and ``tooluse/`` in the form that docs/data.md
shows. Finished stages are kept: a second call goes on where the first one ended.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from comparing.results import EVENTS

ROOT = Path(__file__).parent.parent
TASKS = {
    "science": ("science/physics.train.jsonl", "science/physics.test.jsonl"),
    "tool_use": ("tooluse/train.jsonl", "tooluse/test.jsonl"),
}
CALIBRATION = ("ece", "ece_low", "ece_high", "noise_floor")
HEADLINE = ("accuracy", "mean_confidence", *CALIBRATION, "brier", "ocg", "spr", "auroc", "format_adherence", "n")


def caopd(arguments: list[str], directory: Path) -> float:
    """Run the command in its own process, unless it has finished before, and return its seconds."""
    done = directory.with_suffix(".seconds")
    if not done.exists():
        start = time.perf_counter()
        with directory.with_suffix(".log").open("w") as output:
            command = [sys.executable, "-m", "caopd", *arguments]
            subprocess.run(command, check=True, stdout=output, stderr=subprocess.STDOUT)
        done.write_text(str(time.perf_counter() - start))
    return round(float(done.read_text()), 1)


def events_of(run: Path) -> EventAccumulator:
    events = EventAccumulator(str(next(run.rglob("events*")).parent), size_guidance={"images": 0})
    events.Reload()
    return events


def scalars(run: Path) -> dict[str, list[float]]:
    """Return what the run logged, round by round."""
    events, names = events_of(run), ("train/", "rollout/", "time/", "val/")
    return {
        tag: [round(event.value, 6) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
        if tag.startswith(names)
    }


def newest(run: Path, pattern: str) -> Path:
    return max(run.rglob(pattern), key=lambda path: path.stat().st_mtime)


def run_task(name: str, asked: argparse.Namespace) -> dict:
    """Run the stages of a task and return the record."""
    data, output = asked.data.absolute(), asked.output.absolute()
    train, test = TASKS[name]
    root = asked.directory.absolute() / name
    root.mkdir(parents=True, exist_ok=True)
    files = {"train": str(data / train), "validation": str(data / test), "test": str(data / test)}
    given = [f"--data.task.init_args.source.files={json.dumps(files)}", "--trainer.enable_progress_bar=false"]
    given += asked.options
    sft, model, first, second = (root / stage for stage in ("sft", "model", "first", "resumed"))

    def fit(config: str, run: Path, *more: str) -> float:
        config_file = ROOT / "configs" / f"{config}.yaml"
        return caopd(["fit", f"--config={config_file}", *given, f"--trainer.default_root_dir={run}", *more], run)

    seconds = {"sft": fit(f"smollm2_{name}_sft", sft)}
    seconds["export"] = caopd(["export", str(newest(sft, "*.ckpt")), str(model)], model)
    source = f"--model.source.name_or_path={model}"
    seconds["first"] = fit(f"smollm2_{name}", first, source, f"--trainer.max_epochs={asked.rounds[0]}")
    checkpoint = f"--ckpt_path={newest(first, '*.ckpt')}"
    seconds["resumed"] = fit(f"smollm2_{name}", second, source, f"--trainer.max_epochs={asked.rounds[1]}", checkpoint)
    groups = [json.loads(line) for line in newest(second, "rollouts/*.jsonl").read_text().splitlines()[1:]]
    for run, which, when in ((first, 0, "before"), (second, -1, "after")):
        for event in EVENTS:
            image = events_of(run).Images(f"val/{event}/reliability")[which]
            (output.parent / f"{output.stem}_{name}_{when}_{event}.png").write_bytes(image.encoded_image_string)
    return {
        "seconds": seconds,
        "sft": json.loads(newest(sft, "metrics.json").read_text()),
        **json.loads(newest(second, "metrics.json").read_text()),
        "sft_run": scalars(sft),
        "first": scalars(first),
        "resumed": scalars(second),
        "samples": [
            {
                "id": group["example"]["id"],
                "mu_hat": group["mu_hats"][0],
                "text": group["rollouts"][0]["rollout"]["text"],
            }
            for group in groups[:3]
        ],
    }


def tables(record: dict) -> str:
    """Return a Markdown table for each event."""
    return "\n\n".join(f"## {event}: {meaning}\n\n{_table(record, event)}" for event, meaning in EVENTS.items())


def _table(record: dict, event: str) -> str:
    lines = [f"| {event} | " + " | ".join(HEADLINE) + " |", "|---|" + "---|" * len(HEADLINE)]
    for name, task in record["tasks"].items():
        rows = {"as it comes": task["sft"]["initial"], "after SFT": task["initial"], "after CaOPD": task["final"]}
        for stage, metrics in ((stage, measured[event]) for stage, measured in rows.items() if measured):
            values = [metrics[key] for key in HEADLINE]
            cells = ["-" if value is None else f"{value:.3f}".removesuffix(".000") for value in values]
            lines.append(f"| {name}, {stage} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--rounds", type=int, nargs=2, default=[8, 10], help="where the first run stops, and the end")
    parser.add_argument("--processes", type=int, default=1, help="tasks at a time")
    parser.add_argument("--directory", type=Path, default=ROOT / "runs" / "benchmark-real-input")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "real_input.json")
    parser.add_argument("options", nargs="*", help="of every `caopd fit`, behind `--`")
    asked = parser.parse_args()
    with ThreadPoolExecutor(asked.processes) as pool:
        tasks = dict(zip(asked.tasks, pool.map(lambda name: run_task(name, asked), asked.tasks), strict=True))
    record = {
        "tasks": tasks,
        "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": "smollm2-135m-instruct, float32",
        "cpus": os.cpu_count(),
        "versions": {name: version(name) for name in ("torch", "lightning", "transformers", "caopd")},
    }
    asked.output.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    asked.output.with_name(f"{asked.output.stem}_tables.md").write_text(
        f"# Real input, every table\n\n{tables(record)}\n"
    )
    print(tables(record))


if __name__ == "__main__":
    main()
