"""Paired differences of the ECE against closed forms and simulation."""

import math

import numpy as np
import pytest
import torch

from caopd.errors import DataError
from caopd.metrics.functional.paired import Completions, calibration_difference


def completions(confidence, correct, prompt=None):
    prompt = torch.arange(len(correct)) if prompt is None else prompt
    return Completions(torch.as_tensor(confidence), torch.as_tensor(correct), prompt)


def test_a_set_does_not_differ_from_itself():
    generator = torch.Generator().manual_seed(0)
    confidence = torch.rand(300, generator=generator)
    one = completions(confidence, torch.rand(300, generator=generator) < confidence)
    found = calibration_difference(one, one)
    assert found.low < found.value == 0 < found.high


def test_pairs_that_differ_in_confidence_alone_have_a_narrow_interval():
    """0.9 against 0.8, right equally on the same prompts: the difference is 0.1 whoever is asked."""
    correct = torch.rand(500, generator=torch.Generator().manual_seed(1)) < 0.4
    high, low = (completions(torch.full((500,), q, dtype=torch.float64), correct) for q in (0.9, 0.8))
    found = calibration_difference(low, high)
    assert found.value == pytest.approx(0.1)
    assert (found.low, found.high) == pytest.approx((0.1, 0.1), abs=0.01)
    elsewhere = low._replace(prompt=low.prompt + 1000)
    unpaired = calibration_difference(elsewhere, high)
    half = 1.88 * math.sqrt(2 * 0.24 / 500)
    assert (unpaired.low, unpaired.high) == pytest.approx((0.1 - half, 0.1 + half), abs=0.012)


def test_swapped_sets_swap_the_interval():
    generator = torch.Generator().manual_seed(2)
    sets = [completions(torch.rand(200, generator=generator), torch.rand(200, generator=generator) < 0.5) for _ in "ab"]
    there, back = calibration_difference(*sets), calibration_difference(*reversed(sets))
    assert (there.low, there.value, there.high) == pytest.approx((-back.high, -back.value, -back.low), abs=0.01)


def test_equally_calibrated_sets_are_rarely_told_apart_though_one_shows_the_larger_error():
    """Both are calibrated; over ten bins chance shows three times the error that it shows in one."""
    found = []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        spread, constant = rng.random(200), np.full(200, 0.5)
        sets = [completions(q, rng.random(200) < q) for q in (constant, spread)]
        found.append(calibration_difference(*sets, draws=600))
    assert np.mean([each.value for each in found]) > 0.03
    assert sum(each.low > 0 or each.high < 0 for each in found) / 150 < 0.1


def test_wrong_shapes_are_refused():
    good = completions(torch.rand(3), torch.ones(3))
    with pytest.raises(DataError, match="same shape"):
        calibration_difference(good, completions(torch.rand(3), torch.ones(2)))
    with pytest.raises(DataError, match="same shape"):
        calibration_difference(good, good._replace(prompt=torch.arange(2)))
