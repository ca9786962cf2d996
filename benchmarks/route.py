"""A cascade of embedded models: ``python benchmarks/route.py``.

The small models are the quickstart's after few rounds, once trained with CaOPD and once with SDFT; the large one is
trained with CaOPD for longer. Both small models route the same questions to the same large one: one by what it states,
the other, which is always sure, by nothing. Finished runs are kept: a second call goes on where the first one ended.
"""

from __future__ import annotations

import argparse
import json
import statistics
from functools import partial
from pathlib import Path

from fits import QUICKSTART, ROOT, Run, all_or_exit, environment, fit, run_all, run_once

MODELS = {"small-CaOPD": "small", "small-SDFT": "small", "large-CaOPD": "large"}
ROUTERS = ("CaOPD", "SDFT")
HEADS = ("its accuracy", "large accuracy", "area above random", "share of the oracle's")
QUIET = ["--trainer.logger=false", "--trainer.enable_progress_bar=false"]


def trained(name: str, rounds: int, seed: int) -> Run:
    """Return the fit of a model."""
    options = [f"--trainer.max_epochs={rounds}", "--trainer.check_val_every_n_epoch=1000"]
    options += [f"--data.seed={seed}", f"--data.task.seed={seed}"]
    return fit(f"{name}-{seed}", [*options, *(["--model.method=SDFT"] if "SDFT" in name else [])])


def predicted(training: Run, directory: Path) -> Run:
    """Return the completion of the 2,000 test questions by a model that is trained."""
    (checkpoint,) = (directory / training.name).rglob("*.ckpt")
    files = {"config": checkpoint.parents[1] / "config.yaml", "ckpt_path": checkpoint}
    places = [f"--{name}={{directory}}/{path.relative_to(directory)}" for name, path in files.items()]
    arguments = (
        "-m",
        "caopd",
        "predict",
        *places,
        "--predictions.output={run}/predictions.jsonl",
        "--data.evaluation.num_samples=0",
        *QUIET,
    )
    return Run(f"{training.name}-predictions", arguments, made_from=training.fingerprint)


def make_predictions(name: str, rounds: int, seed: int, directory: Path) -> dict:
    """Train a model and complete the questions, or find that it has been done; return the predictions' run."""
    training = trained(name, rounds, seed)
    run_once(training, directory)
    run = predicted(training, directory)
    run_once(
        run, directory, lambda folder: {"lines": len((folder / "predictions.greedy.jsonl").read_text().splitlines())}
    )
    return {"run": run.name, "fingerprint": run.fingerprint}


def route(method: str, seed: int, predictions: dict[str, dict], options: argparse.Namespace) -> dict:
    """Return the curve of a small model in front of the large one, under one seed."""
    small, large = (predictions[f"{name}-{seed}"] for name in (f"small-{method}", "large-CaOPD"))
    files = [f"{{directory}}/{each['run']}/predictions.greedy.jsonl" for each in (small, large)]
    chosen = [f"--target_accuracy={options.target}", f"--budget={options.budget}", "--output={run}"]
    made_from = small["fingerprint"] + large["fingerprint"]
    run = Run(f"route-{method}-{seed}", ("-m", "caopd", "route", *files, *chosen), made_from=made_from)
    found = run_once(run, options.directory, lambda folder: json.loads((folder / "route.json").read_text()))
    return {"seed": seed, **found, "small": method, "large": "CaOPD"}


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
    rounds, runs, machine = record["rounds"], record["runs"], record["environment"]
    spent = f"accuracy at cost {record['budget']:g}"
    lines = [
        "# A cascade of embedded models",
        "",
        f"`python benchmarks/route.py`; {machine['cpus']} CPU cores, {machine['processes']} runs at a time, one thread "
        f"each; {machine['timestamp'][:10]}. The quickstart's model after {rounds['small']} rounds is the small one, "
        f"after {rounds['large']} rounds of CaOPD the large one; 2,000 test questions, greedy completions. A call "
        "costs 1 or 10. Mean ± standard deviation over the seeds.",
        "",
        row("small model", "seed", *HEADS, f"cost of accuracy {record['target']:g}", spent),
        row(*["---"] * 8),
    ]
    for method in ROUTERS:
        columns = zip(*(numbers(run) for run in runs if run["small"] == method), strict=True)
        lines.append(row(f"**{method}**", "all", *(spread(list(column)) for column in columns)))
    for run in sorted(runs, key=lambda run: (ROUTERS.index(run["small"]), run["seed"])):
        cells = ["-" if value is None else f"{value:.3f}" for value in numbers(run)]
        lines.append(row(run["small"], str(run["seed"]), *cells))
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
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--directory", type=Path, default=ROOT / "runs" / "benchmark-route")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    options = parser.parse_args()
    options.directory.mkdir(parents=True, exist_ok=True)
    rounds = {"small": options.small, "large": options.large}
    jobs = {
        f"{name}-{seed}": partial(make_predictions, name, rounds[size], seed, options.directory)
        for seed in options.seeds
        for name, size in MODELS.items()
    }
    made = all_or_exit(run_all(list(jobs.values()), options.processes))
    predictions = dict(zip(jobs, made, strict=True))
    routes = [partial(route, method, seed, predictions, options) for method in ROUTERS for seed in options.seeds]
    record = {
        "benchmark": "route",
        "environment": environment(options.processes),
        "config": QUICKSTART,
        "rounds": rounds,
        "target": options.target,
        "budget": options.budget,
        "runs": all_or_exit(run_all(routes, options.processes)),
    }
    output = options.results / "route"
    output.with_suffix(".json").write_text(json.dumps(record, indent=2) + "\n")
    output.with_suffix(".md").write_text(report(record))
    print(report(record))


if __name__ == "__main__":
    main()
