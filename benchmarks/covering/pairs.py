"""How often a paired interval finds a difference of two ECEs where there is none, and where there is one."""

from __future__ import annotations

from itertools import product

import numpy as np
import torch
from scipy.stats import norm

from caopd.metrics.functional.paired import Completions, calibration_difference
from covering.distributions import DISTRIBUTIONS, SHARED_CONFIDENCE, SHARED_CORRECTNESS, Floats, bins
from covering.errors import FIRST_SEED

PAIRS = (("spread", "spread"), ("saturated", "spread"), ("few", "concentrated"))
ERRORS = ((0.0, 0.0), (0.02, 0.02), (0.05, 0.05), (0.10, 0.10), (0.10, 0.05))
SIZES, PER_PROMPT = (200, 800), (1, 4)


def cells(data_sets: int) -> list[dict]:
    """Return what to measure: every pair of distributions, number of completions and prompts, and true errors."""
    keys = ("pair", "per_prompt", "num_prompts", "errors", "data_sets")
    all_cells = product(map(list, PAIRS), PER_PROMPT, SIZES, map(list, ERRORS), [data_sets])
    return [dict(zip(keys, each, strict=True)) for each in all_cells]


def measured(cell: dict) -> dict:
    """Return a cell with the shares of intervals that lie above 0, below it, and that hold the true difference."""
    torch.set_num_threads(1)
    truth = cell["errors"][1] - cell["errors"][0]
    key = [PAIRS.index(tuple(cell["pair"])), cell["per_prompt"], cell["num_prompts"]]
    gaps = [DISTRIBUTIONS[name].gaps(error) for name, error in zip(cell["pair"], cell["errors"], strict=True)]
    ends = []
    for seed in range(FIRST_SEED, FIRST_SEED + cell["data_sets"]):
        found = calibration_difference(*_sampled(cell, gaps, np.random.default_rng([seed, *key])))
        ends.append((found.low, found.high))
    low, high = np.array(ends).T
    return cell | {
        "higher": float((low > 0).mean()),
        "lower": float((high < 0).mean()),
        "held": float(((low <= truth + 1e-12) & (truth <= high + 1e-12)).mean()),
    }


def _sampled(cell: dict, gaps: list[Floats], rng: np.random.Generator) -> list[Completions]:
    """Return two sets on the same prompts, which share what makes them confident and what makes them right."""
    num_prompts, per_prompt = cell["num_prompts"], cell["per_prompt"]
    confident, able = rng.normal(size=(2, num_prompts, 1))
    prompt = torch.arange(num_prompts).repeat_interleave(per_prompt)
    sets = []
    for name, gaps_M in zip(cell["pair"], gaps, strict=True):
        distribution = DISTRIBUTIONS[name]
        own = rng.normal(size=(2, num_prompts, per_prompt))
        sure, right = (
            norm.cdf(np.sqrt(share) * common + np.sqrt(1 - share) * noise)
            for share, common, noise in ((SHARED_CONFIDENCE, confident, own[0]), (SHARED_CORRECTNESS, able, own[1]))
        )
        confidence = distribution.confidence(sure)
        correct = right < confidence - gaps_M[bins(confidence)]
        sets.append(Completions(torch.from_numpy(confidence.ravel()), torch.from_numpy(correct.ravel()), prompt))
    return sets
