"""The embedded model: trained under every budget, and its success rates before and after."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path
from statistics import fmean

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from caopd.rounds.buffer import load_groups
from estimating.enumeration import REFERENCE, Distribution
from fits import Run, RunFailedError, fit, fit_metrics, run_all, run_once

NUM_RATE_ROLLOUTS = 128
"""Rollouts of a prompt that its success rate is measured with."""
LAST_ROUNDS = 10
COMMON = ["--trainer.check_val_every_n_epoch=1000", "--data.keep_rounds=1"]
LEARNED = ["--data.estimator=EmpiricalBayes"]
LEVELS = ["--model.method.num_levels=9"]


def adaptive(max_deviation: float) -> list[str]:
    """Return the options of a budget of 4 to 16 rollouts."""
    name = "--data.round.adaptive"
    return ["--data.round.num_rollouts=16", f"{name}.num_rollouts_per_batch=4", f"{name}.max_deviation={max_deviation}"]


BUDGETS: dict[str, list[str]] = {
    REFERENCE.name: ["--data.round.num_rollouts=16"],
    "MonteCarlo, G = 16, 9 levels": ["--data.round.num_rollouts=16", *LEVELS],
    "MonteCarlo, G = 8": ["--data.round.num_rollouts=8"],
    "MonteCarlo, 4 to 16, 0.15": adaptive(0.15),
    "EmpiricalBayes, 4 to 16, 0.15": [*LEARNED, *adaptive(0.15)],
    "EmpiricalBayes, 4 to 16, 0.15, 9 levels": [*LEARNED, *adaptive(0.15), *LEVELS],
}


def training_run(name: str, num_rounds: int, seed: int) -> Run:
    """Return the quickstart's fit under a budget."""
    return fit(f"{name}-{seed}", [*COMMON, f"--trainer.max_epochs={num_rounds}", f"--data.seed={seed}", *BUDGETS[name]])


def cost_and_metrics(folder: Path) -> dict:
    """Return the rollouts per prompt, over all rounds and over the last ones, and the metrics of a fit."""
    (metrics,) = folder.rglob("metrics.json")
    events = EventAccumulator(str(metrics.parent))
    events.Reload()
    sampled = [event.value for event in events.Scalars("rollout/num_rollouts")]
    return {"rollouts": fmean(sampled), "rollouts_at_the_end": fmean(sampled[-LAST_ROUNDS:]), **fit_metrics(folder)}


def train(directory: Path, num_rounds: int, seeds: list[int], processes: int) -> list[dict | RunFailedError]:
    """Return what training under every budget cost and reached."""

    def record(name: str, seed: int) -> dict:
        run = training_run(name, num_rounds, seed)
        return {"budget": name, "seed": seed, **run_once(run, directory, cost_and_metrics)}

    return run_all([partial(record, name, seed) for seed in seeds for name in BUDGETS], processes)


def measured_rates(directory: Path, num_rounds: int, seed: int) -> dict[str, Distribution]:
    """Return the embedded model's success rates before training, and after it with the reference's budget."""
    trained = training_run(REFERENCE.name, num_rounds, seed)
    (checkpoint,) = (directory / trained.name).rglob("*.ckpt")
    many = [f"--data.round.num_rollouts={NUM_RATE_ROLLOUTS}", "--model.optimizer.lr=0", f"--data.seed={seed}"]
    resumed = [
        f"--ckpt_path={{directory}}/{checkpoint.relative_to(directory)}",
        f"--trainer.max_epochs={num_rounds + 1}",
    ]
    before = fit("rates-before", [*COMMON, *many, "--trainer.max_epochs=1"])
    after = fit("rates-after", [*COMMON, *many, *resumed], made_from=trained.fingerprint)
    runs = {"embedded model, before": before, "embedded model, after": after}
    records = {name: run_once(run, directory, last_rates) for name, run in runs.items()}
    return {name: {float(rate): share for rate, share in r["rates"].items()} for name, r in records.items()}


def last_rates(folder: Path) -> dict:
    """Return the share of prompts at every success rate of a run's last round."""
    groups = load_groups(max(folder.rglob("round_*.jsonl")))
    rates = Counter(fmean(verified.verdict.correct for verified in group.rollouts) for group in groups)
    return {"rates": {str(rate): count / len(groups) for rate, count in sorted(rates.items())}}
