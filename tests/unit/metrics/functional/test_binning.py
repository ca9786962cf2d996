"""Bin edges: every decimal on an edge opens its bin, in every float width."""

from fractions import Fraction

import pytest
import torch

from caopd.metrics.functional.binning import equal_width_bins

WIDTHS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def bin_of(value: Fraction, n_bins: int) -> int:
    return min(int(value * n_bins), n_bins - 1)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("n_bins", [5, 10, 15, 20])
def test_every_edge_opens_its_bin(n_bins, width):
    edges = torch.tensor([k / n_bins for k in range(n_bins + 1)], dtype=width)
    assert equal_width_bins(edges, n_bins).tolist() == [*range(n_bins), n_bins - 1]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("n_bins", [5, 10, 20])
def test_every_two_digit_decimal_falls_where_exact_arithmetic_puts_it(n_bins, width):
    decimals = [f"{k // 100}.{k % 100:02d}" for k in range(101)]
    confidence = torch.tensor([float(decimal) for decimal in decimals], dtype=width)
    expected = [bin_of(Fraction(decimal), n_bins) for decimal in decimals]
    assert equal_width_bins(confidence, n_bins).tolist() == expected


@pytest.mark.parametrize("narrow", [torch.bfloat16, torch.float16])
def test_a_decimal_cast_down_from_float64_or_float32_opens_its_bin(narrow):
    values = [0.1, 0.3, 0.6, 0.7, 0.9]
    for wide in (torch.float64, torch.float32):
        assert equal_width_bins(torch.tensor(values, dtype=wide).to(narrow)).tolist() == [1, 3, 6, 7, 9]


def test_noise_of_float64_arithmetic_does_not_move_a_decimal():
    above, below = 0.1 + 0.2, 1 - 0.9
    assert above > 0.3
    assert below < 0.1
    assert equal_width_bins(torch.tensor([above, below], dtype=torch.float64)).tolist() == [3, 1]


def test_values_next_to_an_edge_in_float32_stay_on_their_side():
    edge = torch.tensor(0.3)
    below, above = torch.nextafter(edge, torch.tensor(0.0)), torch.nextafter(edge, torch.tensor(1.0))
    assert equal_width_bins(torch.stack([below, edge, above])).tolist() == [2, 3, 3]
