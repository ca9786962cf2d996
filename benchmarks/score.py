"""Time and peak memory of ``caopd score``; writes ``benchmarks/results/score.json`` and ``.md``.

Every case is one file, scored by the command in a fresh process with 1,000 resamples: reading, values, intervals
overall and in four categories, table and JSON included. Confidences are decimals in steps of 0.05 or arbitrary numbers,
3 % of them missing; ``responses`` are texts of some 500 characters that ``--task science_qa`` reads and verifies.

    python benchmarks/score.py --rows 1000000
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results"
CASES = [
    ("decimals", 1),
    ("decimals", 2),
    ("decimals", 8),
    ("arbitrary", 1),
    ("arbitrary", 2),
    ("arbitrary", 8),
    ("responses", 8),
]
REASONING = "<reasoning>\n" + "The energy of the bond follows from the heats of formation. " * 8 + "\n</reasoning>\n"


def write(path: Path, kind: str, per_prompt: int, rows: int) -> None:
    """Completions of prompts that differ in difficulty."""
    rng = np.random.default_rng(0)
    ability = np.repeat(rng.beta(3, 2, -(-rows // per_prompt)), per_prompt)[:rows]
    confidence = np.clip(ability + rng.normal(0, 0.1, rows), 0, 1)
    if kind != "arbitrary":
        confidence = (confidence * 20).round() / 20
    correct, missing = rng.random(rows) < ability, rng.random(rows) < 0.03
    columns = zip(confidence.tolist(), correct.tolist(), missing.tolist(), strict=True)
    with path.open("w", encoding="utf-8") as file:
        for number, (stated, right, silent) in enumerate(columns):
            prompt = number // per_prompt
            row: dict[str, Any] = {"prompt_id": f"question-{prompt}", "category": f"category-{prompt % 4}"}
            if kind == "responses":
                line = "" if silent else f"\nConfidence: {stated:.2f}"
                row |= {"response": f"{REASONING}<answer>\n{'B' if right else 'C'}\n</answer>{line}", "target": "B"}
            else:
                row |= {"confidence": None if silent else stated, "correct": int(right)}
            file.write(json.dumps(row) + "\n")


def score(path: Path, kind: str, threads: int) -> dict[str, Any]:
    """Run the command and return its seconds, its peak memory and some of its values."""
    output = path.with_suffix(".json")
    task = ["--task=science_qa"] if kind == "responses" else []
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "caopd", "score", str(path), f"--output={output}", *task],
        stdout=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
    )
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status != 0:
        sys.exit(f"caopd score failed on {path}")
    found = json.loads(output.read_text(encoding="utf-8"))
    return {
        "seconds": round(seconds, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_mib": round(usage.ru_maxrss / 1024),
        "prompts": found["n_prompts"],
        "ece": found["ece"],
        "auroc": found["auroc"],
    }


def describe_device() -> str:
    models = [x for x in Path("/proc/cpuinfo").read_text().splitlines() if x.startswith("model name")]
    return models[0].split(":", 1)[1].strip() if models else platform.machine()


def table(record: dict[str, Any]) -> str:
    lines = [
        "# Scoring saved predictions",
        "",
        f"`python benchmarks/score.py --rows {record['rows']}`: {record['device']}, {record['cpus']} cores, "
        f"{record['threads']} thread, load average {record['load_before']} at the start (other jobs), torch "
        f"{record['versions']['torch']}, numpy {record['versions']['numpy']}, {record['timestamp']}. "
        f"{record['rows']:,} lines, 1,000 resamples, overall and four categories; a fresh process each.",
        "",
        "| confidences | lines per prompt | seconds | CPU seconds | peak, MiB | ECE [95 % interval] |",
        "|---|---|---|---|---|---|",
    ]
    for case in record["cases"]:
        ece = case["ece"]
        lines.append(
            f"| {case['kind']} | {case['per_prompt']} | {case['seconds']} | {case['cpu_seconds']} | {case['peak_mib']} "
            f"| {ece['value']:.5f} [{ece['low']:.5f}, {ece['high']:.5f}] |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=RESULTS / "score.json", help="a .md goes beside it")
    arguments = parser.parse_args()
    record: dict[str, Any] = {
        "benchmark": "score",
        "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": describe_device(),
        "cpus": os.cpu_count(),
        "threads": arguments.threads,
        "load_before": round(os.getloadavg()[0], 1),
        "versions": {name: version(name) for name in ("torch", "numpy", "caopd")},
        "python": platform.python_version(),
        "rows": arguments.rows,
        "cases": [],
    }
    with tempfile.TemporaryDirectory() as directory:
        for kind, per_prompt in CASES:
            path = Path(directory) / "predictions.jsonl"
            write(path, kind, per_prompt, arguments.rows)
            case = {"kind": kind, "per_prompt": per_prompt, **score(path, kind, arguments.threads)}
            record["cases"].append(case)
            print(case, file=sys.stderr)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(record, indent=2) + "\n")
    arguments.output.with_suffix(".md").write_text(table(record))
    print(table(record))


if __name__ == "__main__":
    main()
