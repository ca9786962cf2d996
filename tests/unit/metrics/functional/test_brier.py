"""Brier score against scikit-learn, Murphy's parts against a loop."""

import math

import pytest
import torch
from sklearn.metrics import brier_score_loss

from caopd.metrics.functional import brier_score, murphy_decomposition


@pytest.fixture(params=[0, 1])
def completions(request):
    generator = torch.Generator().manual_seed(request.param)
    confidence = torch.randint(0, 11, (200,), generator=generator).double() / 10
    return confidence, torch.rand(200, generator=generator) < 0.3 + 0.5 * confidence


def test_brier_equals_scikit_learn(completions):
    confidence, correct = completions
    expected = brier_score_loss(correct.numpy(), confidence.numpy())
    assert float(brier_score(confidence, correct)) == pytest.approx(expected, abs=1e-12)


def test_murphy_parts_equal_a_loop_and_add_up(completions):
    confidence, correct = completions
    groups = {}
    for q, r in zip(confidence.tolist(), correct.tolist(), strict=True):
        groups.setdefault(q, []).append(int(r))
    overall = float(correct.double().mean())
    reliability = sum(len(rs) * (q - sum(rs) / len(rs)) ** 2 for q, rs in groups.items()) / len(confidence)
    resolution = sum(len(rs) * (sum(rs) / len(rs) - overall) ** 2 for rs in groups.values()) / len(confidence)
    parts = murphy_decomposition(confidence, correct)
    assert float(parts.reliability) == pytest.approx(reliability, abs=1e-12)
    assert float(parts.resolution) == pytest.approx(resolution, abs=1e-12)
    assert float(parts.uncertainty) == pytest.approx(overall * (1 - overall), abs=1e-12)
    total = parts.reliability - parts.resolution + parts.uncertainty
    assert float(total) == pytest.approx(float(brier_score(confidence, correct)), abs=1e-12)


def test_a_constant_confidence_has_no_resolution():
    parts = murphy_decomposition(torch.full((4,), 0.75), torch.tensor([1, 0, 0, 0]))
    assert [float(part) for part in parts] == [0.25, 0.0, 0.1875]


def test_without_completions_everything_is_missing():
    empty = torch.zeros(0)
    assert math.isnan(brier_score(empty, empty))
    assert all(math.isnan(part) for part in murphy_decomposition(empty, empty))
