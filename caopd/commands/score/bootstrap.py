"""Measures with percentile bootstrap intervals, clustered by prompt.

Completions of one prompt depend on each other, so prompts are resampled with replacement, not completions. Two
completions of one category that state the same in the same form, and are equally right and equally answered, are one
*cell*: a resample is the number of completions in each cell, and every measure is computed from these, for many
resamples at once.

The expected calibration error has an interval of its own, of :mod:`caopd.metrics.functional.certainty`: a resample adds
chance to an error that holds it already, so that a bootstrap's interval lies too high.

Shapes: N completions, P prompts, C cells, R resamples.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from caopd.commands.score.predictions import AS_ASKED, OTHERWISE, Predictions
from caopd.errors import ConfigError
from caopd.metrics.catalogue import CATALOGUE
from caopd.metrics.engine import evaluate
from caopd.metrics.functional.binning import equal_width_bins
from caopd.metrics.functional.certainty import LEVEL, CalibrationCertainty, calibration_certainty
from caopd.metrics.functional.counts import CompletionCounts, ValueCounts

MAX_VALUES = 2000
"""With more distinct confidences than this, neighbouring ones are merged in the resamples."""
_CHUNK_NUMBERS = 1_000_000
Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A measure and its interval.

    Attributes:
        value: The measure of the completions themselves; None where it is undefined.
        low: Lower end of the interval; None where the value is undefined, or with fewer than two prompts.
        high: Upper end, None likewise.
        n: Number of completions that the measure runs over.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True, slots=True)
class Scores:
    """The measures of one set of completions.

    Attributes:
        n: Number of completions.
        n_parsed: Number of those that state a confidence.
        n_prompts: Number of prompts.
        estimates: Name of the measure -> its estimate.
        certainty: How far the ECE is to be believed.
    """

    n: int
    n_parsed: int
    n_prompts: int
    estimates: dict[str, Estimate]
    certainty: CalibrationCertainty


def score(predictions: Predictions, resamples: int = 1000, seed: int = 0) -> tuple[Scores, dict[str, Scores]]:
    """Measure all completions, and those of each category.

    Beyond :data:`MAX_VALUES` distinct confidences, neighbours are merged for the resamples (not for the values):
    into at most that many parts of about equal mass, none of which crosses the edge of an ECE bin. The interval is
    then moved by the difference that merging makes to the value.

    Args:
        predictions: The completions to measure.
        resamples: R, the number of resamples; 0 leaves out the intervals.
        seed: Seed of the resamples.

    Returns:
        The scores of all completions, and those of each category. A category's resamples are its part of the resamples
        of all prompts.

    Raises:
        ConfigError: ``resamples`` is negative.
    """
    if resamples < 0 or seed < 0:
        raise ConfigError(f"Expected `resamples` and `seed` to be at least 0, but got {resamples} and {seed}.")
    scopes = range(-1, len(predictions.categories))
    cells = Cells(predictions)
    certainties = [certainty_of(predictions, scope, seed) for scope in scopes]
    scores = [
        _without_intervals(
            cells.counts(cells.sizes_C, scope), _num_prompts(predictions, scope), certainties[index]["ece"]
        )
        for index, scope in enumerate(scopes)
    ]
    if len(cells.values) > MAX_VALUES:
        cells = Cells(merged(predictions, cells.values))
    found: list[list[dict[str, Floats]]] = [[] for _ in scopes]
    for weights_RC in _resamples(cells, predictions.prompt, resamples, np.random.default_rng(seed)):
        for scope, resampled in zip(scopes, found, strict=True):
            resampled.append(measured(cells.counts(weights_RC, scope)))
    for index, scope in enumerate(scopes):
        centre = measured(cells.counts(cells.sizes_C, scope))
        scores[index] = _with_intervals(scores[index], centre, found[index], certainties[index])
    return scores[0], dict(zip(predictions.categories, scores[1:], strict=True))


class Cells:
    """The cells of a set of predictions.

    Attributes:
        values: Distinct confidences, ascending.
        cell_N: Index of the cell that each completion is in.
        sizes_C: Number of completions in each cell.
    """

    def __init__(self, predictions: Predictions) -> None:
        stated_N = ~np.isnan(predictions.confidence)
        self.values, value = np.unique(predictions.confidence[stated_N], return_inverse=True)
        value_N = np.full(len(stated_N), -1)
        value_N[stated_N] = value
        sizes = (len(self.values) + 1, 2, 4, 4, len(predictions.categories) + 1)
        columns = (
            value_N + 1,
            predictions.correct.astype(np.int64),
            predictions.answered + 1,
            predictions.form + 1,
            predictions.category + 1,
        )
        codes_C, self.cell_N = np.unique(np.ravel_multi_index(columns, sizes), return_inverse=True)
        value_C, correct_C, answered_C, form_C, category_C = np.unravel_index(codes_C, sizes)
        self._value_C, self._category_C = value_C - 1, category_C - 1
        self._correct_C, self._answered_C, self._form_C = correct_C.astype(np.float64), answered_C - 1, form_C - 1
        self.sizes_C = np.bincount(self.cell_N).astype(np.float64)

    def counts(self, weights: Floats, category: int) -> CompletionCounts:
        """Return the counts of a category (-1 for all) where the cells hold ``weights`` ``[..., C]`` completions."""
        in_category = self._category_C == category if category >= 0 else np.ones(len(self._category_C), dtype=bool)
        stated, missing = in_category & (self._value_C >= 0), in_category & (self._value_C < 0)
        index, value = np.unique(self._value_C[stated], return_inverse=True)
        stated_C, target = torch.from_numpy(weights[..., stated]), torch.from_numpy(value)
        correct_C = stated_C * torch.from_numpy(self._correct_C[stated])
        zeros = stated_C.new_zeros((*weights.shape[:-1], len(index)))
        return CompletionCounts(
            stated=ValueCounts(
                torch.from_numpy(self.values[index]),
                zeros.scatter_add(-1, target.expand_as(stated_C), stated_C),
                zeros.scatter_add(-1, target.expand_as(stated_C), correct_C),
            ),
            missing=_sum(weights, missing),
            missing_correct=torch.as_tensor((weights[..., missing] * self._correct_C[missing]).sum(-1)),
            answer_known=_sum(weights, in_category & (self._answered_C >= 0)),
            answered=_sum(weights, in_category & (self._answered_C >= 1)),
            answered_otherwise=_sum(weights, in_category & (self._answered_C == OTHERWISE)),
            form_known=_sum(weights, in_category & (self._form_C >= 0)),
            asked_form=_sum(weights, in_category & (self._form_C == AS_ASKED)),
            other_form=_sum(weights, in_category & (self._form_C == OTHERWISE)),
        )


def _sum(weights: Floats, chosen_C: npt.NDArray[np.bool_]) -> torch.Tensor:
    return torch.as_tensor(weights[..., chosen_C].sum(-1))


def merged(predictions: Predictions, values: Floats) -> Predictions:
    """Return the predictions with neighbouring ones of their distinct confidences replaced by their mean."""
    stated = ~np.isnan(predictions.confidence)
    _, value, sizes = np.unique(predictions.confidence[stated], return_inverse=True, return_counts=True)
    part = ((sizes.cumsum() - 0.5 * sizes) * MAX_VALUES / sizes.sum()).astype(np.int64)
    _, part = np.unique(part * 10 + equal_width_bins(torch.from_numpy(values)).numpy(), return_inverse=True)
    means = np.bincount(part, sizes * values) / np.bincount(part, sizes)
    confidence = predictions.confidence.copy()
    confidence[stated] = means[part][value]
    return replace(predictions, confidence=confidence)


def _resamples(cells: Cells, prompt_N: Integers, resamples: int, rng: np.random.Generator) -> Iterator[Floats]:
    """Yield the number of completions in each cell, ``[R, C]``, in chunks of resamples."""
    num_prompts, num_cells = int(prompt_N.max()) + 1, len(cells.sizes_C)
    chunk = max(1, _CHUNK_NUMBERS // num_cells)
    for start in range(0, resamples, chunk):
        size = min(chunk, resamples - start)
        if num_prompts == len(prompt_N):  # resampling prompts is then resampling cells, by their sizes
            yield rng.multinomial(num_prompts, cells.sizes_C / num_prompts, size).astype(np.float64)
            continue
        weights_RC = np.empty((size, num_cells))
        for row in weights_RC:
            resampled_P = rng.integers(num_prompts, size=num_prompts, dtype=np.uint32)
            times_P = np.bincount(resampled_P, minlength=num_prompts).astype(np.float64)
            row[:] = np.bincount(cells.cell_N, times_P.take(prompt_N), num_cells)
        yield weights_RC


def measured(counts: CompletionCounts) -> dict[str, Floats]:
    """Return every measure of one set of completions, or of many sets."""
    return {name: value.numpy() for name, value in evaluate(CATALOGUE.values(), counts).items()}


def _num_prompts(predictions: Predictions, scope: int) -> int:
    return len(np.unique(predictions.prompt if scope < 0 else predictions.prompt[predictions.category == scope]))


def certainty_of(predictions: Predictions, scope: int, seed: int) -> dict[str, CalibrationCertainty]:
    """Return the certainty of each ECE of a category (-1 for all): ``debiased_ece`` estimates the same as ``ece``."""
    chosen = predictions.category == scope if scope >= 0 else np.ones(len(predictions.category), dtype=bool)
    stated = chosen & ~np.isnan(predictions.confidence)

    def certainty(rows: npt.NDArray[np.bool_]) -> CalibrationCertainty:
        columns = (np.nan_to_num(predictions.confidence), predictions.correct, predictions.prompt)
        return calibration_certainty(*(torch.from_numpy(column[rows]) for column in columns), seed=seed)

    found = certainty(stated)
    strict = found if stated.sum() == chosen.sum() else certainty(chosen)
    return {"ece": found, "debiased_ece": found, "ece_strict": strict}


def _without_intervals(counts: CompletionCounts, n_prompts: int, certainty: CalibrationCertainty) -> Scores:
    values = {name: float(value) for name, value in measured(counts).items()}
    if n_prompts < counts.n:  # that of the counts takes completions of a prompt for independent
        values["debiased_ece"] = certainty.debiased
    estimates = {
        name: Estimate(None if math.isnan(value) else value, None, None, _completions_behind(name, counts))
        for name, value in values.items()
    }
    return Scores(int(counts.n), int(counts.stated.total), n_prompts, estimates, certainty)


def _completions_behind(name: str, counts: CompletionCounts) -> int:
    return int(getattr(counts, CATALOGUE[name].over).total)


def _with_intervals(
    scores: Scores,
    centre: dict[str, Floats],
    drawn: list[dict[str, Floats]],
    certainties: dict[str, CalibrationCertainty],
) -> Scores:
    """Add the quantiles of the resamples that have a value, moved by what merging did to the value."""
    if not drawn or scores.n_prompts < 2:
        return scores
    estimates = {}
    for name, estimate in scores.estimates.items():
        resampled = np.concatenate([each[name] for each in drawn])
        resampled = resampled[~np.isnan(resampled)]
        if name in certainties:
            low, high = certainties[name].low, certainties[name].high
            estimate = estimate if math.isnan(low) else replace(estimate, low=low, high=high)
        elif estimate.value is not None and len(resampled):
            ends = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) + (estimate.value - centre[name])
            low, high = np.clip(ends, CATALOGUE[name].lowest, CATALOGUE[name].highest).tolist()
            estimate = replace(estimate, low=low, high=high)
        estimates[name] = estimate
    return replace(scores, estimates=estimates)
