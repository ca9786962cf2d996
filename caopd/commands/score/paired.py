"""Compares two files of predictions for the same prompts: the difference of every measure, with a paired interval.

Prompts are resampled for both files together, so that what makes a prompt hard for both leaves the difference. Where no
difference is shown, none is claimed.

Shapes: P prompts, C cells, R resamples.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from caopd.commands.score.bootstrap import MAX_VALUES, Cells, Floats, Integers, measured, merged, score
from caopd.commands.score.predictions import Predictions
from caopd.errors import ConfigError, DataError
from caopd.metrics.catalogue import CATALOGUE, MetricSpec
from caopd.metrics.functional.certainty import LEVEL
from caopd.metrics.functional.paired import Completions, calibration_difference

MAX_SHOWN = 5
"""Most prompts that an error names."""
_CHUNK = 100
_BINS_OF_ERRORS = {"ece": 10, "debiased_ece": 10, "ece_strict": 10, "ocg": 1, "ocg_strict": 1}
"""Measures that are sums of absolute gaps, and over how many bins; with one bin it is the gap's distance from 0."""
_NOT_JUDGED = ("adaptive_ece", "unique_value_ece", "smooth_ece", "brier_reliability", "brier_resolution")
"""Chance adds to these as it does to the ECE, and a bootstrap does not know by how much."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """How a measure differs.

    Attributes:
        first: Its value in the first file; None where it is undefined, as all others.
        second: Its value in the second file.
        difference: Second minus first; of ``ocg``, whose best value is 0, of its absolute values.
        low: Lower end of the paired interval.
        high: Upper end.
        verdict: ``better``, ``worse`` (or ``higher``, ``lower`` where no value is better than another) of the second
            file, where the interval leaves out 0; else ``no difference shown``. ``not judged`` where the interval
            cannot be relied on, empty without one.
    """

    first: float | None
    second: float | None
    difference: float | None
    low: float | None
    high: float | None
    verdict: str


def matched(pair: Sequence[Predictions], names: Sequence[Path]) -> tuple[Predictions, Predictions, int]:
    """Join two files on their prompts.

    Args:
        pair: The predictions of both files.
        names: Of the files, for messages.

    Returns:
        Both, with the same prompts under the same numbers, and how many prompts are left out of both because a line
        of theirs has no verdict.

    Raises:
        DataError: Different events, lines without ``prompt_id``, prompts that one file alone holds, or different
            numbers of lines.
    """
    first, second = pair
    if len({first.event, second.event}) > 1:
        raise DataError(
            f"Expected {names[0]} and {names[1]} to hold completions of one event, but the first says "
            f"{first.event or 'nothing'} and the second {second.event or 'nothing'}. Compare greedy completions with "
            "greedy ones, and sampled ones with sampled ones."
        )
    for each, name in zip(pair, names, strict=True):
        lacking = int(each.prompt.max()) + 1 - len(each.prompt_ids) + sum(each_id is None for each_id in each.unjudged)
        if lacking:
            raise DataError(
                f"Expected every line of {name} to have a `prompt_id`, which pairs the two files, but {lacking:,} have "
                "none."
            )
    left_out = {*first.unjudged, *second.unjudged}
    ids = [each.prompt_ids.keys() - left_out for each in pair]
    for there, absent, names_of in ((ids[0], ids[1], names), (ids[1], ids[0], names[::-1])):
        if alone := sorted(there - absent, key=str):
            raise DataError(
                f"Expected {names[0]} and {names[1]} to hold the same prompts, but {len(alone):,} of {names_of[0]} are "
                f"not in {names_of[1]}: {_some(alone)}. Predict the same split with both models."
            )
    shared = sorted(ids[0], key=first.prompt_ids.__getitem__)
    if not shared:
        raise DataError(f"Expected prompts with a verdict in both {names[0]} and {names[1]}, but there is none.")
    one, other = _numbered(first, shared), _numbered(second, shared)
    lines = [np.bincount(each.prompt, minlength=len(shared)) for each in (one, other)]
    if different := [name for name, a, b in zip(shared, *lines, strict=True) if a != b]:
        raise DataError(
            f"Expected {names[0]} and {names[1]} to hold as many lines of each prompt, but {len(different):,} prompts "
            f"differ: {_some(different)}. Score completions of one kind with each other: greedy or sampled ones."
        )
    return one, other, len(left_out)


def compare(first: Predictions, second: Predictions, resamples: int = 1000, seed: int = 0) -> dict[str, Comparison]:
    """Compare every measure of two sets on the same prompts, see :func:`matched`.

    Args:
        first: One set.
        second: The other, with the same prompts under the same numbers.
        resamples: R, the number of resamples of prompts, at least 1.
        seed: Seed of the resamples.

    Raises:
        ConfigError: ``resamples`` is smaller than 1, or ``seed`` negative.
    """
    if resamples < 1:
        raise ConfigError(f"Expected `resamples` to be at least 1 with `--paired`, but got {resamples}.")
    values = [score(each, resamples=0, seed=seed)[0].estimates for each in (first, second)]
    drawn = _resampled_differences(first, second, resamples, seed)
    found = {}
    for name, spec in CATALOGUE.items():
        a, b = (each[name].value for each in values)
        if name in _BINS_OF_ERRORS and a is not None and b is not None:
            low, high = _error_interval(first, second, spec, seed)
        else:
            low, high = _quantiles(drawn[name])
        found[name] = _comparison(spec, a, b, low, high)
    return found


def _comparison(spec: MetricSpec, a: float | None, b: float | None, low: float, high: float) -> Comparison:
    if a is None or b is None or math.isnan(low):
        return Comparison(a, b, None, None, None, "")
    difference = abs(b) - abs(a) if spec.best == "nearest zero" else b - a
    if spec.name in _NOT_JUDGED:
        verdict = "not judged"
    elif low <= 0 <= high:
        verdict = "no difference shown"
    elif spec.best is None:
        verdict = "higher" if low > 0 else "lower"
    else:
        verdict = "better" if (low > 0) == (spec.best == "largest") else "worse"
    return Comparison(a, b, difference, low, high, verdict)


def _error_interval(first: Predictions, second: Predictions, spec: MetricSpec, seed: int) -> tuple[float, float]:
    if len(np.unique(first.prompt)) < 2:
        return math.nan, math.nan
    sets = []
    for each in (first, second):
        rows = ~np.isnan(each.confidence) if spec.over == "stated" else np.ones(len(each.confidence), dtype=bool)
        columns = (np.nan_to_num(each.confidence), each.correct, each.prompt)
        sets.append(Completions(*(torch.from_numpy(column[rows]) for column in columns)))
    found = calibration_difference(*sets, n_bins=_BINS_OF_ERRORS[spec.name], seed=seed)
    return found.low, found.high


def _resampled_differences(first: Predictions, second: Predictions, resamples: int, seed: int) -> dict[str, Floats]:
    """Return the differences of the measures in every resample, by name, ``[R]``; NaN where one is undefined."""
    sides = [(_cells(each), each.prompt) for each in (first, second)]
    found: list[dict[str, Floats]] = []
    for times_RP in _times(int(first.prompt.max()) + 1, resamples, np.random.default_rng(seed)):
        a, b = (measured(cells.counts(_weights(cells, times_RP, prompt_N), -1)) for cells, prompt_N in sides)
        found.append({name: b[name] - a[name] for name in a})
    return {name: np.concatenate([each[name] for each in found]) for name in found[0]}


def _cells(predictions: Predictions) -> Cells:
    cells = Cells(predictions)
    return cells if len(cells.values) <= MAX_VALUES else Cells(merged(predictions, cells.values))


def _times(num_prompts: int, resamples: int, rng: np.random.Generator) -> Iterator[Floats]:
    """Yield how often each prompt is in each resample, ``[R, P]``, in chunks of resamples."""
    for start in range(0, resamples, _CHUNK):
        size = min(_CHUNK, resamples - start)
        drawn = (rng.integers(num_prompts, size=num_prompts, dtype=np.uint32) for _ in range(size))
        yield np.stack([np.bincount(each, minlength=num_prompts) for each in drawn]).astype(np.float64)


def _weights(cells: Cells, times_RP: Floats, prompt_N: Integers) -> Floats:
    """Return the number of completions in each cell, ``[R, C]``."""
    return np.stack([np.bincount(cells.cell_N, times.take(prompt_N), len(cells.sizes_C)) for times in times_RP])


def _quantiles(drawn_R: Floats) -> tuple[float, float]:
    known = drawn_R[~np.isnan(drawn_R)]
    if not len(known):
        return math.nan, math.nan
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
    return low, high


def _numbered(predictions: Predictions, shared: list[int | str]) -> Predictions:
    """Return the lines of some prompts, which are numbered in this order."""
    number = np.full(len(predictions.prompt_ids), -1)
    number[[predictions.prompt_ids[name] for name in shared]] = np.arange(len(shared))
    rows = number[predictions.prompt] >= 0
    columns = ("confidence", "correct", "answered", "form", "category")
    return replace(
        predictions,
        **{name: getattr(predictions, name)[rows] for name in columns},
        prompt=number[predictions.prompt][rows],
        prompt_ids={name: index for index, name in enumerate(shared)},
        unjudged=(),
    )


def _some(names: list[int | str]) -> str:
    return ", ".join(map(repr, names[:MAX_SHOWN])) + (", ..." if len(names) > MAX_SHOWN else "")
