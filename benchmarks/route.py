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
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parent.parent
MODELS = {"small-CaOPD": ("CaOPD", "small"), "small-SDFT": ("SDFT", "small"), "large-CaOPD": ("CaOPD", "large")}
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


def row(name: str, record: dict) -> str:
    relative = record["relative_area"]
    chosen = record["for_target"]
    reached = "-" if chosen is None else f"{chosen['cost']:.2f} ({threshold(chosen)})"
    spent = record["for_budget"]["accuracy"]
    return (
        f"| {name} | {record['small_accuracy']:.3f} | {record['large_accuracy']:.3f} | {len(record['points'])} "
        f"| {record['area_above_random']:+.4f} | {'-' if relative is None else f'{relative:.1%}'} "
        f"| {reached} | {spent:.3f} |"
    )


def threshold(point: dict) -> str:
    if point["threshold"] is not None:
        return f"threshold {point['threshold']:.2f}"
    return "none: all deferred" if point["deferred"] else "none: all kept"


def report(record: dict, options: argparse.Namespace) -> str:
    rounds = record["rounds"]
    lines = [
        "# A cascade of embedded models",
        "",
        f"`python benchmarks/route.py`; {record['cpus']} CPU cores, one thread, {record['seconds']:.0f} s in all"
        f"{' (other jobs shared the cores)' if record['load_before'] > 1 else ''}; {record['timestamp'][:10]}. The "
        f"quickstart's model after {rounds['small']} rounds is the small one, after {rounds['large']} rounds of CaOPD "
        f"the large one; 2,000 test questions, greedy completions, seed {options.seed}. A call costs 1 or 10.",
        "",
        f"| router | small accuracy | large accuracy | operating points | area above random | of the oracle's "
        f"| cost of accuracy {options.target:g} | accuracy at cost {options.budget:g} |",
        "|---|---|---|---|---|---|---|---|",
        *(row(name, curve) for name, curve in record["routers"].items()),
        "",
        "Both routers are small models in front of the same large one. The share of the oracle's area is how much of "
        "what could be gained by knowing all verdicts is gained by the stated confidence; on this task the verdict on "
        "a question with several fitting digits is chance, which no confidence can know. The large model alone costs "
        "10. Thresholds are found on the questions that they are judged on.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", type=int, default=15, help="rounds of the small models")
    parser.add_argument("--large", type=int, default=80, help="rounds of the large model")
    parser.add_argument("--seed", type=int, default=21)
    parser.add_argument("--target", type=float, default=0.6, help="accuracy")
    parser.add_argument("--budget", type=float, default=6.0, help="mean cost per question")
    parser.add_argument("--directory", type=Path, default=ROOT / "runs" / "benchmark-route")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    options = parser.parse_args()
    options.directory.mkdir(parents=True, exist_ok=True)
    rounds = {"small": options.small, "large": options.large}
    load, start, routers = os.getloadavg()[0], time.perf_counter(), {}
    files = {
        name: predictions(name, rounds[size], options.seed, options.directory) for name, (_, size) in MODELS.items()
    }
    for method in ("CaOPD", "SDFT"):
        output = options.directory / f"route-{method}"
        chosen = [f"--target_accuracy={options.target}", f"--budget={options.budget}", f"--output={output}"]
        caopd(options.directory / "route.log", "route", files[f"small-{method}"], files["large-CaOPD"], *chosen)
        routers[method] = json.loads((output / "route.json").read_text()) | {"small": method, "large": "CaOPD"}
    record = {
        "benchmark": "route",
        "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "threads": 1,
        "load_before": round(load, 1),
        "seconds": round(time.perf_counter() - start, 1),
        "versions": {name: version(name) for name in ("torch", "lightning", "transformers", "caopd")},
        "config": "configs/quickstart.yaml",
        "seed": options.seed,
        "rounds": rounds,
        "routers": routers,
    }
    output = options.results / "route"
    output.with_suffix(".json").write_text(json.dumps(record, indent=2) + "\n")
    output.with_suffix(".md").write_text(report(record, options))
    print(report(record, options))


if __name__ == "__main__":
    main()
