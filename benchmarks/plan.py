"""``caopd plan`` against measured runs; writes ``benchmarks/results/plan.json`` and ``.md``.

Every case is planned and then run by ``caopd fit``, each in a fresh process with one thread. Compared is the peak of
the resident set beyond the interpreter and its libraries, which the plan states as a part of its own.

What was measured stays in ``--directory``: remove it to measure anew.

    python benchmarks/plan.py
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
from curving.works import write_model, write_rows
from fits import ROOT, environment
from peering.clock import high_water
from sharded_memory import STRATEGY, write_models

RESULTS = Path(__file__).parent / "results"
MIB = 2**20
LIBRARIES = "interpreter and libraries"
SEEN = ("embedded architecture, 4M", "4M, gradient checkpointing")
"""Cases after which the share that the C library keeps, and the gradients of one layer, were chosen."""
SILENT = ["--trainer.max_epochs=1", "--trainer.enable_progress_bar=false", "--trainer.num_sanity_val_steps=0"]
UNTRAINED = [
    *("--config", "configs/quickstart.yaml", "--model.method=SDFT", "--data.batch_size=256"),
    *("--data.task.num_train=64", "--data.task.num_validation=8", "--data.task.num_test=8"),
    *("--data.round.num_prompts_per_round=64", "--data.round.num_rollouts=8", "--data.round.num_trained_rollouts=8"),
    *("--data.evaluation.batch_size=8", "--trainer.limit_val_batches=0"),
]
GROUPS = [
    *("--config", "configs/smollm2_science.yaml", "--model.method=SDFT", "--trainer.accumulate_grad_batches=1"),
    *("--data.engine=caopd.rollouts.TransformersEngine", "--data.round.num_trained_rollouts=null"),
    *("--data.evaluation.tasks={}", "--data.evaluation.num_examples=2", "--trainer.limit_val_batches=0"),
]
"""Questions whose rollouts are all trained on, and share their prompts."""
SHARDED = [
    *("--config", "configs/quickstart.yaml", "--data.engine=caopd.rollouts.TransformersEngine"),
    *("--model.source.attn_implementation=sdpa", "--data.task.num_train=64", "--trainer.callbacks=null"),
    "--data.round.num_trained_rollouts=null",
    *("--trainer.enable_checkpointing=false", "--trainer.limit_val_batches=0", "--trainer.inference_mode=false"),
    f"--trainer.strategy={STRATEGY}",
    "--trainer.strategy.tensor_parallel_size=1",
]
"""Processes that share an untrained model of 46 million weights by FSDP2: what is measured is the largest of them."""


def cases(directory: Path) -> dict[str, list[str]]:
    """Return each case's options of ``caopd fit``, and make the models and rows that they name."""
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
    return found | grouped_cases(directory) | sharded_cases(directory)


def grouped_cases(directory: Path) -> dict[str, list[str]]:
    """Return the cases whose prompts are as long as their completions or longer."""
    model = write_model(directory / "reader", width=256, num_layers=6, vocabulary=8192)
    equal = [*GROUPS, model, *write_rows(directory / "equal.jsonl", [600] * 8)]
    uneven = [*GROUPS, model, *write_rows(directory / "uneven.jsonl", range(100, 900, 50))]
    short = [*GROUPS, *write_rows(directory / "short.jsonl", [70] * 4)]
    return {
        "4M, 8 prompts of 600 tokens, G = 8": [*equal, *sizes(8, 8, 48, batch=32)],
        "4M, 16 prompts of 100 to 850 tokens, G = 4, tokens_per_batch = 4000": [
            *uneven,
            *sizes(16, 4, 48, batch=64),
            "--data.tokens_per_batch=4000",
        ],
        "SmolLM2-135M, 4 prompts of 110 tokens, G = 4": [*short, *sizes(4, 4, 48, batch=4)],
    }


def sharded_cases(directory: Path) -> dict[str, list[str]]:
    """Return the cases whose model two and four processes share."""
    folder = directory / "sharded"
    if not folder.exists():
        write_models(folder)
    model = f"--model.source.name_or_path={folder / 'float32'}"
    return {
        f"46M in {number} shards, G = 8": [
            *SHARDED,
            model,
            *sizes(16, 8, 32, batch=32 // number),
            f"--trainer.devices={number}",
            f"--trainer.strategy.data_parallel_size={number}",
        ]
        for number in (2, 4)
    }


def sizes(num_prompts: int, group: int, new_tokens: int, batch: int) -> list[str]:
    """Return the options of a round's size."""
    return [
        f"--data.round.num_prompts_per_round={num_prompts}",
        f"--data.round.num_rollouts={group}",
        f"--data.sampling.max_new_tokens={new_tokens}",
        f"--data.batch_size={batch}",
    ]


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
    if usage.ru_maxrss / 1024 <= high_water():
        sys.exit(f"{log} took no more memory than this process, whose own peak its record begins with: run it alone")
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
        "By *independent* cases nothing was chosen that the plan computes with.",
        "",
        "| case | libraries | planned | measured | error | independent |",
        "|---|---|---|---|---|---|",
    ]
    for case in record["cases"]:
        sizes = [f"{case[name]:,.0f}" for name in ("libraries_mib", "planned_mib", "measured_mib")]
        independent = "no" if case["case"] in SEEN else "yes"
        lines.append(f"| {' | '.join([case['case'], *sizes])} | {case['error']:+.0%} | {independent} |")
    versions = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    lines += ["", f"{record['timestamp']}, {record['machine']}, {record['cpus']} CPUs, one thread. {versions}.", ""]
    return "\n".join(lines)


def main() -> None:
    """Run every case that has no record yet, plan all, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--directory", type=Path, default=Path("runs/plan"), help="of models, logs and records")
    parser.add_argument("--processes", type=int, default=1, help="runs at once")
    parser.add_argument("--cases", help="only those with this text in their names; the record keeps the others")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    directory = options.directory.resolve()
    directory.mkdir(parents=True, exist_ok=True)
    every = {name: given for name, given in cases(directory).items() if (options.cases or "") in name}
    jobs = [(name, [*given, *SILENT], directory) for name, given in every.items()]
    with ThreadPoolExecutor(options.processes) as pool:
        for record in pool.map(lambda job: measured(*job), jobs):
            print(record, flush=True)
    found = [compared(*job) for job in jobs]
    file = options.output / "plan.json"
    earlier = json.loads(file.read_text())["cases"] if options.cases else []
    here = {case["case"] for case in found}
    result = {**environment(options.processes), "cases": [case for case in earlier if case["case"] not in here] + found}
    file.write_text(json.dumps(result, indent=2) + "\n")
    (options.output / "plan.md").write_text(page(result))


if __name__ == "__main__":
    main()
