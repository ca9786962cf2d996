"""Smooth ECE against a sum over reflected Gaussians, and against the authors' own package."""

import math

import numpy as np
import pytest
import relplot
import torch
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.stats import norm

from caopd.metrics.functional import overconfidence_gap, smooth_calibration_error, unique_value_calibration_error


def completions(seed, n=300, digits=2, slope=0.6):
    generator = np.random.default_rng(seed)
    confidence = generator.beta(4, 2, n).round(digits)
    return confidence, generator.random(n) < 0.2 + slope * confidence


def error_at(width, confidence, correct):
    """The integral at one width, from mirror images of every completion far beyond the kernel's reach."""
    images = np.concatenate([sign * confidence + 2 * k for k in range(-6, 7) for sign in (1, -1)])
    gaps = np.tile(confidence - correct, 26)

    def smoothed(t):
        return abs((norm.pdf(t - images, scale=width) * gaps).sum()) / len(confidence)

    return quad(smoothed, 0, 1, limit=500, epsabs=1e-7)[0]


def ours(confidence, correct):
    return float(smooth_calibration_error(torch.from_numpy(confidence), torch.from_numpy(correct)))


@pytest.mark.parametrize(("seed", "slope"), [(0, 0.6), (1, 0.2), (2, 0.8)])
def test_it_equals_the_fixed_point_of_an_exact_integral(seed, slope):
    confidence, correct = completions(seed, n=60, slope=slope)
    expected = brentq(lambda width: error_at(width, confidence, correct) - width, 0.005, 1, xtol=1e-5)
    assert ours(confidence, correct) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
@pytest.mark.parametrize("digits", [2, 12])
def test_it_equals_the_package_of_its_authors(seed, digits):
    confidence, correct = completions(seed, n=2000, digits=digits)
    # Their search ends at a width up to 1/1024 above the fixed point; it is never below.
    theirs, width = relplot.smECE(confidence, correct.astype(float), return_width=True)
    assert ours(confidence, correct) == pytest.approx(theirs, abs=1.5e-3)
    assert ours(confidence, correct) <= width + 1e-6


def test_it_lies_between_the_gap_and_the_unbinned_error():
    confidence, correct = map(torch.from_numpy, completions(5))
    value = float(smooth_calibration_error(confidence, correct))
    assert abs(float(overconfidence_gap(confidence, correct))) - 1e-6 <= value
    assert value <= float(unique_value_calibration_error(confidence, correct)) + 1e-6


@pytest.mark.parametrize("confidence", [0.0, 0.3, 0.6543, 1.0])
def test_one_value_has_its_gap_as_error(confidence):
    correct = torch.tensor([1, 0, 0, 0])
    value = smooth_calibration_error(torch.full((4,), confidence, dtype=torch.float64), correct)
    assert float(value) == pytest.approx(abs(confidence - 0.25), abs=1e-6)


def test_a_small_step_over_an_edge_of_bins_changes_little():
    correct = torch.tensor([1, 0, 1, 1, 0, 1])
    below = torch.tensor([0.4999, 0.4999, 0.5, 0.7999, 0.7999, 0.9], dtype=torch.float64)
    above = below + torch.tensor([0.0002, 0.0, 0.0, 0.0002, 0.0, 0.0])
    assert float(smooth_calibration_error(below, correct)) == pytest.approx(
        float(smooth_calibration_error(above, correct)), abs=1e-4
    )


def test_without_completions_it_is_missing():
    assert math.isnan(smooth_calibration_error(torch.zeros(0), torch.zeros(0)))
