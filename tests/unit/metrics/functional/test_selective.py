"""Risk and coverage against the average over every order of the ties."""

import itertools
import math

import pytest
import torch

from caopd.errors import ConfigError
from caopd.metrics.functional import (
    accuracy,
    area_under_risk_coverage,
    risk_coverage_curve,
    selective_accuracy,
)

WITH_TIES = (torch.tensor([0.9, 0.5, 0.9, 0.2, 0.5, 0.5]), torch.tensor([1, 0, 0, 0, 1, 1]))


def mean_risks(confidence, correct):
    """Risk at each k, averaged over all orders that are sorted by falling confidence."""
    pairs = list(zip(confidence.tolist(), correct.tolist(), strict=True))
    orders = [
        order for order in itertools.permutations(pairs) if all(a[0] >= b[0] for a, b in itertools.pairwise(order))
    ]
    return [
        sum(sum(1 - r for _, r in order[:k]) / k for order in orders) / len(orders) for k in range(1, len(pairs) + 1)
    ]


def test_risk_is_the_average_over_every_order_of_the_ties():
    confidence, correct = WITH_TIES
    curve = risk_coverage_curve(confidence, correct)
    expected = mean_risks(confidence, correct)
    assert curve.risk.tolist() == pytest.approx(expected, abs=1e-12)
    assert curve.coverage.tolist() == pytest.approx([k / 6 for k in range(1, 7)], abs=1e-12)
    assert float(area_under_risk_coverage(confidence, correct)) == pytest.approx(sum(expected) / 6, abs=1e-12)


@pytest.mark.parametrize("width", [torch.bfloat16, torch.float16, torch.float32])
def test_distinct_values_give_the_running_error_rate(width):
    generator = torch.Generator().manual_seed(2)
    confidence = torch.randperm(100, generator=generator).to(width) / 128
    correct = torch.rand(100, generator=generator) < 0.5
    errors, risks = 0, []
    for k, index in enumerate(confidence.double().argsort(descending=True).tolist(), start=1):
        errors += not correct[index]
        risks.append(errors / k)
    assert risk_coverage_curve(confidence, correct).risk.tolist() == pytest.approx(risks, abs=1e-12)


def test_full_coverage_is_accuracy():
    assert float(selective_accuracy(*WITH_TIES, coverage=1.0)) == pytest.approx(
        float(accuracy(WITH_TIES[1])), abs=1e-12
    )


def test_coverage_is_read_as_a_decimal():
    # 0.07 * 100 is 7.000000000000001 in floats; seven completions are meant, not eight.
    confidence = torch.arange(100, 0, -1).double() / 100
    correct = torch.arange(100) < 7
    assert float(selective_accuracy(confidence, correct, coverage=0.07)) == 1.0
    assert float(selective_accuracy(confidence, correct, coverage=0.071)) == pytest.approx(7 / 8)


@pytest.mark.parametrize("coverage", [0.0, -0.5, 1.5, math.nan])
def test_coverage_outside_its_range_is_refused(coverage):
    with pytest.raises(ConfigError, match=r"Expected argument `coverage` to lie in \(0, 1\], but got"):
        selective_accuracy(*WITH_TIES, coverage=coverage)


def test_without_completions_everything_is_missing():
    empty = torch.zeros(0)
    assert risk_coverage_curve(empty, empty).risk.numel() == 0
    assert math.isnan(area_under_risk_coverage(empty, empty))
    assert math.isnan(selective_accuracy(empty, empty, coverage=0.5))
