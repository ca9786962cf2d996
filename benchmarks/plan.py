"""``caopd plan`` against measured runs; writes ``benchmarks/results/plan.json`` and ``.md``.

Every case is planned and then run by ``caopd fit``, each in a fresh process with one thread. Compared is the peak of
the resident set beyond the interpreter and its libraries, which the plan states as a part of its own.

What was measured stays in ``--directory``: remove it to measure anew.

    python benchmarks/plan.py --science data/science
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from caopd.models.tiny import build_model, build_tokenizer
from fits import ROOT, environment

RESULTS = Path(__file__).parent / "results"
MIB = 2**20
LIBRARIES = "interpreter and libraries"
SILENT = ["--trainer.max_epochs=1", "--trainer.enable_progress_bar=false", "--trainer.num_sanity_val_steps=0"]
UNTRAINED = [
    *("--config", "configs/quickstart.yaml", "--model.method=SDFT", "--data.batch_size=256"),
    *("--data.task.num_train=64", "--data.task.num_validation=8", "--data.task.num_test=8"),
    *("--data.round.num_prompts_per_round=64", "--data.round.num_rollouts=8", "--data.round.num_trained_rollouts=8"),
    *("--data.evaluation.batch_size=8", "--trainer.limit_val_batches=0"),
]
SCIENCE = [
    *("--config", "configs/smollm2_science.yaml", "--trainer.accumulate_grad_batches=1", "--data.evaluation.tasks={}"),
    *("--data.round.num_prompts_per_round=2", "--data.round.num_rollouts=2", "--data.sampling.max_new_tokens=16"),
    *(
        "--data.engine=caopd.rollouts.TransformersEngine",
        "--data.batch_size=2",
        "--data.evaluation.num_examples=2",
        "--trainer.limit_val_batches=0",
    ),
]


def cases(directory: Path, science: Path | None) -> dict[str, list[str]]:
    """Return each case's options of ``caopd fit``, and make the models that they name."""
    models = {"embedded architecture, 4M": (256, 6), "embedded architecture, 20M": (512, 8)}
    found = {}
    for name, (width, num_layers) in models.items():
        folder = directory / f"width{width}"
        if not folder.exists():
            torch.manual_seed(0)
            tokenizer = build_tokenizer()
            build_model(tokenizer, width, num_layers).save_pretrained(folder)
            tokenizer.save_pretrained(folder)
        found[name] = [*UNTRAINED, f"--model.source.name_or_path={folder}"]
    small = f"--model.source.name_or_path={directory / 'width256'}"
    found["4M, gradient checkpointing"] = [*UNTRAINED, small, "--model.source.gradient_checkpointing=true"]
    if science is not None:
        rows = directory / "two.jsonl"  # so that the round trains on all rows that the plan measures
        with (science / "physics.train.jsonl").open() as file:
            rows.write_text("".join(sorted(file, key=len)[:2]))
        splits = [f"--data.task.source.files.{split}={rows}" for split in ("train", "validation", "test")]
        found["SmolLM2-135M"] = [*SCIENCE, *splits]
    return found


def peak_of(arguments: list[str], log: Path) -> tuple[float, float]:
    """Run the command and return the peak of its resident set in bytes, and its seconds of wall time."""
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    start = time.perf_counter()
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "caopd", *arguments],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environ,
            cwd=ROOT,
            start_new_session=True,  # where the scheduler shares by session, several runs get several shares
        )
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(arguments)} ended with {process.returncode}; see {log}")
    return usage.ru_maxrss * 1024.0, time.perf_counter() - start


def plan_of(options: list[str]) -> dict:
    """Return the plan of some options of ``caopd fit``."""
    command = [sys.executable, "-m", "caopd", "plan", *options, "--json"]
    environ = {**os.environ, "OMP_NUM_THREADS": "1"}
    return json.loads(subprocess.run(command, env=environ, cwd=ROOT, capture_output=True, text=True, check=True).stdout)


def measured(name: str, options: list[str], directory: Path) -> dict:
    """Return the peak of a fit, measured once for the same options."""
    file, log = directory / f"{name}.json", directory / f"{name}.log"
    record = json.loads(file.read_text()) if file.is_file() else {}
    if record.get("options") != options:
        peak, seconds = peak_of(["fit", *options, f"--trainer.default_root_dir={directory / 'runs' / name}"], log)
        record = {"options": options, "peak_bytes": peak, "wall_seconds": round(seconds, 1)}
        file.write_text(json.dumps(record, indent=2))
    return record


def compared(name: str, options: list[str], directory: Path) -> dict:
    """Return what is planned and what was measured of a case."""
    plan, record = plan_of(options), measured(name, options, directory)
    parts = {part["name"]: part["training"] for part in plan["memory_bytes"]}
    planned, found = (each["peak_bytes"] - parts[LIBRARIES] for each in (plan, record))
    return {
        "case": name,
        "libraries_mib": round(parts[LIBRARIES] / MIB, 1),
        "planned_mib": round(planned / MIB, 1),
        "measured_mib": round(found / MIB, 1),
        "error": round(planned / found - 1, 3),
        "wall_seconds": record["wall_seconds"],
        "training_parts_mib": {part: round(size / MIB, 1) for part, size in parts.items()},
    }


def page(record: dict) -> str:
    """Return the results as a page."""
    lines = [
        "# `caopd plan` against measured runs",
        "",
        "Peak of the resident set beyond interpreter and libraries, MiB. `python benchmarks/plan.py`",
        "",
        "| case | libraries | planned | measured | error |",
        "|---|---|---|---|---|",
    ]
    for case in record["cases"]:
        sizes = [f"{case[name]:,.0f}" for name in ("libraries_mib", "planned_mib", "measured_mib")]
        lines.append(f"| {' | '.join([case['case'], *sizes])} | {case['error']:+.0%} |")
    versions = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    lines += ["", f"{record['timestamp']}, {record['machine']}, {record['cpus']} CPUs, one thread. {versions}.", ""]
    return "\n".join(lines)


def main() -> None:
    """Run every case that has no record yet, plan all, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--directory", type=Path, default=Path("runs/plan"), help="of models, logs and records")
    parser.add_argument("--science", type=Path, help="folder of the science data; without it SmolLM2 is left out")
    parser.add_argument("--processes", type=int, default=1, help="runs at once")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    directory = options.directory.resolve()
    directory.mkdir(parents=True, exist_ok=True)
    every = cases(directory, options.science and options.science.resolve())
    jobs = [(name, [*given, *SILENT], directory) for name, given in every.items()]
    with ThreadPoolExecutor(options.processes) as pool:
        for record in pool.map(lambda job: measured(*job), jobs):
            print(record, flush=True)
    found = [compared(*job) for job in jobs]
    result = {**environment(options.processes), "cases": found}
    (options.output / "plan.json").write_text(json.dumps(result, indent=2) + "\n")
    (options.output / "plan.md").write_text(page(result))


if __name__ == "__main__":
    main()
