"""What the boundary refuses, and that its messages say what to do."""

import pytest
import torch

from caopd.errors import ConfigError, DataError
from caopd.metrics.functional import brier_score, expected_calibration_error
from caopd.metrics.functional.validation import check_confidence

NAN, INF = float("nan"), float("inf")


def test_nan_is_counted_located_and_explained():
    with pytest.raises(DataError, match=r"2 NaN of 4 values, the first at index 1.*~confidence\.isnan\(\)"):
        brier_score(torch.tensor([0.5, NAN, 0.5, NAN]), torch.tensor([1, 0, 1, 0]))


@pytest.mark.parametrize(("bad", "shown"), [(1.5, "1.5"), (-0.25, "-0.25"), (INF, "inf"), (-INF, "-inf")])
def test_a_value_outside_the_range_is_counted_and_located(bad, shown):
    with pytest.raises(DataError, match=rf"1 of 3 values outside, the first at index 2 \({shown}\)"):
        brier_score(torch.tensor([0.5, 1.0, bad]), torch.tensor([1, 0, 1]))


def test_missing_values_are_allowed_only_where_asked_for():
    confidence = torch.tensor([0.5, NAN])
    assert check_confidence(confidence, allow_missing=True).isnan().tolist() == [False, True]
    with pytest.raises(DataError, match="1 of 2 values outside, the first at index 1"):
        check_confidence(torch.tensor([NAN, 2.0]), allow_missing=True)


@pytest.mark.parametrize("n_bins", [0, -3, 2.0, True, "10", None])
def test_n_bins_must_be_a_positive_integer(n_bins):
    with pytest.raises(ConfigError, match="Expected argument `n_bins` to be an integer larger than 0, but got"):
        expected_calibration_error(torch.tensor([0.5]), torch.tensor([1]), n_bins=n_bins)


@pytest.mark.parametrize(
    ("confidence", "correct", "message"),
    [
        (torch.zeros(3), torch.zeros(2), r"same shape \[N\], but got \(3,\) and \(2,\)"),
        (torch.zeros(2, 2), torch.zeros(2, 2), r"`confidence` to have shape \[N\], but got \(2, 2\)"),
        (torch.tensor(0.5), torch.tensor(1), r"`confidence` to have shape \[N\], but got \(\)"),
        (torch.zeros(2), torch.zeros(2, 1), r"`correct` to have shape \[N\], but got \(2, 1\)"),
        (
            torch.zeros(2, dtype=torch.int64),
            torch.zeros(2),
            r"`confidence` to be a float64.*but got torch\.int64",
        ),
        ([0.5], torch.zeros(1), "`confidence` to be a tensor, but got list"),
        (torch.zeros(1), [1], "`correct` to be a tensor, but got list"),
        (torch.zeros(3), torch.tensor([0, 1, 2]), r"only 0 and 1, but got 1 of 3.*index 2 \(2\)"),
        (torch.zeros(2), torch.tensor([0.5, 1.0]), r"only 0 and 1, but got 1 of 2.*index 0 \(0\.5\)"),
        (torch.zeros(2), torch.tensor([NAN, 1.0]), r"only 0 and 1, but got 1 of 2.*index 0 \(nan\)"),
    ],
)
def test_other_arguments_are_refused_with_what_came(confidence, correct, message):
    with pytest.raises(DataError, match=message):
        brier_score(confidence, correct)


def test_the_graph_is_left_behind():
    confidence = torch.tensor([0.5, 1.0], requires_grad=True)
    assert not brier_score(confidence, torch.tensor([1, 0])).requires_grad
