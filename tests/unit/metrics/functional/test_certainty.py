"""Certainty of the ECE against enumeration, closed forms and simulation."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import binom, norm
from sklearn.metrics import accuracy_score

from caopd.errors import ConfigError, DataError
from caopd.metrics.functional import calibration_certainty, debiased_calibration_error, expected_calibration_error


def one_value(confidence, right, number):
    """Certainty of completions that all state one confidence."""
    return calibration_certainty(torch.full((number,), confidence, dtype=torch.float64), torch.arange(number) < right)


def simulated(seed, num_prompts, per_prompt=1, gap=0.0):
    """Confidences in steps of 0.1 that are right with their own probability, minus a gap from 0.5 on.

    Completions of a prompt are right together half of the time.
    """
    rng = np.random.default_rng(seed)
    size = (num_prompts, per_prompt)
    confidence = np.broadcast_to(rng.integers(1, 10, (num_prompts, 1)) / 10, size)
    shared = rng.random(size) < 0.5
    chance = np.where(shared, rng.random((num_prompts, 1)), rng.random(size))
    correct = chance < confidence - gap * (confidence > 0.45)
    prompt = np.repeat(np.arange(num_prompts), per_prompt)
    return tuple(torch.from_numpy(np.ascontiguousarray(each).ravel()) for each in (confidence, correct, prompt))


@pytest.mark.parametrize("right", [0, 3, 20, 50, 77, 100])
def test_the_interval_of_one_value_is_much_like_wilsons(right):
    """All state 0.5 and the ECE is |accuracy - 1/2|: an oracle is the score interval of the accuracy."""
    found = one_value(0.5, right, 100)
    z, share = norm.ppf(0.97), right / 100  # 0.94 is what is kept of a true error above 0
    centre = (share + z * z / 200) / (1 + z * z / 100)
    half = z / (1 + z * z / 100) * math.sqrt(share * (1 - share) / 100 + z * z / 40000)
    ends = sorted((abs(centre - half - 0.5), abs(centre + half - 0.5)))
    if abs(share - 0.5) > half:
        assert (found.low, found.high) == pytest.approx(ends, abs=0.012)
    else:
        assert found.low == 0.0
        assert found.high == pytest.approx(max(ends), abs=0.025)


def test_errors_that_were_not_seen_are_not_ruled_out():
    """No error in 200 completions that state 1.0: the true error may well be 1 in 100, and the p-value is 1."""
    found = one_value(1.0, 200, 200)
    assert (found.ece, found.debiased, found.low, found.p_value) == (0.0, 0.0, 0.0, 1.0)
    assert 0.01 < found.high < 0.025
    assert (found.floor, found.floor_high) == (0.0, 0.0)


def test_the_floor_is_that_of_all_outcomes():
    """Enumerated: 60 completions of 0.3 and 40 of 0.8, right with just these probabilities."""
    confidence = torch.tensor([0.3] * 60 + [0.8] * 40, dtype=torch.float64)
    found = calibration_certainty(confidence, torch.arange(100) % 2 == 0, draws=20_000)
    first, second = np.arange(61)[:, None], np.arange(41)[None, :]
    chance = (binom.pmf(first, 60, 0.3) * binom.pmf(second, 40, 0.8)).ravel()
    error = ((abs(first - 18) + abs(second - 32)) / 100).ravel()
    order = error.argsort()
    quantiles = error[order][np.searchsorted(chance[order].cumsum(), [0.025, 0.975])]
    assert found.floor == pytest.approx((chance * error).sum(), abs=0.001)
    assert (found.floor_low, found.floor_high) == pytest.approx(tuple(quantiles), abs=0.011)  # a step of 1/100
    at_least = chance[error >= found.ece - 1e-9].sum()
    assert found.p_value == pytest.approx(at_least, abs=0.02)


def test_the_interval_leaves_out_zero_where_the_p_value_is_small():
    for right in range(30, 71):
        found = one_value(0.5, right, 100)
        assert (found.low > 0) == (found.p_value < 0.05), right


def test_an_interval_holds_an_error_that_is_clear():
    """Far from 0 chance adds nothing, and the interval is that of a mean of 5,000."""
    confidence = torch.full((5000,), 0.9, dtype=torch.float64)
    found = calibration_certainty(confidence, torch.arange(5000) % 2 == 0)
    half = 1.88 * 0.5 / math.sqrt(5000)
    assert (found.low, found.high) == pytest.approx((0.4 - half, 0.4 + half), abs=0.002)
    assert found.debiased == pytest.approx(0.4, abs=1e-9)


def test_equal_completions_of_a_prompt_are_one():
    """Eight copies of each completion say no more than one."""
    confidence, correct, prompt = simulated(3, 300)
    alone = calibration_certainty(confidence, correct, prompt)
    copied = calibration_certainty(*(each.repeat_interleave(8) for each in (confidence, correct, prompt)))
    apart = calibration_certainty(*(each.repeat_interleave(8) for each in (confidence, correct)))
    assert copied.ece == pytest.approx(alone.ece)
    for name in ("debiased", "floor", "floor_high", "high"):
        assert getattr(copied, name) == pytest.approx(getattr(alone, name), abs=0.004), name
    assert apart.floor < 0.5 * copied.floor
    assert apart.debiased > copied.debiased


def test_prompts_may_have_any_numbers_and_any_order():
    confidence, correct, prompt = simulated(4, 100, per_prompt=3)
    shuffled = torch.randperm(300, generator=torch.Generator().manual_seed(0))
    found = calibration_certainty(confidence[shuffled], correct[shuffled], 7 * prompt[shuffled] - 50)
    assert found.high == pytest.approx(calibration_certainty(confidence, correct, prompt).high, abs=1e-3)


@pytest.mark.parametrize(("per_prompt", "gap"), [(1, 0.0), (1, 0.15), (4, 0.0), (4, 0.15)])
def test_intervals_hold_the_truth_and_calibrated_models_are_rarely_called_otherwise(per_prompt, gap):
    """200 data sets: shares have a standard error of 0.015 to 0.02. The true ECE is the gap times 5/9."""
    truth = gap * 5 / 9
    found = [calibration_certainty(*simulated(seed, 200, per_prompt, gap), draws=600) for seed in range(200)]
    held = sum(each.low <= truth <= each.high for each in found) / 200
    assert held >= 0.9
    significant = sum(each.p_value < 0.05 for each in found) / 200
    assert significant <= 0.1 if gap == 0 else significant > 0.6
    plug_in, debiased = (np.mean([getattr(each, name) for each in found]) - truth for name in ("ece", "debiased"))
    assert abs(debiased) < 0.75 * abs(plug_in)


def test_the_debiased_error_of_single_completions_is_that_of_the_function():
    confidence, correct, _ = simulated(5, 400)
    found = calibration_certainty(confidence, correct)
    assert found.debiased == pytest.approx(float(debiased_calibration_error(confidence, correct)), abs=1e-12)
    assert found.ece == pytest.approx(float(expected_calibration_error(confidence, correct)), abs=1e-12)


def test_the_debiased_error_is_kumars_by_draws():
    """Their estimator draws labels' means from normals: twice the error minus the mean error of these draws."""
    confidence, correct, _ = simulated(6, 300)
    bins = (confidence * 10 + 1e-6).int()
    rng, error, drawn = np.random.default_rng(0), 0.0, np.zeros(200_000)
    for each in bins.unique():
        rows = bins == each
        share, accuracy = float(rows.double().mean()), accuracy_score(correct[rows], np.ones(int(rows.sum())))
        spread = math.sqrt(accuracy * (1 - accuracy) / int(rows.sum()))
        stated = float(confidence[rows].mean())
        error += share * abs(stated - accuracy)
        drawn += share * abs(stated - rng.normal(accuracy, spread, len(drawn)))
    expected = max(0.0, 2 * error - drawn.mean())
    assert float(debiased_calibration_error(confidence, correct)) == pytest.approx(expected, abs=3e-4)


def test_the_same_completions_give_the_same_certainty_and_another_seed_another():
    completions = simulated(7, 100)
    first, again, other = (calibration_certainty(*completions, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first.floor != other.floor


def test_without_completions_or_with_one_prompt():
    empty = calibration_certainty(torch.zeros(0), torch.zeros(0))
    assert math.isnan(empty.ece)
    assert math.isnan(empty.p_value)
    one = calibration_certainty(torch.full((5,), 0.5), torch.ones(5), torch.zeros(5, dtype=torch.int64))
    assert one.ece == 0.5
    assert math.isnan(one.low)
    assert math.isnan(one.high)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"n_bins": 0}, ConfigError, "n_bins"),
        ({"prompt": torch.zeros(2, dtype=torch.int64)}, DataError, "`confidence` and `prompt` to have the same shape"),
        ({"prompt": torch.zeros(3)}, DataError, "`prompt` to be an integer tensor"),
        ({"prompt": [0, 1, 2]}, DataError, "`prompt` to be a tensor"),
    ],
)
def test_bad_input_is_refused(settings, error, message):
    with pytest.raises(error, match=message):
        calibration_certainty(torch.full((3,), 0.5), torch.ones(3), **settings)
