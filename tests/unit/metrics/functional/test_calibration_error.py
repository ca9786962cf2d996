"""Calibration errors against loops in plain Python and against torchmetrics."""

import math
from fractions import Fraction

import pytest
import torch
from torchmetrics.functional.classification import binary_calibration_error

from caopd.metrics.functional import (
    adaptive_calibration_error,
    expected_calibration_error,
    overconfidence_gap,
    unique_value_calibration_error,
)


def stated(n, seed, digits=2):
    """Confidences as decimals, their text, and correctness."""
    generator = torch.Generator().manual_seed(seed)
    texts = [f"{k / 10**digits:.{digits}f}" for k in torch.randint(0, 10**digits + 1, (n,), generator=generator)]
    correct = torch.rand(n, generator=generator) < 0.6
    return texts, torch.tensor([float(text) for text in texts], dtype=torch.float64), correct


def error_of_bins(groups):
    """Exact weighted gap of ``{key: [(confidence, correct), ...]}`` in rational numbers."""
    total = sum(len(members) for members in groups.values())
    gaps = [abs(sum(q for q, _ in members) - sum(r for _, r in members)) for members in groups.values()]
    return float(Fraction(sum(gaps)) / total)


def grouped(texts, correct, key):
    groups = {}
    for text, right in zip(texts, correct.tolist(), strict=True):
        groups.setdefault(key(Fraction(text)), []).append((Fraction(text), int(right)))
    return groups


@pytest.mark.parametrize("n_bins", [1, 5, 10, 15, 20])
@pytest.mark.parametrize("digits", [1, 2])
def test_ece_equals_exact_arithmetic(n_bins, digits):
    texts, confidence, correct = stated(400, seed=n_bins, digits=digits)
    expected = error_of_bins(grouped(texts, correct, lambda q: min(int(q * n_bins), n_bins - 1)))
    assert float(expected_calibration_error(confidence, correct, n_bins)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float32])
def test_ece_takes_correctness_of_any_type(dtype):
    _, confidence, correct = stated(50, seed=3)
    value = expected_calibration_error(confidence, correct.to(dtype))
    assert float(value) == float(expected_calibration_error(confidence, correct))


def test_ece_equals_torchmetrics_away_from_the_edges_and_differs_at_one():
    generator = torch.Generator().manual_seed(0)
    confidence = torch.rand(500, generator=generator)
    correct = torch.rand(500, generator=generator) < confidence
    theirs = binary_calibration_error(confidence, correct.int(), n_bins=10, norm="l1")
    assert float(expected_calibration_error(confidence, correct)) == pytest.approx(float(theirs), abs=1e-6)
    # 1.0 gets a bin of its own there, which splits [0.9, 1.0]: gaps 0.95 and 0, instead of 0.475 together.
    confidence, correct = torch.tensor([0.95, 1.0]), torch.tensor([0, 1])
    assert float(binary_calibration_error(confidence, correct, n_bins=10, norm="l1")) == pytest.approx(0.475)
    confidence, correct = torch.tensor([0.95, 1.0]), torch.tensor([1, 0])
    assert float(binary_calibration_error(confidence, correct, n_bins=10, norm="l1")) == pytest.approx(0.525)
    assert float(expected_calibration_error(confidence, correct)) == pytest.approx(0.475)


def test_ece_of_a_table_by_hand():
    # [0.5, 0.6): mean 0.5, accuracy 1/2. [0.9, 1.0]: mean 0.95, accuracy 1/4. (2 * 0 + 4 * 0.7) / 6.
    confidence = torch.tensor([0.5, 0.5, 0.9, 0.9, 1.0, 1.0], dtype=torch.float64)
    correct = torch.tensor([1, 0, 1, 0, 0, 0])
    assert float(expected_calibration_error(confidence, correct)) == pytest.approx(4 * 0.7 / 6, abs=1e-12)


@pytest.mark.parametrize("n_bins", [1, 3, 10])
def test_adaptive_error_equals_a_loop_over_mid_ranks(n_bins):
    texts, confidence, correct = stated(120, seed=n_bins, digits=1)
    values = [Fraction(text) for text in texts]

    def bin_of(q):
        mid_rank = sum(other < q for other in values) + Fraction(sum(other == q for other in values), 2)
        return int(n_bins * mid_rank / len(values))

    expected = error_of_bins(grouped(texts, correct, bin_of))
    assert float(adaptive_calibration_error(confidence, correct, n_bins)) == pytest.approx(expected, abs=1e-12)


def test_adaptive_error_of_distinct_values_splits_the_sorted_list_evenly():
    generator = torch.Generator().manual_seed(1)
    confidence = torch.rand(60, generator=generator, dtype=torch.float64)
    correct = torch.rand(60, generator=generator) < 0.5
    order = confidence.argsort()
    chunks = zip(confidence[order].reshape(6, 10), correct[order].double().reshape(6, 10), strict=True)
    expected = sum(abs(float(q.mean() - r.mean())) for q, r in chunks) / 6
    assert float(adaptive_calibration_error(confidence, correct, n_bins=6)) == pytest.approx(expected, abs=1e-12)


def test_unique_value_error_equals_exact_arithmetic_and_bounds_the_others():
    texts, confidence, correct = stated(300, seed=4)
    value = float(unique_value_calibration_error(confidence, correct))
    assert value == pytest.approx(error_of_bins(grouped(texts, correct, lambda q: q)), abs=1e-12)
    assert value >= float(expected_calibration_error(confidence, correct)) - 1e-12
    assert value >= abs(float(overconfidence_gap(confidence, correct))) - 1e-12


@pytest.mark.parametrize(
    "metric", [expected_calibration_error, adaptive_calibration_error, unique_value_calibration_error]
)
def test_without_completions_the_error_is_missing_not_zero(metric):
    assert math.isnan(metric(torch.zeros(0), torch.zeros(0)))
