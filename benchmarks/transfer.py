"""What training on one task does to others: ``python benchmarks/transfer.py``.

Continual learning (``configs/task_sequence.yaml``: odd digits, then high ones) and out of distribution
(``configs/out_of_distribution.yaml``: trained on odd digits, tested on all kinds) on the embedded model, for every
method and seed, one process each. With ``--data DIR --checkpoints NAME=PATH ...`` also SmolLM2 on the questions of
every science (``configs/smollm2_science.yaml``): PATH is a model directory, or, as MODEL,CKPT, a checkpoint behind the
model that it was trained from. Records everything and prints the tables. Finished runs are kept: a second call goes on
where the first one ended.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import yaml

from caopd.types import SAMPLED
from comparing.results import EVENTS

ROOT = Path(__file__).parent.parent
METHODS = {"SDFT": ["--model.method=SDFT"], "CaOPD": []}
SHOWN = ("accuracy", "mean_confidence", "ece", "brier", "ocg", "auroc")
# So few completions are not worth the start of vLLM.
ENGINE = {"class_path": "caopd.rollouts.TransformersEngine", "init_args": {"batch_size": 40}}
NUM_SAMPLES = 8
"""Sampled completions of every test question: also for pass@k and the vote."""
SCIENCES = ("physics", "chemistry", "biology", "material")


def caopd(arguments: list[str], directory: Path) -> float:
    """Run the command in its own process, unless it has finished before, and return its seconds."""
    done = directory.with_suffix(".seconds")
    if not done.exists():
        start = time.perf_counter()
        more = ["--trainer.enable_progress_bar=false", f"--trainer.default_root_dir={directory}"]
        with directory.with_suffix(".log").open("w") as output:
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            command = [sys.executable, "-m", "caopd", *arguments, *more]
            subprocess.run(command, check=True, stdout=output, stderr=subprocess.STDOUT, env=environment)
        done.write_text(str(time.perf_counter() - start))
    return round(float(done.read_text()), 1)


def found(directory: Path, pattern: str) -> Path:
    return max(directory.rglob(pattern), key=lambda path: path.stat().st_mtime)


def seeded_config(name: str, seed: int, directory: Path) -> Path:
    """Write a config whose questions, order and rollouts all follow the seed."""

    def seeded(value: object) -> object:
        if isinstance(value, list):
            return [seeded(each) for each in value]
        if not isinstance(value, dict):
            return value
        result = {key: seeded(each) for key, each in value.items()}
        if value.get("class_path") == "caopd.tasks.DrawTask":
            result["init_args"]["seed"] = seed
        return result

    config = seeded(yaml.safe_load((ROOT / "configs" / f"{name}.yaml").read_text()))
    config["data"]["seed"] = seed
    path = directory / f"{name}-{seed}.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


def run_task_sequence(method: str, seed: int, directory: Path) -> dict:
    run = directory / f"task_sequence-{method}-{seed}"
    seconds = caopd(["fit", f"--config={seeded_config('task_sequence', seed, directory)}", *METHODS[method]], run)
    return {"method": method, "seed": seed, "seconds": seconds, **json.loads(found(run, "stages.json").read_text())}


def run_out_of_distribution(method: str, seed: int, directory: Path) -> dict:
    config = f"--config={seeded_config('out_of_distribution', seed, directory)}"
    run = directory / f"ood-{method}-{seed}"
    seconds = caopd(["fit", config, *METHODS[method]], run)
    base = directory / f"ood-base-{method}-{seed}"
    several = f"--data.evaluation.num_samples={NUM_SAMPLES}"
    caopd(["test", config, *METHODS[method], several, f"--ckpt_path={found(run, '*.ckpt')}"], run)
    caopd(["test", config, *METHODS[method], several], base)
    results = {"before": base, "after": run}
    tasks = {moment: json.loads(found(path, "test.json").read_text())["tasks"] for moment, path in results.items()}
    return {"method": method, "seed": seed, "seconds": seconds, **tasks}


def run_real(name: str, path: str, data: Path, num_examples: int, directory: Path) -> dict:
    """Test a model on the first questions of every science."""
    model, _, checkpoint = path.partition(",")

    def files(science: str) -> dict:
        return {split: str(data / "science" / f"{science}.test.jsonl") for split in ("train", "validation", "test")}

    def task(science: str) -> dict:
        return {"class_path": "caopd.tasks.ScienceQA", "init_args": {"source": {"files": files(science)}}}

    arguments = [
        *("test", f"--config={ROOT / 'configs' / 'smollm2_science.yaml'}", f"--model.source.name_or_path={model}"),
        f"--data.task.init_args.source.files={json.dumps(files(SCIENCES[0]))}",
        f"--data.evaluation.tasks={json.dumps({science: task(science) for science in SCIENCES[1:]})}",
        *(f"--data.evaluation.num_examples={num_examples}", f"--data.engine={json.dumps(ENGINE)}"),
        *([f"--ckpt_path={checkpoint}"] if checkpoint else []),
    ]
    run = directory / f"real-{name}"
    seconds = caopd(arguments, run)
    return {"name": name, "seconds": seconds, "tasks": json.loads(found(run, "test.json").read_text())["tasks"]}


def spread(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    return f"{statistics.mean(known):.3f}" + (f" ± {statistics.stdev(known):.3f}" if len(known) > 1 else "")


def table(columns: list[str], rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (columns, ["---"] * len(columns), *rows))


def stage_tables(runs: list[dict]) -> str:
    return "\n\n".join(_stages(runs, event) for event in EVENTS)


def _stages(runs: list[dict], event: str) -> str:
    matrix, lost = [], []
    for method in dict.fromkeys(run["method"] for run in runs):
        mine = [run for run in runs if run["method"] == method]
        for row, stage in enumerate(mine[0]["stages"]):
            for task in stage["tasks"]:
                measured = [run["stages"][row]["tasks"][task][event] for run in mine]
                cells = [spread([values[name] for values in measured]) for name in SHOWN]
                matrix.append([method, stage["stage"], task, *cells])
        for task, events in mine[0]["forgetting"].items():
            cells = [spread([run["forgetting"][task][event][name] for run in mine]) for name in events[event]]
            lost.append([method, task, *cells])
    return "\n\n".join(
        [
            table([f"{event}, method", "after stage", "task", *SHOWN], matrix),
            table([f"{event}, method", "task", "accuracy drop", "ECE rise", "Brier rise"], lost),
        ]
    )


def ood_tables(runs: list[dict]) -> str:
    tables = []
    for event in EVENTS:
        rows = [
            [*start, *(spread([part[event][name] for part in parts]) for name in SHOWN)]
            for start, parts in _tested(runs)
        ]
        tables.append(table([f"{event}, method", "", "task", *SHOWN], rows))
    wanted = [(SAMPLED, f"pass_at_{NUM_SAMPLES}"), ("vote", "accuracy")]  # of both parts, which judge the same answer
    wanted += [(part, name) for part in ("vote", "vote_stated") for name in ("ece", "brier", "auroc")]
    rows = [
        [*start, *(spread([part[group][name] for part in parts]) for group, name in wanted)]
        for start, parts in _tested(runs)
    ]
    of_vote = [f"{part} {name}" for part in ("agreement", "stated") for name in ("ece", "brier", "auroc")]
    columns = ["vote of sampled, method", "", "task", f"sampled pass@{NUM_SAMPLES}", "majority accuracy", *of_vote]
    return "\n\n".join([*tables, table(columns, rows)])


def _tested(runs: list[dict]) -> list[tuple[list[str], list[dict]]]:
    """Return the cells that a row begins with, and the parts of every seed's test."""
    found = []
    for method in dict.fromkeys(run["method"] for run in runs):
        mine = [run for run in runs if run["method"] == method]
        for moment in ("before", "after"):
            found += [([method, moment, task], [run[moment][task] for run in mine]) for task in mine[0][moment]]
    return found


def real_tables(runs: list[dict]) -> str:
    names = ("n", "format_adherence", *SHOWN)
    tables = []
    for event in EVENTS:
        rows = [
            [run["name"], task, *(spread([parts[event][name]]) for name in names)]
            for run in runs
            for task, parts in run["tasks"].items()
        ]
        tables.append(table([f"{event}, model", "science", *names], rows))
    return "\n\n".join(tables)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--seeds", type=int, nargs="*", default=[11, 12])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--data", type=Path, help="folder that holds science/")
    parser.add_argument("--checkpoints", nargs="*", default=[], metavar="NAME=PATH")
    parser.add_argument("--num_examples", type=int, default=40, help="questions per science")
    parser.add_argument("--directory", type=Path, default=ROOT / "runs" / "benchmark-transfer")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "transfer.json")
    arguments = parser.parse_args()
    directory = arguments.directory.absolute()
    directory.mkdir(parents=True, exist_ok=True)
    record = json.loads(arguments.output.read_text()) if arguments.output.exists() else {}
    pairs = [(method, seed, directory) for seed in arguments.seeds for method in arguments.methods]
    with ThreadPoolExecutor(arguments.processes) as pool:
        for name, run in (("task_sequence", run_task_sequence), ("out_of_distribution", run_out_of_distribution)):
            if pairs:
                record[name] = list(pool.map(lambda pair, run=run: run(*pair), pairs))
    for each in arguments.checkpoints:
        name, _, path = each.partition("=")
        result = run_real(name, path, arguments.data.absolute(), arguments.num_examples, directory)
        record["real"] = [run for run in record.get("real", []) if run["name"] != name] + [result]
    record |= {
        "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpus": os.cpu_count(),
        "processes": arguments.processes,
        "versions": {name: version(name) for name in ("torch", "lightning", "transformers", "caopd")},
    }
    arguments.output.write_text(json.dumps(record, indent=2) + "\n")
    for name, tables in (("task_sequence", stage_tables), ("out_of_distribution", ood_tables), ("real", real_tables)):
        if record.get(name):
            print(f"## {name}\n\n{tables(record[name])}\n")


if __name__ == "__main__":
    main()
