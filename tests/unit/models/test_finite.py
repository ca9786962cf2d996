import pytest
import torch

from caopd.errors import ModelError
from caopd.models import check_finite


def test_finite_weights_and_what_is_no_weight_pass():
    large = torch.tensor([3e38, -3e38, 2e38])  # the sum of whose squares is infinite
    check_finite({"large": large, "empty": torch.zeros(0), "counts": torch.tensor([1]), "name": "x"}, "", "")


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_others_are_named(value, dtype):
    weights = {"good": torch.ones(3, dtype=dtype), "bad": torch.ones(2, 3, dtype=dtype)}
    weights["bad"][1, 1] = value
    with pytest.raises(ModelError, match=r"weights of this model to be finite, but 1 of 2 .* as bad: take another\."):
        check_finite(weights, "this model", "take another.")
