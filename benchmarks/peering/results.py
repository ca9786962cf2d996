"""Medians of what steps cost, and what they are of the fastest peer's."""

from __future__ import annotations

import statistics
from collections.abc import Iterable

OURS = {
    "sdft": "caopd, SDFT",
    "sdpo": "caopd, SDPO",
    "caopd": "caopd, CaOPD on SDFT",
    "sdft-stated": "caopd, SDFT, confidences stated",
    "caopd-stated": "caopd, CaOPD on SDFT, confidences stated",
}
"""Trainers of this package -> their names in tables."""
PEERS = {
    "trl-sdft": "TRL, SDFT (experimental)",
    "trl-sdpo": "TRL, SDPO (experimental)",
    "trl-distillation": "TRL, DistillationTrainer",
}
"""Trainers of others -> their names in tables."""
COMPARED = {"sdft": "SDFT", "sdpo": "SDPO", "caopd": "CaOPD on SDFT"}
"""Trainers of this package that are compared with the peers."""
PARTS = ("generation", "training", "whole", "peak_mib")
"""What a step costs: seconds of its parts and of the whole, and the process's largest memory in MiB."""
Costs = dict[str, float]


def costs_of(record: dict, work: str, trainer: str) -> Costs | None:
    """Return the medians over all counted steps, and of the peaks over runs; None if the trainer was not run."""
    runs = [run for run in record["runs"] if run["work"] == work and run["trainer"] == trainer and run["steps"]]
    if not runs:
        return None
    steps = [step for run in runs for step in run["steps"]]
    found = {part: statistics.median(step[part] for step in steps) for part in PARTS[:-1]}
    return found | {"peak_mib": statistics.median(run["peak_mib"] for run in runs)}


def fastest_peer(record: dict, work: str) -> Costs | None:
    """Return the smallest cost of any peer, for every part by itself; None unless a peer was run."""
    peers = [costs for name in PEERS if (costs := costs_of(record, work, name))]
    if not peers:
        return None
    return {part: min(costs[part] for costs in peers) for part in PARTS}


def shares(costs: Costs, of: Costs) -> Costs:
    """Return costs as shares of others."""
    return {part: costs[part] / of[part] for part in PARTS}


def missed(share: Costs, targets: Costs) -> list[str]:
    """Return the parts whose share is larger than its target."""
    return [part for part, target in targets.items() if share[part] > target]


def per_token(record: dict, work: str, trainer: str) -> float | None:
    """Return the seconds of training by trained token, the median over all counted steps; None if there are none."""
    found = [
        step["training"] / tokens
        for run in record["runs"]
        if run["work"] == work and run["trainer"] == trainer
        for step, tokens in zip(run["steps"], run["trained_tokens"], strict=True)
    ]
    return statistics.median(found) if found else None


def tokens_of(record: dict, work: str, trainer: str) -> float | None:
    """Return the trained tokens of a step, the median over all counted steps; None if there are none."""
    found = [
        tokens
        for run in record["runs"]
        if run["work"] == work and run["trainer"] == trainer
        for tokens in run["trained_tokens"]
    ]
    return statistics.median(found) if found else None


def works_of(record: dict) -> list[str]:
    """Return the works of which there are runs, in their order."""
    return list(dict.fromkeys(run["work"] for run in record["runs"]))


def unequal_lengths(runs: Iterable[dict]) -> list[str]:
    """Return the peers' and plain runs whose completions are not all equally long, so that their work differs."""
    return [run["name"] for run in runs if run["trainer"] != "caopd" and len(run["completion_lengths"]) != 1]
