"""Many sets at once give what each set gives alone, from its completions."""

import math

import pytest
import torch

from caopd.metrics import functional as f
from caopd.metrics.functional.brier import (
    brier_of_counts,
    reliability_of_counts,
    resolution_of_counts,
    uncertainty_of_counts,
)
from caopd.metrics.functional.calibration_error import (
    adaptive_error_of_counts,
    debiased_error_of_counts,
    equal_width_error_of_counts,
    unique_value_error_of_counts,
)
from caopd.metrics.functional.counts import ValueCounts, merged, value_counts
from caopd.metrics.functional.means import (
    accuracy_of_counts,
    mean_confidence_of_counts,
    overconfidence_gap_of_counts,
)
from caopd.metrics.functional.ranking import auroc_of_counts, strict_pairwise_ranking_of_counts, tie_rate_of_counts
from caopd.metrics.functional.selective import aurc_of_counts, selective_accuracy_of_counts
from caopd.metrics.functional.smooth import smooth_error_of_counts

PAIRS = {
    "ece": (equal_width_error_of_counts, f.expected_calibration_error),
    "debiased": (debiased_error_of_counts, f.debiased_calibration_error),
    "adaptive": (adaptive_error_of_counts, f.adaptive_calibration_error),
    "unique": (unique_value_error_of_counts, f.unique_value_calibration_error),
    "brier": (brier_of_counts, f.brier_score),
    "reliability": (reliability_of_counts, lambda q, r: f.murphy_decomposition(q, r).reliability),
    "resolution": (resolution_of_counts, lambda q, r: f.murphy_decomposition(q, r).resolution),
    "uncertainty": (uncertainty_of_counts, lambda q, r: f.murphy_decomposition(q, r).uncertainty),
    "accuracy": (accuracy_of_counts, lambda q, r: f.accuracy(r)),
    "confidence": (mean_confidence_of_counts, lambda q, r: f.mean_confidence(q)),
    "gap": (overconfidence_gap_of_counts, f.overconfidence_gap),
    "spr": (strict_pairwise_ranking_of_counts, f.strict_pairwise_ranking),
    "auroc": (auroc_of_counts, f.auroc),
    "ties": (tie_rate_of_counts, f.tie_rate),
    "aurc": (aurc_of_counts, f.area_under_risk_coverage),
    "aurc_as_the_mean_of_the_curve": (aurc_of_counts, lambda q, r: f.risk_coverage_curve(q, r).risk.mean()),
    "selective": (
        lambda c: selective_accuracy_of_counts(c, 0.3),
        lambda q, r: 1 - f.risk_coverage_curve(q, r).risk[math.ceil(0.3 * len(q)) - 1] if len(q) else math.nan,
    ),
    "smooth": (smooth_error_of_counts, f.smooth_calibration_error),
}


def sets_of_counts():
    """Four sets over 15 values: a sparse one, a dense one, one of one class, and an empty one."""
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(15, generator=generator, dtype=torch.float64).sort().values
    counts = torch.randint(0, 12, (4, 15), generator=generator).double()
    counts[0] *= torch.rand(15, generator=generator) < 0.4
    counts[3] = 0
    correct = (counts * torch.rand(4, 15, generator=generator)).round()
    correct[2] = counts[2]
    return ValueCounts(values, counts, correct)


def completions_of(table, row):
    pairs = [
        (float(value), k < right)
        for value, n, right in zip(
            *(part.tolist() for part in (table.values, table.counts[row], table.correct[row])), strict=True
        )
        for k in range(int(n))
    ]
    return torch.tensor([q for q, _ in pairs], dtype=torch.float64), torch.tensor(
        [r for _, r in pairs], dtype=torch.bool
    )


@pytest.mark.parametrize("name", PAIRS)
def test_many_sets_at_once_equal_each_alone(name):
    of_counts, of_completions = PAIRS[name]
    table = sets_of_counts()
    expected = [float(of_completions(*completions_of(table, row))) for row in range(4)]
    assert of_counts(table).tolist() == pytest.approx(expected, abs=1e-12, nan_ok=True)
    assert math.isnan(expected[3])


def test_counts_are_those_of_a_loop():
    confidence = torch.tensor([0.9, 0.1, 0.9, 0.5, 0.1, 0.9], dtype=torch.float64)
    counts = value_counts(confidence, torch.tensor([1, 0, 0, 1, 1, 1]).bool())
    assert counts.values.tolist() == [0.1, 0.5, 0.9]
    assert counts.counts.tolist() == [2, 1, 3]
    assert counts.correct.tolist() == [1, 1, 2]


def test_batches_behind_one_another_are_the_whole_bit_for_bit():
    generator = torch.Generator().manual_seed(0)
    confidence, correct = (
        torch.randint(0, 11, (90,), generator=generator) / 10,
        torch.rand(90, generator=generator) < 0.5,
    )
    tables = [value_counts(q, r) for q, r in zip(confidence.split(7), correct.split(7), strict=True)]
    for got, expected in zip(
        merged(*map(torch.cat, zip(*tables, strict=True))), value_counts(confidence, correct), strict=True
    ):
        assert torch.equal(got, expected)


def test_without_any_value_everything_is_missing():
    table = ValueCounts(torch.zeros(0), torch.zeros(2, 0, dtype=torch.float64), torch.zeros(2, 0, dtype=torch.float64))
    for of_counts, _ in PAIRS.values():
        assert all(math.isnan(value) for value in of_counts(table).tolist())
