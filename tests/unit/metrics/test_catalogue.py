"""What the catalogue says of each metric holds of its function."""

import math

import pytest
import torch

from caopd.metrics import CalibrationMetrics
from caopd.metrics.catalogue import CATALOGUE, headline, logged, shown_of_runs
from caopd.metrics.engine import evaluate
from caopd.metrics.functional.counts import CompletionCounts, value_counts


def counts_of(confidence, correct, missing, missing_correct, known, answered):
    forms = (0, missing + len(confidence), len(confidence) - missing, missing)
    numbers = (
        torch.tensor(float(max(number, 0)), dtype=torch.float64)
        for number in (missing, missing_correct, known, answered, *forms)
    )
    stated = value_counts(torch.tensor(confidence, dtype=torch.float64), torch.tensor(correct, dtype=torch.bool))
    return CompletionCounts(stated, *numbers)


def sampled(seed):
    generator = torch.Generator().manual_seed(seed)
    size = int(torch.randint(1, 30, (), generator=generator))
    confidence = torch.randint(0, 11, (size,), generator=generator) / 10
    return counts_of(confidence.tolist(), (torch.rand(size, generator=generator) < 0.5).tolist(), 4, 2, 9, 5)


GOOD = counts_of([1.0, 1.0, 1.0, 0.0], [1, 1, 1, 0], missing=0, missing_correct=0, known=4, answered=4)
BAD = counts_of([0.9, 0.9, 0.9, 0.9], [0, 0, 1, 0], missing=1, missing_correct=0, known=5, answered=1)
EMPTY = counts_of([], [], missing=0, missing_correct=0, known=0, answered=0)


@pytest.mark.parametrize("name", CATALOGUE)
def test_values_keep_to_the_range_and_better_ones_lie_in_the_direction(name):
    spec = CATALOGUE[name]
    for seed in range(20):
        value = float(evaluate([spec], sampled(seed))[name])
        assert math.isnan(value) or spec.lowest - 1e-12 <= value <= spec.highest + 1e-12
    good, bad = (float(evaluate([spec], counts)[name]) for counts in (GOOD, BAD))
    distances = {"largest": (-good, -bad), "smallest": (good, bad), "nearest zero": (abs(good), abs(bad))}
    if spec.best is not None:
        better, worse = distances[spec.best]
        assert better < worse


@pytest.mark.parametrize("name", CATALOGUE)
def test_without_completions_a_value_is_missing(name):
    assert math.isnan(evaluate([CATALOGUE[name]], EMPTY)[name])


def test_what_is_logged_is_what_the_accumulating_class_computes():
    assert [*(spec.name for spec in logged()), "n", "n_parsed"] == list(CalibrationMetrics().compute())


def test_what_is_shown_of_runs_is_logged():
    assert {spec.name for spec in headline()} - {spec.name for spec in shown_of_runs()} == {"smooth_ece", "aurc"}
