"""Gaps that are moved and drawn, against direct computation."""

import numpy as np
import pytest
import torch
from scipy.optimize import brentq

from caopd.metrics.functional.gaps import bin_gaps, draws_of, noise, standard_errors


def gaps_of(seed=0, number=300):
    generator = torch.Generator().manual_seed(seed)
    confidence = torch.randint(0, 11, (number,), generator=generator).double() / 10
    return bin_gaps(confidence, torch.rand(number, generator=generator) < 0.5, 10)


def test_gaps_move_by_equal_numbers_of_standard_errors_until_they_add_up():
    gaps, steps = gaps_of(), torch.linspace(0.01, 0.03, 10, dtype=torch.float64)
    size = gaps.gap_M.abs().numpy()
    for error in (0.0, 0.01, 0.1, float(gaps.error), 0.3):
        moved = gaps.moved_to(torch.tensor(error, dtype=torch.float64), steps)
        total = lambda step, error=error: np.maximum(size + step * steps.numpy(), 0).sum() - error  # noqa: E731
        step = -size.max() / 0.01 if error == 0 else brentq(total, -100, 100)
        expected = np.sign(gaps.gap_M.numpy()) * np.maximum(size + step * steps.numpy(), 0)
        assert moved.numpy() == pytest.approx(expected, abs=1e-9), error


def test_no_gap_is_larger_than_what_is_stated():
    """0.1 can be too high by 0.1 at most: the rest of the error is cut."""
    gaps = bin_gaps(torch.full((10,), 0.1), torch.zeros(10, dtype=torch.bool), 10)
    steps = standard_errors(gaps, noise([(gaps, torch.arange(10))]))
    assert float(gaps.moved_to(torch.tensor(0.5, dtype=torch.float64), steps).abs().sum()) == pytest.approx(0.1)
    drawn = gaps.drawn(gaps.gap_M, torch.full((10, 3), 100.0, dtype=torch.float64))
    assert float(drawn.max()) <= 0.1 + 1e-7


def test_noise_of_single_completions_is_that_of_independent_ones():
    gaps = gaps_of()
    covariance = noise([(gaps, torch.arange(300))])
    assert covariance.numpy() == pytest.approx(np.diag(gaps.share_M.numpy() / 300), abs=1e-12)


def test_noise_of_copies_is_that_of_one_and_that_of_two_sets_covers_both():
    """Two copies of one set on the same prompts: every covariance between them is the variance."""
    generator = torch.Generator().manual_seed(1)
    confidence = torch.randint(0, 2, (400,), generator=generator).double() * 0.5 + 0.25
    correct = torch.rand(400, generator=generator) < confidence
    prompt = torch.arange(400)
    one = bin_gaps(confidence, correct, 2)
    alone = noise([(one, prompt)])
    twice = bin_gaps(confidence.repeat(2), correct.repeat(2), 2)
    assert noise([(twice, prompt.repeat(2))]).numpy() == pytest.approx(alone.numpy(), abs=1e-5)
    both = noise([(one, prompt), (one, prompt)])
    assert both[:2, 2:].numpy() == pytest.approx(alone.numpy(), abs=1e-5)
    assert both[:2, :2].numpy() == pytest.approx(alone.numpy(), abs=1e-12)


def test_draws_have_the_covariance_and_no_mean():
    root = torch.tensor([[1.0, 0.0], [0.5, 2.0]], dtype=torch.float64)
    drawn = draws_of(root @ root.T, 100_000, seed=0)
    assert drawn.mean(1).abs().max() < 1e-12
    assert (drawn @ drawn.T / 100_000).numpy() == pytest.approx((root @ root.T).numpy(), abs=0.06)
