"""Bias, variance and cost of the estimators of mu_hat; writes ``benchmarks/results/estimators.json`` and ``.md``.

Estimators and the rule of the adaptive budget are the package's own. For every success rate of a distribution, all
numbers of successes are enumerated, batch by batch, so values are exact. Estimators that learn do so first, from
simulated rounds of the same distribution, under the budget that they are judged with.

``--embedded`` adds the embedded model: its success rates, from 128 rollouts of 256 prompts before and after training,
and training runs under a fixed and under an adaptive budget. Finished runs are kept.

    python benchmarks/estimators.py
    python benchmarks/estimators.py --embedded runs/estimators
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from math import comb
from pathlib import Path

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from caopd.buffer import load_groups
from caopd.estimators import EmpiricalBayes, Estimator, LeaveOneOut, MonteCarlo, Shrinkage
from caopd.types import AnswerOutcome, Verdict

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
RIGHT, WRONG = Verdict(True, "A", AnswerOutcome.PARSED), Verdict(False, "B", AnswerOutcome.PARSED)
NUM_ROUNDS, NUM_PROMPTS = 100, 256
Distribution = dict[float, float]
"""Probability of every success rate."""


@dataclass(frozen=True)
class Policy:
    """An estimator under a budget: a fixed one without ``max_deviation``."""

    name: str
    make: type[Estimator]
    num_rollouts: int
    batch: int
    max_deviation: float | None = None

    def stops(self, estimator: Estimator, size: int, correct: int) -> bool:
        """Return whether a group of this size with so many successes is complete."""
        if size >= self.num_rollouts:
            return True
        return self.max_deviation is not None and estimator.deviation(verdicts(size, correct)) <= self.max_deviation


FIXED = [
    *(Policy(f"MonteCarlo, G = {size}", MonteCarlo, size, size) for size in (4, 8, 16)),
    *(Policy(f"{make.__name__}, G = 16", make, 16, 16) for make in (LeaveOneOut, Shrinkage)),
    *(Policy(f"EmpiricalBayes, G = {size}", EmpiricalBayes, size, size) for size in (4, 8, 12, 16)),
]
REFERENCE = FIXED[2].name
ADAPTIVE = [
    Policy(f"{make.__name__}, 4 to 16, {deviation}", make, 16, 4, deviation)
    for make in (MonteCarlo, Shrinkage, EmpiricalBayes)
    for deviation in (0.1, 0.12, 0.15)
]
SYNTHETIC: dict[str, Distribution] = {
    "draw task, optimum": {1.0: 0.4, 0.5: 0.3, 1 / 3: 0.2, 0.25: 0.1},
    "uniform on 19 rates": {index / 20: 1 / 19 for index in range(1, 20)},
}


def verdicts(size: int, correct: int) -> list[Verdict]:
    return [RIGHT] * correct + [WRONG] * (size - correct)


def learn(policy: Policy, rates: Distribution, seed: int = 0) -> Estimator:
    """Return the estimator after simulated rounds under its own budget."""
    rng, estimator = np.random.default_rng(seed), policy.make()
    values, weights = np.array(list(rates)), np.array(list(rates.values()))
    for _ in range(NUM_ROUNDS):
        groups = []
        for rate in rng.choice(values, NUM_PROMPTS, p=weights / weights.sum()):
            size = correct = 0
            while size == 0 or not policy.stops(estimator, size, correct):
                size, correct = size + policy.batch, correct + int(rng.binomial(policy.batch, rate))
            groups.append(verdicts(size, correct))
        estimator.end_round(groups)
    return estimator


def endings(policy: Policy, estimator: Estimator, rate: float) -> dict[tuple[int, int], float]:
    """Return the probability of every (rollouts, successes) at which drawing stops."""
    running, stopped = {(0, 0): 1.0}, defaultdict(float)
    while running:
        grown: dict[tuple[int, int], float] = defaultdict(float)
        for (size, correct), probability in running.items():
            for more in range(policy.batch + 1):
                chance = comb(policy.batch, more) * rate**more * (1 - rate) ** (policy.batch - more)
                grown[size + policy.batch, correct + more] += probability * chance
        running = {}
        for state, probability in grown.items():
            if policy.stops(estimator, *state):
                stopped[state] += probability
            else:
                running[state] = probability
    return stopped


def judge(policy: Policy, rates: Distribution) -> dict[str, float]:
    """Return cost, bias, variance, excess Brier score and calibration error of the target."""
    estimator = learn(policy, rates)
    totals, stated = Counter(), defaultdict(float)
    for rate, weight in rates.items():
        outcomes = [
            (n, target, p)
            for state, p in endings(policy, estimator, rate).items()
            for n, target, p in targets(estimator, *state, p)
        ]
        mean = sum(target * p for _, target, p in outcomes)
        totals["rollouts"] += weight * sum(n * p for n, _, p in outcomes)
        totals["bias"] += weight * abs(mean - rate)
        totals["variance"] += weight * sum((target - mean) ** 2 * p for _, target, p in outcomes)
        totals["excess_brier"] += weight * sum((target - rate) ** 2 * p for _, target, p in outcomes)
        totals["theory"] += weight * rate * (1 - rate) / policy.num_rollouts
        for _, target, p in outcomes:
            stated[round(target, 2)] += weight * p * (rate - target)
    totals["ece"] = float(sum(map(abs, stated.values())))
    return {name: float(value) for name, value in totals.items()}


def targets(estimator: Estimator, size: int, correct: int, probability: float) -> list[tuple[int, float, float]]:
    """Return what the rollouts of a group are to state: one value, or one per rollout."""
    group = verdicts(size, correct)
    each = estimator.estimate_each(group) or (estimator.estimate(group),)
    return [(size, float(value), probability / len(each)) for value in each]  # type: ignore[arg-type]


QUICKSTART = ["--trainer.enable_progress_bar=false", "--trainer.check_val_every_n_epoch=1000", "--data.keep_rounds=1"]
ADAPT = ["--data.round.adaptive.num_rollouts_per_batch=4", "--data.round.adaptive.max_deviation"]
LEARNED = ["--data.estimator=EmpiricalBayes"]
RUNS = {
    "MonteCarlo, G = 16": [],
    "EmpiricalBayes, 4 to 16, 0.12": [*LEARNED, ADAPT[0], f"{ADAPT[1]}=0.12"],
    "EmpiricalBayes, 4 to 16, 0.1": [*LEARNED, ADAPT[0], f"{ADAPT[1]}=0.1"],
    "MonteCarlo, 4 to 16, 0.1": [ADAPT[0], f"{ADAPT[1]}=0.1"],
    "MonteCarlo, G = 8": ["--data.round.num_rollouts=8"],
}


def fit(directory: Path, *options: str) -> Path:
    """Run ``caopd fit`` on the quickstart, or find that it has run; return the run directory."""
    if not list(directory.rglob("metrics.json")):
        directory.mkdir(parents=True, exist_ok=True)
        config = str(ROOT / "configs" / "quickstart.yaml")
        command = [sys.executable, "-m", "caopd", "fit", "--config", config, *QUICKSTART]
        command += [f"--trainer.default_root_dir={directory}", "--data.round.num_rollouts=16", *options]
        with (directory / "log.txt").open("w") as log:
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            subprocess.run(command, check=True, stdout=log, stderr=subprocess.STDOUT, env=environment)
    return sorted(directory.rglob("metrics.json"))[-1].parent


def training_runs(directory: Path, num_rounds: int, seed: int) -> list[dict]:
    """Return what training under every budget cost and reached."""
    records = []
    for name, options in RUNS.items():
        run = fit(directory / f"{name}-{seed}", f"--trainer.max_epochs={num_rounds}", f"--data.seed={seed}", *options)
        events = EventAccumulator(str(run))
        events.Reload()
        drawn = [event.value for event in events.Scalars("rollout/num_rollouts")]
        final = json.loads((run / "metrics.json").read_text())["final"]
        shown = {key: final[key] for key in ("accuracy", "ece", "brier", "ocg", "auroc")}
        records.append({"name": name, "seed": seed, "rollouts": float(np.mean(drawn)), "drawn": drawn, **shown})
    return records


def embedded_rates(directory: Path, num_rounds: int, seed: int) -> dict[str, Distribution]:
    """Return the embedded model's success rates before and after training with the reference."""
    (checkpoint,) = (directory / f"{REFERENCE}-{seed}").rglob("*.ckpt")
    many = ["--data.round.num_rollouts=128", "--model.optimizer.lr=0", f"--data.seed={seed}"]
    last = [f"--ckpt_path={checkpoint}", f"--trainer.max_epochs={num_rounds + 1}"]
    return {
        "embedded model, before": measured_rates(fit(directory / "before", *many, "--trainer.max_epochs=1")),
        "embedded model, after": measured_rates(fit(directory / "after", *many, *last)),
    }


def measured_rates(run: Path) -> Distribution:
    """Return the distribution of success rates over the prompts of a run's last round."""
    groups = load_groups(sorted((run / "rollouts").glob("*.jsonl"))[-1])
    shares = Counter(sum(v.verdict.correct for v in group.rollouts) / len(group.rollouts) for group in groups)
    return {rate: count / len(groups) for rate, count in sorted(shares.items())}


def report(record: dict) -> str:
    lines = [
        "# Estimators of mu_hat",
        "",
        f"`python benchmarks/estimators.py --embedded DIR`, caopd {record['caopd']}, {record['timestamp']}. Adaptive "
        "rows read: smallest and largest group, largest posterior deviation; batches of 4. Share: rollouts over those "
        f"of {REFERENCE}. Bias: mean over prompts of |E mu_hat - mu|. Theory: mean of mu (1 - mu) / G, the excess "
        "Brier score of the Monte Carlo mean. ECE: of the target against mu, by stated value. Estimators that learn do "
        f"so in {NUM_ROUNDS} simulated rounds of {NUM_PROMPTS} prompts. Bold: excess Brier score and ECE of at most "
        f"those of {REFERENCE}, with at most 60 % of its rollouts.",
    ]
    for name, rows in record["distributions"].items():
        lines += ["", f"## {name}", "", "| policy | rollouts | share | bias | variance | excess Brier | theory | ECE |"]
        lines += ["|---|---|---|---|---|---|---|---|"]
        target = rows[REFERENCE]
        for policy, row in rows.items():
            share = row["rollouts"] / target["rollouts"]
            reached = share <= 0.6 and all(row[key] <= target[key] for key in ("excess_brier", "ece"))
            shown = f"**{policy}**" if reached else policy
            cells = [f"{row[key]:.4f}" for key in ("bias", "variance", "excess_brier", "theory", "ece")]
            lines.append(f"| {shown} | {row['rollouts']:.2f} | {share:.2f} | " + " | ".join(cells) + " |")
    if record["runs"]:
        keys = ("accuracy", "ece", "brier", "ocg", "auroc")
        lines += [
            "",
            "## Training the embedded model",
            "",
            f"{record['num_rounds']} rounds of the quickstart's CaOPD, ",
        ]
        lines[-1] += "2,000 held-out questions, greedy."
        lines += ["", "| run | seed | rollouts per prompt | in the last 10 rounds | " + " | ".join(keys) + " |"]
        lines += ["|---|---|---|---|" + "---|" * len(keys)]
        for run in record["runs"]:
            cells = [f"{run['rollouts']:.2f}", f"{np.mean(run['drawn'][-10:]):.2f}", *(f"{run[k]:.3f}" for k in keys)]
            lines.append(f"| {run['name']} | {run['seed']} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--embedded", type=Path, help="where the embedded model's runs go; without it, none")
    parser.add_argument("--num_rounds", type=int, default=60)
    parser.add_argument("--seeds", type=int, nargs="+", default=[21, 22], help="success rates are those of the first")
    arguments = parser.parse_args()
    distributions, runs = dict(SYNTHETIC), []
    if arguments.embedded:
        for seed in arguments.seeds:
            runs += training_runs(arguments.embedded, arguments.num_rounds, seed)
        distributions |= embedded_rates(arguments.embedded, arguments.num_rounds, arguments.seeds[0])
    judged = {name: {p.name: judge(p, rates) for p in [*FIXED, *ADAPTIVE]} for name, rates in distributions.items()}
    record = {
        "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
        "caopd": version("caopd"),
        "num_rounds": arguments.num_rounds,
        "distributions": judged,
        "rates": {name: {f"{rate:.4f}": weight for rate, weight in d.items()} for name, d in distributions.items()},
        "runs": runs,
    }
    (RESULTS / "estimators.json").write_text(json.dumps(record, indent=1) + "\n")
    (RESULTS / "estimators.md").write_text(report(record))


if __name__ == "__main__":
    main()
