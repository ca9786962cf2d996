"""The distributions of the intervals' benchmark have the ECE that they say, and its page says what falls outside."""

import numpy as np
import pytest
import torch

from caopd.metrics.functional import expected_calibration_error
from covering.distributions import DISTRIBUTIONS
from covering.page import page


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_a_very_large_set_shows_the_true_error(name):
    distribution = DISTRIBUTIONS[name]
    pair = distribution.sample(distribution.gaps(0.1), 100_000, 2, np.random.default_rng(0))
    error = expected_calibration_error(*(torch.from_numpy(each.ravel()) for each in pair))
    assert float(error) == pytest.approx(0.1, abs=0.006)


def test_the_page_names_the_cells_that_are_outside():
    keys = ("too_high", "too_low", "width", "significant", "floor", "bias_plug_in", "bias_debiased")
    cell = dict.fromkeys((*keys, "rmse_plug_in", "rmse_debiased"), 0.01)
    cell |= {"distribution": "few", "per_prompt": 4, "num_prompts": 200, "data_sets": 9}
    text = page({"errors": [cell | {"error": 0.0, "held": 1.0}, cell | {"error": 0.05, "held": 0.89}]})
    assert "Outside 0.90 to 0.98: few, 200 prompts of 4, true 0.05: 0.890." in text
