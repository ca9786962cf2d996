"""How often the bootstrap intervals of all measures hold the truth, on one distribution."""

from __future__ import annotations

import numpy as np
import torch

from caopd.commands.score.bootstrap import score
from caopd.commands.score.predictions import Predictions

PER_PROMPT, RESAMPLES, SIZES = 4, 400, (50, 200, 800)


def cells(data_sets: int) -> list[dict]:
    """Return what to measure: every number of prompts."""
    return [{"num_prompts": size, "data_sets": data_sets} for size in SIZES]


def measured(cell: dict) -> dict:
    """Return a cell with the true values, and with the share of intervals that hold them, by measure."""
    torch.set_num_threads(1)
    estimates = score(simulated(500_000, seed=10**6), resamples=0)[0].estimates
    same = [name for name in estimates if name == "format_adherence" or name.endswith("_strict")]  # nothing is missing
    values = {name: estimate.value for name, estimate in estimates.items() if name not in same}
    truth = {name: value for name, value in values.items() if value is not None}  # the forms of answers are not drawn
    hits = dict.fromkeys(truth, 0)
    for seed in range(cell["data_sets"]):
        found = score(simulated(cell["num_prompts"], seed), RESAMPLES, seed)[0].estimates
        for name, value in truth.items():
            hits[name] += found[name].low <= value <= found[name].high
    return cell | {"truth": truth, "held": {name: hits[name] / cell["data_sets"] for name in hits}}


def simulated(num_prompts: int, seed: int) -> Predictions:
    """Return completions of prompts that differ in difficulty, 0.1 too confident, in steps of 0.1."""
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
