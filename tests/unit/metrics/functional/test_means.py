"""Accuracy, mean confidence and the gap between them."""

import math

import pytest
import torch

from caopd.metrics.functional import accuracy, mean_confidence, overconfidence_gap


def test_gap_is_signed_and_equals_the_difference_of_the_means():
    confidence = torch.tensor([0.9, 0.8, 0.1], dtype=torch.float64)
    assert float(overconfidence_gap(confidence, torch.tensor([0, 0, 1]))) == pytest.approx(0.6 - 1 / 3, abs=1e-12)
    assert float(overconfidence_gap(confidence, torch.tensor([1, 1, 1]))) == pytest.approx(-0.4, abs=1e-12)


def test_means_of_many_narrow_values_do_not_drift():
    # 100,000 bfloat16 values summed in bfloat16 would stop at 256.
    confidence = torch.full((100_000,), 0.5, dtype=torch.bfloat16)
    assert float(mean_confidence(confidence)) == 0.5
    correct = torch.arange(100_000) % 4 == 0
    assert float(accuracy(correct)) == 0.25
    assert float(overconfidence_gap(confidence, correct)) == 0.25


def test_without_completions_the_means_are_missing():
    empty = torch.zeros(0)
    assert math.isnan(accuracy(empty))
    assert math.isnan(mean_confidence(empty))
    assert math.isnan(overconfidence_gap(empty, empty))
