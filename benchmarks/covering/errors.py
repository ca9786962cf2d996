"""How often the interval of the ECE holds the truth, and what is left of the bias."""

from __future__ import annotations

from itertools import product

import numpy as np
import torch

from caopd.metrics.functional import calibration_certainty
from covering.distributions import DISTRIBUTIONS

ERRORS, SIZES, PER_PROMPT = (0.0, 0.02, 0.05, 0.10), (200, 800, 2000), (1, 4)
FIRST_SEED = 1_000_000
"""Of the data sets of the page; those of smaller seeds were looked at when the method was chosen."""


def cells(data_sets: int) -> list[dict]:
    """Return what to measure: every distribution, number of completions and of prompts, and true error."""
    keys = ("distribution", "per_prompt", "num_prompts", "error", "data_sets")
    all_cells = product(DISTRIBUTIONS, PER_PROMPT, SIZES, ERRORS, [data_sets])
    return [dict(zip(keys, each, strict=True)) for each in all_cells]


def measured(cell: dict) -> dict:
    """Return a cell with shares of its intervals and means of its estimates."""
    torch.set_num_threads(1)
    distribution, error = DISTRIBUTIONS[cell["distribution"]], cell["error"]
    gaps, number = distribution.gaps(error), list(DISTRIBUTIONS).index(cell["distribution"])
    size = (cell["num_prompts"], cell["per_prompt"])
    prompt = torch.arange(size[0]).repeat_interleave(size[1])
    found = []
    for seed in range(FIRST_SEED, FIRST_SEED + cell["data_sets"]):
        pair = distribution.sample(gaps, *size, np.random.default_rng([seed, number, *size]))
        found.append(calibration_certainty(*(torch.from_numpy(each.ravel()) for each in pair), prompt))
    low, high, p_value, plug_in, debiased, floor = (
        np.array([getattr(each, key) for each in found])
        for key in ("low", "high", "p_value", "ece", "debiased", "floor")
    )
    too_high, too_low = low > error + 1e-12, high < error - 1e-12
    return cell | {
        "held": float((~too_high & ~too_low).mean()),
        "too_high": float(too_high.mean()),
        "too_low": float(too_low.mean()),
        "width": float((high - low).mean()),
        "significant": float((p_value < 0.05).mean()),
        "floor": float(floor.mean()),
        "bias_plug_in": float(plug_in.mean() - error),
        "bias_debiased": float(debiased.mean() - error),
        "rmse_plug_in": float(np.sqrt(np.square(plug_in - error).mean())),
        "rmse_debiased": float(np.sqrt(np.square(debiased - error).mean())),
    }
