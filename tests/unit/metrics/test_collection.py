"""All headline numbers at once, with missing confidences kept apart."""

import copy
import math
import pickle

import pytest
import torch
from matplotlib.figure import Figure
from scipy.stats import foldnorm
from sklearn.metrics import brier_score_loss, roc_auc_score

from caopd.errors import DataError
from caopd.metrics import CalibrationMetrics
from caopd.metrics.functional import (
    debiased_calibration_error,
    expected_calibration_error,
    overconfidence_gap,
    strict_pairwise_ranking,
    tie_rate,
)

NAN = float("nan")
KEYS = {
    *("accuracy", "ece", "debiased_ece", "brier", "ocg", "spr", "auroc", "tie_rate", "mean_confidence"),
    *("format_adherence", "answer_parse_rate", "n", "n_parsed"),
    *("decimal_format", "other_form", "answer_other_form"),
    *("ece_strict", "brier_strict", "ocg_strict", "mean_confidence_strict"),
}


def completions(n=400, seed=0):
    generator = torch.Generator().manual_seed(seed)
    confidence = torch.randint(0, 21, (n,), generator=generator).double() / 20
    correct = torch.rand(n, generator=generator) < 0.2 + 0.5 * confidence
    confidence[torch.rand(n, generator=generator) < 0.2] = NAN
    shares = (0.9, 0.3, 0.1)  # of answers, of other forms, of answers in other forms
    return confidence, correct, *(torch.rand(n, generator=generator) < share for share in shares)


def from_scratch(confidence, correct, answered, stated_otherwise, answered_otherwise):
    """Every value from the other oracles, on the whole set."""
    parsed = ~confidence.isnan()
    q, r = confidence[parsed], correct[parsed]
    zeroed = confidence.nan_to_num(0.0)
    return {
        "accuracy": correct.double().mean(),
        "ece": expected_calibration_error(q, r),
        "debiased_ece": debiased_calibration_error(q, r),
        "brier": brier_score_loss(r.numpy(), q.numpy()),
        "ocg": overconfidence_gap(q, r),
        "spr": strict_pairwise_ranking(q, r),
        "auroc": roc_auc_score(r.numpy(), q.numpy()),
        "tie_rate": tie_rate(q, r),
        "mean_confidence": q.mean(),
        "format_adherence": parsed.double().mean(),
        "decimal_format": (parsed & ~stated_otherwise).double().mean(),
        "other_form": (parsed & stated_otherwise).double().mean(),
        "answer_parse_rate": answered.double().mean(),
        "answer_other_form": answered_otherwise.double().mean(),
        "ece_strict": expected_calibration_error(zeroed, correct),
        "brier_strict": brier_score_loss(correct.numpy(), zeroed.numpy()),
        "ocg_strict": overconfidence_gap(zeroed, correct),
        "mean_confidence_strict": zeroed.mean(),
        "n": confidence.numel(),
        "n_parsed": q.numel(),
    }


def assert_same(values, expected):
    assert set(values) == set(expected) == KEYS
    for key, value in expected.items():
        assert values[key].dtype == torch.float64
        assert float(values[key]) == pytest.approx(float(value), abs=1e-12, nan_ok=True), key


def test_batches_equal_the_oracles_on_the_whole_set():
    whole = completions()
    metrics = CalibrationMetrics()
    for batch in zip(*(part.split(33) for part in whole), strict=True):
        metrics.update(*batch)
    assert_same(metrics.compute(), from_scratch(*whole))


def test_the_split_into_batches_changes_no_bit():
    whole = completions()
    one, many = CalibrationMetrics(), CalibrationMetrics()
    one.update(*whole)
    for batch in zip(*(part.split(3) for part in whole), strict=True):
        many.update(*batch)
    assert one.compute() == many.compute()
    assert many.values[0].numel() <= 21  # more than a hundred batches: equal confidences were merged


def test_widths_may_differ_between_batches():
    """The bfloat16 number next to 0.7 opens its bin as long as no wider number stands beside it."""
    metrics = CalibrationMetrics()
    metrics.update(torch.tensor([0.7], dtype=torch.bfloat16), torch.tensor([1]))
    assert metrics.bins().counts.index(1) == 7
    metrics.update(torch.tensor([0.7]), torch.tensor([1]))
    assert metrics.bins().counts[6:8] == (1, 1)


FORMS = (torch.tensor([1, 1, 1, 1, 0]), torch.tensor([0, 1, 0, 0, 0]), torch.tensor([0, 0, 0, 1, 0]))


def test_a_table_by_hand():
    # Parsed: 0.9 right, 0.9 wrong, 0.5 wrong. Missing: one right, one wrong.
    metrics = CalibrationMetrics()
    confidence = torch.tensor([0.9, 0.9, 0.5, NAN, NAN], dtype=torch.float64)
    metrics.update(confidence, torch.tensor([1, 0, 0, 1, 0]), *FORMS)
    expected = {
        "accuracy": 2 / 5,
        "ece": (2 * 0.4 + 0.5) / 3,
        # Twice 1.3, minus the means of two folded normals: gap 0.8 with variance 0.82 - 0.8^2 / 2, and gap 0.5 with 0.
        "debiased_ece": (2 * 1.3 - foldnorm.mean(0.8 / 0.5**0.5, scale=0.5**0.5) - 0.5) / 3,
        "brier": (0.01 + 0.81 + 0.25) / 3,
        "ocg": 2.3 / 3 - 1 / 3,
        "spr": 1 / 2,
        "auroc": 3 / 4,
        "tie_rate": 1 / 2,
        "mean_confidence": 2.3 / 3,
        "format_adherence": 3 / 5,
        "decimal_format": 2 / 5,
        "other_form": 1 / 5,
        "answer_parse_rate": 4 / 5,
        "answer_other_form": 1 / 5,
        "ece_strict": (2 * 0.4 + 0.5 + 2 * 0.5) / 5,
        "brier_strict": (0.01 + 0.81 + 0.25 + 1.0) / 5,
        "ocg_strict": 2.3 / 5 - 2 / 5,
        "mean_confidence_strict": 2.3 / 5,
        "n": 5,
        "n_parsed": 3,
    }
    assert_same(metrics.compute(), expected)
    assert metrics.bins().counts == (0, 0, 0, 0, 0, 1, 0, 0, 0, 2)
    assert metrics.bins().ece == pytest.approx(expected["ece"])


def test_answer_parse_rate_leaves_out_batches_where_it_is_not_known():
    metrics = CalibrationMetrics()
    metrics.update(torch.tensor([0.5, 0.5]), torch.tensor([1, 0]))
    assert math.isnan(metrics.compute()["answer_parse_rate"])
    metrics.update(torch.tensor([0.5, 0.5]), torch.tensor([1, 0]), torch.tensor([1, 0]))
    assert float(metrics.compute()["answer_parse_rate"]) == 0.5
    assert float(metrics.compute()["n"]) == 4


def test_when_no_confidence_parses_calibration_is_missing_but_accuracy_is_not():
    metrics = CalibrationMetrics()
    metrics.update(torch.tensor([NAN, NAN]), torch.tensor([1, 0]))
    values = {key: float(value) for key, value in metrics.compute().items()}
    for key in ("ece", "brier", "ocg", "spr", "auroc", "tie_rate", "mean_confidence"):
        assert math.isnan(values[key])
    assert values["accuracy"] == values["ece_strict"] == values["brier_strict"] == 0.5
    assert values["ocg_strict"] == -0.5
    assert values["format_adherence"] == 0.0


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric:UserWarning")
def test_before_any_update_only_the_counts_are_numbers():
    values = CalibrationMetrics().compute()
    assert {key for key, value in values.items() if not math.isnan(value)} == {"n", "n_parsed"}
    assert float(values["n"]) == 0.0


@pytest.mark.parametrize("width", [torch.float32, torch.bfloat16, torch.float16])
def test_narrow_confidences_fall_in_the_same_bins(width):
    confidence, correct, *forms = completions()
    narrow, wide = CalibrationMetrics(), CalibrationMetrics()
    narrow.update(confidence.to(width), correct, *forms)
    wide.update(confidence, correct, *forms)
    assert narrow.bins().counts == wide.bins().counts
    assert float(narrow.compute()["spr"]) == float(wide.compute()["spr"])


def test_pickle_copy_reset_and_inference_mode():
    first, second = completions(100, seed=1), completions(100, seed=2)
    expected = from_scratch(*(torch.cat(parts) for parts in zip(first, second, strict=True)))
    metrics = CalibrationMetrics()
    with torch.inference_mode():
        metrics.update(*(part.clone() for part in first))
    for twin in (pickle.loads(pickle.dumps(metrics)), copy.deepcopy(metrics), metrics):
        twin.update(*second)
        assert_same(twin.compute(), expected)
    metrics.reset()
    metrics.update(*second)
    assert_same(metrics.compute(), from_scratch(*second))


def test_forward_gives_the_batch_and_keeps_the_whole():
    first, second = completions(100, seed=1), completions(100, seed=2)
    metrics = CalibrationMetrics()
    assert_same(metrics(*first), from_scratch(*first))
    assert_same(metrics(*second), from_scratch(*second))
    assert_same(metrics.compute(), from_scratch(*(torch.cat(parts) for parts in zip(first, second, strict=True))))


def test_bad_batches_are_refused_and_leave_no_trace():
    batch = completions(50)
    metrics = CalibrationMetrics()
    metrics.update(*batch)
    with pytest.raises(DataError, match="1 of 2 values outside, the first at index 0"):
        metrics.update(torch.tensor([90.0, NAN]), torch.tensor([1, 0]))
    with pytest.raises(DataError, match=r"`confidence` and `answered` to have the same shape"):
        metrics.update(torch.tensor([0.5, NAN]), torch.tensor([1, 0]), torch.tensor([1]))
    with pytest.raises(DataError, match="`answered` to hold only 0 and 1"):
        metrics.update(torch.tensor([0.5]), torch.tensor([1]), torch.tensor([2]))
    assert_same(metrics.compute(), from_scratch(*batch))


def test_plot_shows_rates_and_no_counts():
    metrics = CalibrationMetrics()
    metrics.update(*completions(50))
    axes = Figure().subplots()
    metrics.plot(ax=axes)
    labels = {line.get_label() for line in axes.lines}
    assert {"ece", "spr"} <= labels
    assert not {"n", "n_parsed"} & labels
