"""Properties that hold for any completions."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from caopd.metrics import (
    CalibrationMetrics,
    ExpectedCalibrationError,
    StrictPairwiseRanking,
    reliability_bins,
)
from caopd.metrics.functional import (
    accuracy,
    adaptive_calibration_error,
    area_under_risk_coverage,
    auroc,
    brier_score,
    expected_calibration_error,
    murphy_decomposition,
    overconfidence_gap,
    smooth_calibration_error,
    strict_pairwise_ranking,
    tie_rate,
    unique_value_calibration_error,
)

quick = settings(derandomize=True, deadline=None, max_examples=60, database=None)

# Stated decimals, which tie and sit on edges, mixed with arbitrary numbers.
confidences = st.one_of(st.integers(0, 100).map(lambda k: k / 100), st.floats(0, 1, width=32))
completions = st.lists(st.tuples(confidences, st.booleans()), min_size=1, max_size=40)
bins = st.integers(1, 20)


def tensors(rows):
    return torch.tensor([q for q, _ in rows], dtype=torch.float64), torch.tensor([r for _, r in rows])


def close(a, b):
    return float(a) == pytest.approx(float(b), abs=1e-12, nan_ok=True)


@quick
@given(st.lists(st.booleans(), min_size=1, max_size=40), confidences)
def test_all_ties_earn_no_strict_ranking(correct, value):
    confidence, correct = torch.full((len(correct),), value, dtype=torch.float64), torch.tensor(correct)
    one_class = bool(correct.all()) or not bool(correct.any())
    expected = float("nan") if one_class else 0.0
    assert close(strict_pairwise_ranking(confidence, correct), expected)


@quick
@given(completions)
def test_ranking_parts_add_up_and_mirror(rows):
    confidence, correct = tensors(rows)
    ranking, ties = strict_pairwise_ranking(confidence, correct), tie_rate(confidence, correct)
    assert close(auroc(confidence, correct), ranking + ties / 2)
    # Swapping the classes reverses every strict order: what is neither ordered nor tied.
    assert close(strict_pairwise_ranking(confidence, ~correct), 1 - ranking - ties)


@quick
@given(completions, st.integers(1, 40), bins)
def test_batches_equal_one_pass(rows, size, n_bins):
    confidence, correct = tensors(rows)
    metrics = {
        ExpectedCalibrationError(n_bins): expected_calibration_error(confidence, correct, n_bins),
        StrictPairwiseRanking(): strict_pairwise_ranking(confidence, correct),
    }
    for metric, expected in metrics.items():
        for batch in zip(confidence.split(size), correct.split(size), strict=True):
            metric.update(*batch)
        assert close(metric.compute(), expected)


@quick
@given(
    st.permutations(list(range(12))),
    st.lists(st.tuples(confidences, st.booleans()), min_size=12, max_size=12),
)
def test_the_order_of_the_completions_is_irrelevant(order, rows):
    for metric in (
        expected_calibration_error,
        adaptive_calibration_error,
        unique_value_calibration_error,
        smooth_calibration_error,
        brier_score,
        overconfidence_gap,
        strict_pairwise_ranking,
        auroc,
        area_under_risk_coverage,
    ):
        assert close(metric(*tensors(rows)), metric(*tensors([rows[k] for k in order])))


@quick
@given(completions, bins)
def test_bin_weighted_gap_is_the_ece(rows, n_bins):
    confidence, correct = tensors(rows)
    found = reliability_bins(confidence, correct, n_bins)
    weighted = sum(
        c * abs(q - r) for c, q, r in zip(found.counts, found.mean_confidence, found.accuracy, strict=True) if c
    )
    assert close(expected_calibration_error(confidence, correct, n_bins), weighted / len(rows))
    assert close(found.ece, weighted / len(rows))


@quick
@given(completions, bins)
def test_calibration_errors_are_ordered(rows, n_bins):
    confidence, correct = tensors(rows)
    gap = abs(float(overconfidence_gap(confidence, correct)))
    finest = float(unique_value_calibration_error(confidence, correct))
    for error in (
        expected_calibration_error(confidence, correct, n_bins),
        adaptive_calibration_error(confidence, correct, n_bins),
    ):
        assert gap - 1e-12 <= float(error) <= finest + 1e-12
    assert close(expected_calibration_error(confidence, correct, 1), gap)
    assert gap - 1e-5 <= float(smooth_calibration_error(confidence, correct)) <= finest + 1e-5


@quick
@given(completions)
def test_brier_is_reliability_minus_resolution_plus_uncertainty(rows):
    confidence, correct = tensors(rows)
    parts = murphy_decomposition(confidence, correct)
    assert close(parts.reliability - parts.resolution + parts.uncertainty, brier_score(confidence, correct))


@quick
@given(completions)
def test_stating_the_accuracy_of_each_value_is_calibrated(rows):
    confidence, correct = tensors(rows)
    _, value = confidence.unique(return_inverse=True)
    honest = torch.stack([correct[value == own].double().mean() for own in value])
    assert close(unique_value_calibration_error(honest, correct), 0.0)
    assert close(overconfidence_gap(honest, correct), 0.0)
    assert float(brier_score(honest, correct)) <= float(brier_score(confidence, correct)) + 1e-12


@quick
@given(st.lists(st.tuples(st.one_of(st.none(), confidences), st.booleans()), min_size=1, max_size=40))
def test_strict_values_take_missing_as_zero_and_headline_values_leave_it_out(rows):
    confidence = torch.tensor([float("nan") if q is None else q for q, _ in rows], dtype=torch.float64)
    correct = torch.tensor([r for _, r in rows])
    metrics = CalibrationMetrics()
    metrics.update(confidence, correct)
    values = metrics.compute()
    zeroed, parsed = confidence.nan_to_num(0.0), ~confidence.isnan()
    assert close(values["accuracy"], accuracy(correct))
    assert close(values["ece_strict"], expected_calibration_error(zeroed, correct))
    assert close(values["brier_strict"], brier_score(zeroed, correct))
    assert close(values["ocg_strict"], overconfidence_gap(zeroed, correct))
    assert close(values["ece"], expected_calibration_error(confidence[parsed], correct[parsed]))
    assert close(values["brier"], brier_score(confidence[parsed], correct[parsed]))
    assert close(values["format_adherence"], parsed.double().mean())
