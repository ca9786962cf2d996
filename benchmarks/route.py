"""A cascade of embedded models: ``python benchmarks/route.py``.

The small models are the quickstart's after few rounds, once trained with CaOPD and once with SDFT; the large one is
trained with CaOPD for longer. Both small models route the same questions to the same large one: one by what it states,
the other, which is always sure, by nothing. One process after the other, one thread. Finished runs are kept: a second
call goes on where the first one ended.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parent.parent
MODELS = {"small-CaOPD": ("CaOPD", "small"), "small-SDFT": ("SDFT", "small"), "large-CaOPD": ("CaOPD", "large")}
ROUTERS = ("CaOPD", "SDFT")
HEADS = ("its accuracy", "large accuracy", "area above random", "share of the oracle's")
SDFT = ["--model.method=SDFT"]


def caopd(log: Path, *arguments: object) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with log.open("a") as output:
        command = [sys.executable, "-m", "caopd", *map(str, arguments)]
        subprocess.run(command, check=True, stdout=output, stderr=subprocess.STDOUT, env=environment)


def predictions(name: str, rounds: int, seed: int, directory: Path) -> Path:
    """Train a model and complete the 2,000 test questions, or take what an earlier call left."""
    written = directory / f"{name}.jsonl"
    if written.exists():
        return written
    method, _ = MODELS[name]
    log, run = directory / f"{name}.log", directory / name
    common = [f"--data.seed={seed}", f"--data.task.seed={seed}", f"--trainer.default_root_dir={run}"]
    options = [f"--trainer.max_epochs={rounds}", "--trainer.check_val_every_n_epoch=1000", *common]
    options += ["--trainer.enable_progress_bar=false", *(SDFT if method == "SDFT" else [])]
    caopd(log, "fit", f"--config={ROOT / 'configs' / 'quickstart.yaml'}", *options)
    (checkpoint,) = run.rglob("*.ckpt")
    config = checkpoint.parents[1] / "config.yaml"
    quiet = ["--trainer.logger=false", "--trainer.enable_progress_bar=false"]
    caopd(log, "predict", f"--config={config}", f"--ckpt_path={checkpoint}", f"--predictions.output={written}", *quiet)
    return written


def one_seed(seed: int, options: argparse.Namespace) -> dict:
    """Train the three models and draw both curves, or read what an earlier call recorded."""
    directory = options.directory / str(seed)
    directory.mkdir(parents=True, exist_ok=True)
    record_file = directory / "record.json"
    if record_file.exists():
        return json.loads(record_file.read_text())
    start = time.perf_counter()
    rounds = {"small": options.small, "large": options.large}
    files = {name: predictions(name, rounds[size], seed, directory) for name, (_, size) in MODELS.items()}
    routers = {}
    for method in ROUTERS:
        output = directory / f"route-{method}"
        chosen = [f"--target_accuracy={options.target}", f"--budget={options.budget}", f"--output={output}"]
        caopd(directory / "route.log", "route", files[f"small-{method}"], files["large-CaOPD"], *chosen)
        routers[method] = json.loads((output / "route.json").read_text()) | {"small": method, "large": "CaOPD"}
    record = {"seed": seed, "seconds": round(time.perf_counter() - start, 1), "routers": routers}
    record_file.write_text(json.dumps(record, indent=2))
    return record


def numbers(curve: dict) -> list[float | None]:
    chosen = curve["for_target"]
    return [
        curve["small_accuracy"],
        curve["large_accuracy"],
        curve["area_above_random"],
        curve["relative_area"],
        None if chosen is None else chosen["cost"],
        curve["for_budget"]["accuracy"],
    ]


def row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def spread(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return f"reached in {len(known)} of {len(values)}"
    return f"{statistics.mean(known):.3f} ± {statistics.stdev(known) if len(known) > 1 else 0:.3f}"


def report(record: dict) -> str:
    rounds, runs = record["rounds"], record["runs"]
    spent = f"accuracy at cost {record['budget']:g}"
    lines = [
        "# A cascade of embedded models",
        "",
        f"`python benchmarks/route.py`; {record['cpus']} CPU cores, one thread, "
        f"{', '.join(str(round(run['seconds'])) for run in runs)} s for the seeds (other jobs shared the cores); "
        f"{record['timestamp'][:10]}. The quickstart's model after {rounds['small']} rounds is the small one, after "
        f"{rounds['large']} rounds of CaOPD the large one; 2,000 test questions, greedy completions. A call costs 1 or "
        "10. Mean ± standard deviation over the seeds.",
        "",
        row("small model", "seed", *HEADS, f"cost of accuracy {record['target']:g}", spent),
        row(*["---"] * 8),
    ]
    for method in ROUTERS:
        columns = zip(*(numbers(run["routers"][method]) for run in runs), strict=True)
        lines.append(row(f"**{method}**", "all", *(spread(list(column)) for column in columns)))
    for method in ROUTERS:
        for run in runs:
            cells = ["-" if value is None else f"{value:.3f}" for value in numbers(run["routers"][method])]
            lines.append(row(method, str(run["seed"]), *cells))
    lines += [
        "",
        "Both small models stand in front of the same large one, which costs 10 alone. Area above random is the mean "
        "gain over deferring blindly; its share of the oracle's is how much of what knowing all verdicts would gain is "
        "gained by the stated confidence. On this task the verdict on a question with several fitting digits is "
        "chance, which no confidence can know. The small models state few different values, so there are few "
        "thresholds, and a budget just short of the next one's cost buys nothing. Thresholds are found on the "
        "questions that they are judged on.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", type=int, default=15, help="rounds of the small models")
    parser.add_argument("--large", type=int, default=80, help="rounds of the large model")
    parser.add_argument("--seeds", type=int, nargs="+", default=[21, 22, 23])
    parser.add_argument("--target", type=float, default=0.6, help="accuracy")
    parser.add_argument("--budget", type=float, default=6.0, help="mean cost per question")
    parser.add_argument("--directory", type=Path, default=ROOT / "runs" / "benchmark-route")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    options = parser.parse_args()
    record = {
        "benchmark": "route",
        "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "threads": 1,
        "load_before": round(os.getloadavg()[0], 1),
        "versions": {name: version(name) for name in ("torch", "lightning", "transformers", "caopd")},
        "config": "configs/quickstart.yaml",
        "rounds": {"small": options.small, "large": options.large},
        "target": options.target,
        "budget": options.budget,
        "runs": [one_seed(seed, options) for seed in options.seeds],
    }
    output = options.results / "route"
    output.with_suffix(".json").write_text(json.dumps(record, indent=2) + "\n")
    output.with_suffix(".md").write_text(report(record))
    print(report(record))


if __name__ == "__main__":
    main()
