"""TopK between one token and the whole vocabulary."""

import itertools

import pytest
import torch

from caopd.errors import ConfigError
from caopd.losses import JSD, ForwardKL, ReverseKL, TopK


@pytest.mark.parametrize("divergence", [ReverseKL(), ForwardKL(), JSD()], ids=str)
def test_more_tokens_see_more_and_all_but_one_see_everything(divergence):
    generator = torch.Generator().manual_seed(4)
    student, teacher = torch.randn(2, 30, 9, dtype=torch.float64, generator=generator)
    values = [TopK(divergence, k)(student, teacher) for k in range(1, 9)]
    values.append(divergence(student, teacher))
    assert (values[0] > 0).all()
    for fewer, more in itertools.pairwise(values):
        assert (fewer < more + 1e-12).all()
    torch.testing.assert_close(values[-2], values[-1], rtol=1e-12, atol=1e-14)


def test_sdpos_is_the_default():
    assert TopK() == TopK(ReverseKL(), 100)


@pytest.mark.parametrize("k", [0, -1])
def test_at_least_one_token_is_told_apart(k):
    with pytest.raises(ConfigError, match=rf"`k` of TopK.*1 or larger.*got {k}"):
        TopK(ReverseKL(), k)
