"""Pair counts against all pairs, scikit-learn and torchmetrics."""

import math

import pytest
import torch
from sklearn.metrics import roc_auc_score
from torchmetrics.functional.classification import binary_auroc

from caopd.metrics.functional import auroc, strict_pairwise_ranking, tie_rate


def completions(seed, n=150, values=11):
    generator = torch.Generator().manual_seed(seed)
    confidence = torch.randint(0, values, (n,), generator=generator).double() / (values - 1)
    return confidence, torch.rand(n, generator=generator) < 0.2 + 0.6 * confidence


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("values", [2, 11, 100_001])
def test_ranking_equals_the_count_over_all_pairs(seed, values):
    confidence, correct = completions(seed, values=values)
    right = [q for q, r in zip(confidence.tolist(), correct.tolist(), strict=True) if r]
    wrong = [q for q, r in zip(confidence.tolist(), correct.tolist(), strict=True) if not r]
    pairs = len(right) * len(wrong)
    ordered = sum(q > other for q in right for other in wrong)
    tied = sum(q == other for q in right for other in wrong)
    assert float(strict_pairwise_ranking(confidence, correct)) == ordered / pairs
    assert float(tie_rate(confidence, correct)) == tied / pairs
    assert float(auroc(confidence, correct)) == (ordered + tied / 2) / pairs


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_auroc_equals_scikit_learn_and_torchmetrics(seed):
    confidence, correct = completions(seed, n=500)
    ours = float(auroc(confidence, correct))
    assert ours == pytest.approx(roc_auc_score(correct.numpy(), confidence.numpy()), abs=1e-12)
    assert ours == pytest.approx(float(binary_auroc(confidence, correct.int())), abs=1e-6)


@pytest.mark.parametrize("width", [torch.float32, torch.bfloat16, torch.float16])
def test_narrow_widths_keep_the_ties_of_decimals(width):
    confidence, correct = completions(5)
    narrow = confidence.to(width)
    assert float(tie_rate(narrow, correct)) == float(tie_rate(confidence, correct))
    assert float(strict_pairwise_ranking(narrow, correct)) == float(strict_pairwise_ranking(confidence, correct))


def test_a_model_that_always_says_the_same_earns_nothing():
    confidence, correct = torch.full((6,), 0.97), torch.tensor([1, 1, 1, 0, 0, 1])
    assert float(strict_pairwise_ranking(confidence, correct)) == 0.0
    assert float(auroc(confidence, correct)) == 0.5
    assert float(tie_rate(confidence, correct)) == 1.0


@pytest.mark.parametrize("metric", [strict_pairwise_ranking, auroc, tie_rate])
@pytest.mark.parametrize("correct", [[1, 1], [0, 0], []])
def test_an_empty_class_is_missing_not_zero(metric, correct):
    assert math.isnan(metric(torch.full((len(correct),), 0.5), torch.tensor(correct, dtype=torch.int64)))


def test_many_completions_need_no_memory_for_all_pairs():
    # All pairs of 200,000 completions would be 10^10 numbers. Even confidences are right, odd ones wrong.
    n = 200_000
    confidence = torch.arange(n, dtype=torch.float64) / n
    correct = torch.arange(n) % 2 == 0
    expected = (n // 2) * (n // 2 - 1) // 2 / (n // 2) ** 2
    assert float(strict_pairwise_ranking(confidence, correct)) == pytest.approx(expected, abs=1e-15)
