"""Reliability bins: plain numbers that give back the metrics."""

import math

import pytest
import torch

from caopd.errors import ConfigError, DataError
from caopd.metrics import ReliabilityBins, reliability_bins
from caopd.metrics.functional import expected_calibration_error, overconfidence_gap


def test_bins_of_a_table_by_hand():
    confidence = torch.tensor([0.3, 0.35, 0.7, 1.0, 0.9], dtype=torch.float64)
    bins = reliability_bins(confidence, torch.tensor([0, 1, 1, 1, 0]))
    assert bins.edges == (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    assert bins.counts == (0, 0, 0, 2, 0, 0, 0, 1, 0, 2)
    filled = [k for k, count in enumerate(bins.counts) if count]
    assert [bins.mean_confidence[k] for k in filled] == pytest.approx([0.325, 0.7, 0.95])
    assert [bins.accuracy[k] for k in filled] == [0.5, 1.0, 0.5]
    assert [bins.gap[k] for k in filled] == pytest.approx([-0.175, -0.3, 0.45])
    assert all(math.isnan(bins.accuracy[k]) and math.isnan(bins.gap[k]) for k in (0, 5, 8))


@pytest.mark.parametrize("n_bins", [1, 7, 10])
def test_bins_give_back_ece_and_gap(n_bins):
    generator = torch.Generator().manual_seed(n_bins)
    confidence, correct = torch.rand(300, generator=generator), torch.rand(300, generator=generator) < 0.4
    bins = reliability_bins(confidence, correct, n_bins)
    expected = float(expected_calibration_error(confidence, correct, n_bins))
    assert bins.n_completions == 300
    assert bins.ece == pytest.approx(expected, abs=1e-12)
    assert bins.ocg == pytest.approx(float(overconfidence_gap(confidence, correct)), abs=1e-12)
    assert bins.overall_accuracy == pytest.approx(float(correct.double().mean()), abs=1e-12)


def test_without_completions_every_number_is_missing():
    bins = reliability_bins(torch.zeros(0), torch.zeros(0), n_bins=2)
    assert bins.counts == (0, 0)
    assert all(math.isnan(value) for value in (bins.ece, bins.ocg, bins.overall_accuracy, *bins.accuracy))


def test_lengths_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match=r"Expected M\+1 `edges`.*but got 2 for \(2, 2, 2\)"):
        ReliabilityBins((0.0, 1.0), (1, 1), (0.5, 0.5), (0.5, 0.5))
    with pytest.raises(DataError, match=r"but got 1 for \(0, 0, 0\)"):
        ReliabilityBins((0.0,), (), (), ())
    with pytest.raises(ConfigError, match="n_bins"):
        reliability_bins(torch.zeros(1), torch.zeros(1), n_bins=0)
