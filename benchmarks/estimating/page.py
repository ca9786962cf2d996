"""The tables of ``estimators.md``."""

from __future__ import annotations

from comparing.results import EVENTS, mean_and_spread
from estimating.enumeration import NUM_PROMPTS, NUM_ROUNDS, REFERENCE

LARGEST_SHARE = 0.6
"""Of the reference's rollouts: what the adaptive budget is to do with."""
SHOWN = ("accuracy", "ece", "brier", "ocg", "auroc")


def page(record: dict) -> str:
    """Return the whole page."""
    machine = record["environment"]
    lines = [
        "# Estimators of mu_hat",
        "",
        f"`python benchmarks/estimators.py --embedded DIR`, caopd {machine['versions']['caopd']}, "
        f"{machine['timestamp'][:10]}. Adaptive rows read: smallest and largest group, largest posterior deviation; "
        f"batches of 4. Share: rollouts over those of {REFERENCE.name}.",
        "",
        "## What is stated, by enumeration",
        "",
        "Bias: mean over prompts of |E c - mu|, c being what is stated: mu_hat, or its nearest level. Theory: mean of "
        "mu (1 - mu) / G, the excess Brier score of the Monte Carlo mean. ECE: of c against mu, by value. Estimators "
        f"that learn do so in {NUM_ROUNDS} simulated rounds of {NUM_PROMPTS} prompts. Bold: ECE at most that of "
        f"{REFERENCE.name}, with at most {LARGEST_SHARE:.0%} of its rollouts; and the excess Brier score where that "
        "is, too. Oracle: the share with which k / n would have the reference's excess Brier score, if somebody knew "
        "every rate and divided rollouts best.",
    ]
    for name, rows in record["distributions"].items():
        lines += ["", f"### {name}", "", f"Oracle: {record['oracle_shares'][name]:.2f}.", "", *_enumerated(rows)]
    lines += ["", "## What stopping does to k / n, by enumeration", "", *_stopping(record["stopping"])]
    if record["runs"]:
        lines += ["", "## Training the embedded model", "", *_trained(record)]
    return "\n".join(lines) + "\n"


def _enumerated(rows: dict[str, dict[str, float]]) -> list[str]:
    lines = [
        _row(["policy", "rollouts", "share", "bias", "variance", "excess Brier", "theory", "ECE"]),
        _row(["---"] * 8),
    ]
    target = rows[REFERENCE.name]
    for policy, row in rows.items():
        share = row["rollouts"] / target["rollouts"]
        reached = {key: share <= LARGEST_SHARE and row[key] <= target[key] for key in ("excess_brier", "ece")}
        cells = [_bold(policy, reached["ece"]), f"{row['rollouts']:.2f}", f"{share:.2f}"]
        for key in ("bias", "variance", "excess_brier", "theory", "ece"):
            cells.append(_bold(f"{row[key]:.4f}", reached.get(key, False)))
        lines.append(_row(cells))
    return lines


def _stopping(limits: dict[str, dict]) -> list[str]:
    names = list(next(iter(limits.values()))["means"])
    heads = ["limit", "mean of k / n at mu = .2", "largest bias of 101 rates", *(f"mean, {name}" for name in names)]
    lines = [
        "4 to 16 rollouts, Jeffreys' posterior: what a group's share k / n is on average where the group has stopped, "
        "and its mean over prompts beside the mean success rate. No estimator of the package says or learns it: "
        "MonteCarlo is unbiased given the rate, Shrinkage learns from first batches, EmpiricalBayes from likelihoods.",
        "",
        _row(heads),
        _row(["---"] * len(heads)),
    ]
    for limit, row in limits.items():
        cells = [limit, f"{row['mean_at_0.2']:.3f}", f"{row['worst_bias']:+.3f} at {row['worst_rate']:.2f}"]
        means = (row["means"][name] for name in names)
        lines.append(_row([*cells, *(f"{each['whole_groups']:.3f} for {each['truth']:.3f}" for each in means)]))
    return lines


def _trained(record: dict) -> list[str]:
    machine = record["environment"]
    lines = [
        f"{record['num_rounds']} rounds of the quickstart's CaOPD, 2,000 held-out questions; seeds that nothing was "
        "tuned on. Mean ± standard deviation over the seeds; the last column is paired by seed. "
        f"{machine['cpus']} CPU cores, {machine['processes']} runs at a time.",
    ]
    for event, meaning in EVENTS.items():
        lines += ["", f"### {event}: {meaning}", "", *_of_event(record["runs"], event)]
    return lines


def _of_event(runs: list[dict], event: str) -> list[str]:
    by_budget: dict[str, list[dict]] = {}
    for run in runs:
        by_budget.setdefault(run["budget"], []).append(run)
    reference = {run["seed"]: run for run in by_budget[REFERENCE.name]}
    heads = ["budget", "seed", "rollouts per prompt", "share", "in the last rounds", *SHOWN, "ECE - reference's"]
    lines = [_row([f"{event}, {heads[0]}", *heads[1:]]), _row(["---"] * len(heads))]

    def values(run: dict) -> list[float]:
        share = run["rollouts"] / reference[run["seed"]]["rollouts"]
        return [run["rollouts"], share, run["rollouts_at_the_end"], *(run["final"][event][key] for key in SHOWN)]

    def risen(run: dict) -> float:
        found: float = run["final"][event]["ece"] - reference[run["seed"]]["final"][event]["ece"]
        return found

    for budget, some in by_budget.items():
        columns = [*zip(*map(values, some), strict=True), [risen(run) for run in some]]
        lines.append(_row([f"**{budget}**", "all", *map(mean_and_spread, columns)]))
    for budget, some in by_budget.items():
        for run in some:
            cost, metrics = values(run)[:3], values(run)[3:]
            cells = [*(f"{value:.2f}" for value in cost), *(f"{value:.3f}" for value in metrics), f"{risen(run):+.3f}"]
            lines.append(_row([budget, str(run["seed"]), *cells]))
    return lines


def _bold(text: str, emphasised: bool) -> str:
    return f"**{text}**" if emphasised else text


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
