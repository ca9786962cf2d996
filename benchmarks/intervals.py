"""How often the intervals of ``caopd score`` hold the truth; writes ``benchmarks/results/intervals.json`` and ``.md``.

Data sets come from one distribution (prompts differ in difficulty, completions of a prompt share it, confidences
are too high by 0.1 and stated in steps of 0.1), each is scored with its intervals, and the share of intervals that hold
the value of a very large data set is counted. 0.95 is right; the standard error of a share is about 0.01.

    python benchmarks/intervals.py
"""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np

from caopd.commands.score.bootstrap import score
from caopd.commands.score.predictions import Predictions

RESULTS = Path(__file__).parent / "results"
PER_PROMPT = 4


def simulated(num_prompts: int, seed: int) -> Predictions:
    rng = np.random.default_rng(seed)
    prompt = np.repeat(np.arange(num_prompts), PER_PROMPT)
    ability = rng.beta(2, 2, num_prompts)[prompt]
    return Predictions(
        confidence=np.clip(ability + 0.1 + rng.normal(0, 0.15, len(prompt)), 0, 1).round(1),
        correct=rng.random(len(prompt)) < ability,
        answered=np.full(len(prompt), -1, np.int8),
        form=np.full(len(prompt), -1, np.int8),
        prompt=prompt,
        category=np.full(len(prompt), -1),
        categories=(),
    )


def covered(truth: dict[str, float], num_prompts: int, data_sets: int, resamples: int) -> dict[str, float]:
    """Share of intervals that hold the truth, by measure."""
    hits = dict.fromkeys(truth, 0)
    for seed in range(data_sets):
        estimates = score(simulated(num_prompts, seed), resamples, seed)[0].estimates
        for name, value in truth.items():
            hits[name] += estimates[name].low <= value <= estimates[name].high
    return {name: round(count / data_sets, 3) for name, count in hits.items()}


def table(record: dict) -> str:
    sizes = list(record["covered"])
    lines = [
        "# Intervals of saved predictions",
        "",
        f"`python benchmarks/intervals.py`: {record['data_sets']} data sets of each size, {PER_PROMPT} completions a "
        f"prompt, {record['resamples']} resamples, {record['timestamp']}. Share of the 95 % intervals that hold the "
        "true value; the standard error of a share is about 0.01. `brier_uncertainty` is at its maximum of 0.25, which "
        "no resample exceeds.",
        "",
        "| measure | true value | " + " | ".join(f"{size} prompts" for size in sizes) + " |",
        "|---|---|" + "---|" * len(sizes),
    ]
    for name, value in record["truth"].items():
        lines.append(
            f"| {name} | {value:.4f} | " + " | ".join(f"{record['covered'][s][name]:.3f}" for s in sizes) + " |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_sets", type=int, default=500)
    parser.add_argument("--resamples", type=int, default=400)
    parser.add_argument("--prompts", type=int, nargs="+", default=[50, 200, 800])
    parser.add_argument("--output", type=Path, default=RESULTS / "intervals.json", help="a .md goes beside it")
    arguments = parser.parse_args()
    estimates = score(simulated(500_000, seed=10**6), resamples=0)[0].estimates
    constant = ("format_adherence", "answer_parse_rate")
    strict = [name for name in estimates if name.endswith("_strict")]  # nothing is missing here
    truth = {name: estimates[name].value for name in estimates if name not in (*constant, *strict)}
    record = {
        "benchmark": "intervals",
        "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {name: version(name) for name in ("torch", "numpy", "caopd")},
        "data_sets": arguments.data_sets,
        "resamples": arguments.resamples,
        "truth": truth,
        "covered": {
            str(size): covered(truth, size, arguments.data_sets, arguments.resamples) for size in arguments.prompts
        },
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(record, indent=2) + "\n")
    arguments.output.with_suffix(".md").write_text(table(record))
    print(table(record))


if __name__ == "__main__":
    main()
