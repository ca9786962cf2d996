"""Values and intervals against accumulated metrics, scikit-learn, and resamples made by hand."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import brier_score_loss, roc_auc_score

from caopd.commands.score.bootstrap import MAX_VALUES, score
from caopd.commands.score.predictions import Predictions
from caopd.errors import ConfigError
from caopd.metrics import CalibrationMetrics
from caopd.metrics import functional as f

ERRORS = ("ece", "debiased_ece", "ece_strict")
"""Their intervals are no bootstrap."""


def predictions(prompt, confidence, correct, answered=None, category=None, categories=(), form=None):
    n = len(prompt)
    return Predictions(
        confidence=np.asarray(confidence, dtype=np.float64),
        correct=np.asarray(correct, dtype=bool),
        answered=np.full(n, -1, np.int8) if answered is None else np.asarray(answered, np.int8),
        form=np.full(n, -1, np.int8) if form is None else np.asarray(form, np.int8),
        prompt=np.asarray(prompt, dtype=np.int64),
        category=np.full(n, -1) if category is None else np.asarray(category, dtype=np.int64),
        categories=categories,
    )


def sampled(num_prompts=60, per_prompt=5, seed=0, digits=1, missing=0.2):
    """Completions of prompts that differ in difficulty, in random order, with uneven numbers per prompt."""
    rng = np.random.default_rng(seed)
    prompt = rng.permutation(
        np.concatenate([np.arange(num_prompts), rng.integers(0, num_prompts, num_prompts * (per_prompt - 1))])
    )
    ability = rng.beta(1, 1, num_prompts)
    confidence = np.clip(ability[prompt] + rng.normal(0, 0.2, len(prompt)), 0, 1).round(digits)
    confidence[rng.random(len(prompt)) < missing] = np.nan
    category = prompt % 3 - 1
    return predictions(
        prompt,
        confidence,
        rng.random(len(prompt)) < ability[prompt],
        rng.integers(-1, 3, len(prompt)),
        category,
        ("a", "b"),
        np.where(np.isnan(confidence), 0, rng.integers(1, 3, len(prompt))),
    )


def chosen(found, index):
    """The completions at ``index``, every one with a prompt number of its own kept as it is."""
    columns = (found.prompt, found.confidence, found.correct, found.answered, found.category)
    return predictions(*(column[index] for column in columns), categories=found.categories, form=found.form[index])


def expected_values(found):
    """Every measure from the completions themselves."""
    confidence, correct = torch.from_numpy(found.confidence), torch.from_numpy(found.correct)
    parsed = ~confidence.isnan()
    q, r = confidence[parsed], correct[parsed]
    metrics = CalibrationMetrics()
    metrics.update(confidence, correct)
    known = found.answered >= 0
    values = {name: float(value) for name, value in metrics.compute().items()}
    del values["n"], values["n_parsed"]
    parts = f.murphy_decomposition(q, r)
    prompt = torch.from_numpy(found.prompt)[parsed]
    values["debiased_ece"] = f.calibration_certainty(q, r, prompt).debiased
    return values | {
        "auroc": roc_auc_score(r, q) if 0 < r.sum() < len(r) else math.nan,
        "brier": brier_score_loss(r, q) if len(r) else math.nan,
        "answer_parse_rate": (found.answered >= 1).sum() / known.sum() if known.any() else math.nan,
        "answer_other_form": (found.answered == 2).sum() / known.sum() if known.any() else math.nan,
        "decimal_format": share(found.form == 1, found.form >= 0),
        "other_form": share(found.form == 2, found.form >= 0),
        "brier_reliability": float(parts.reliability),
        "brier_resolution": float(parts.resolution),
        "brier_uncertainty": float(parts.uncertainty),
        "adaptive_ece": float(f.adaptive_calibration_error(q, r)),
        "unique_value_ece": float(f.unique_value_calibration_error(q, r)),
        "smooth_ece": float(f.smooth_calibration_error(q, r)),
        "aurc": float(f.risk_coverage_curve(q, r).risk.mean()),
        **{f"selective_accuracy_{c}": float(f.selective_accuracy(q, r, c)) for c in (0.5, 0.8, 0.9)},
    }


def share(having, known):
    return having.sum() / known.sum() if known.any() else math.nan


def assert_values(scores, expected):
    assert set(scores.estimates) == set(expected)
    for name, value in expected.items():
        got = scores.estimates[name].value
        assert got == pytest.approx(None if math.isnan(value) else value, abs=1e-12), name


def test_values_are_those_of_the_completions_overall_and_in_each_group():
    found = sampled()
    overall, categories = score(found, resamples=0)
    assert_values(overall, expected_values(found))
    assert list(categories) == ["a", "b"]
    for number, name in enumerate(found.categories):
        part = chosen(found, found.category == number)
        assert_values(categories[name], expected_values(part))
        assert categories[name].n == len(part.prompt)
        assert categories[name].n_prompts == 20
        assert categories[name].n_parsed == np.isfinite(part.confidence).sum()
    assert overall.n_prompts == 60
    assert all(estimate.low is None for estimate in overall.estimates.values())


def test_what_is_scored_is_what_is_logged_to_the_last_bit():
    found = sampled(digits=2)
    metrics = CalibrationMetrics()
    for start in range(0, len(found.prompt), 16):
        part = chosen(found, slice(start, start + 16))
        columns = (part.confidence, part.correct, part.answered >= 1, part.form == 2, part.answered == 2)
        metrics.update(*map(torch.from_numpy, columns))
    logged = {name: float(value) for name, value in metrics.compute().items()}
    estimates = score(found, resamples=0)[0].estimates
    # Logs do not know which completions share a prompt, which takes more off the debiased error.
    for name in logged.keys() - {"answer_parse_rate", "answer_other_form", "debiased_ece", "n", "n_parsed"}:
        assert estimates[name].value == logged[name], name


def test_each_measure_says_how_many_completions_it_runs_over():
    found = predictions([0, 1, 2, 3], [0.5, np.nan, 0.2, 0.9], [1, 1, 0, 0], [1, -1, 0, -1])
    estimates = score(found, resamples=0)[0].estimates
    assert {name: estimates[name].n for name in ("accuracy", "format_adherence", "ece_strict")} == dict.fromkeys(
        ("accuracy", "format_adherence", "ece_strict"), 4
    )
    assert estimates["ece"].n == estimates["spr"].n == estimates["aurc"].n == 3
    assert estimates["answer_parse_rate"].n == 2


@pytest.mark.parametrize("seed", range(5))
def test_a_resample_is_the_completions_of_the_prompts_resampled(seed):
    """With one resample both ends of the interval are its value: here from a list of repeated completions."""
    found = sampled(seed=seed)
    resampled = np.random.default_rng(seed).integers(60, size=60, dtype=np.uint32)
    repeated = np.concatenate([np.flatnonzero(found.prompt == prompt) for prompt in resampled])
    overall, categories = score(found, resamples=1, seed=seed)
    parts = [chosen(found, repeated[found.category[repeated] == number]) for number in (0, 1)]
    for scores, part in zip([overall, *categories.values()], [chosen(found, repeated), *parts], strict=True):
        for name, value in expected_values(part).items():
            if name in ERRORS:
                continue
            assert scores.estimates[name].low == pytest.approx(value, abs=1e-12), name
            assert scores.estimates[name].high == pytest.approx(value, abs=1e-12), name


def by_hand(found, resamples, measure, seed=100):
    """Percentile interval of prompts resampled with replacement, from repeated completions."""
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(found.prompt == prompt) for prompt in range(found.prompt.max() + 1)]
    values = []
    for _ in range(resamples):
        index = np.concatenate([members[prompt] for prompt in rng.integers(0, len(members), len(members))])
        index = index[np.isfinite(found.confidence[index])]
        values.append(measure(found.correct[index], found.confidence[index]))
    return np.quantile(values, [0.025, 0.975])


@pytest.mark.parametrize("digits", [1, 12])
@pytest.mark.parametrize("per_prompt", [1, 4])
def test_intervals_agree_with_a_bootstrap_by_hand(per_prompt, digits):
    """With ties and without, one completion a prompt (resampled as a multinomial) and several."""
    found = sampled(num_prompts=120, per_prompt=per_prompt, digits=digits, seed=3)
    estimates = score(found, resamples=1500)[0].estimates
    for name, measure in (("brier", brier_score_loss), ("auroc", roc_auc_score)):
        ends = (estimates[name].low, estimates[name].high)
        # Two bootstraps of this size differ by some per cent of the interval's width.
        assert ends == pytest.approx(by_hand(found, 500, measure), abs=0.15 * (ends[1] - ends[0])), name


def test_intervals_are_those_of_prompts_and_not_of_completions():
    """Eight equal completions a prompt carry no more than one: the closed form of a mean of 400 prompts."""
    right = np.random.default_rng(0).random(400) < 0.3
    found = predictions(np.repeat(np.arange(400), 8), np.full(3200, 0.5), np.repeat(right, 8))
    accuracy = score(found, resamples=2000)[0].estimates["accuracy"]
    half = 1.96 * math.sqrt(right.mean() * (1 - right.mean()) / 400)
    assert (accuracy.low, accuracy.high) == pytest.approx((right.mean() - half, right.mean() + half), abs=0.1 * half)


def test_many_distinct_values_are_merged_for_the_intervals_alone():
    found = sampled(num_prompts=MAX_VALUES, per_prompt=3, digits=15, missing=0.05, seed=5)
    assert len(np.unique(found.confidence)) > 2 * MAX_VALUES
    scores = score(found, resamples=400)[0]
    assert_values(scores, expected_values(found))
    for name, measure in (("brier", brier_score_loss), ("auroc", roc_auc_score)):
        ends = (scores.estimates[name].low, scores.estimates[name].high)
        assert ends == pytest.approx(by_hand(found, 200, measure), abs=0.25 * (ends[1] - ends[0])), name
    assert scores.estimates["tie_rate"].low >= 0
    for name in ("accuracy", "brier", "ocg", "spr", "auroc", "tie_rate", "aurc", "mean_confidence"):
        estimate = scores.estimates[name]
        assert estimate.low <= estimate.value <= estimate.high, name


def test_errors_have_the_intervals_of_their_certainty_overall_and_in_each_group():
    found = sampled()
    overall, categories = score(found, resamples=5, seed=3)
    for number, scores in zip((-1, 0, 1), (overall, *categories.values()), strict=True):
        part = found if number < 0 else chosen(found, found.category == number)
        missing = np.isnan(part.confidence)
        for name, rows in (("ece", ~missing), ("debiased_ece", ~missing), ("ece_strict", missing | ~missing)):
            columns = (np.nan_to_num(part.confidence), part.correct, part.prompt)
            expected = f.calibration_certainty(*(torch.from_numpy(each[rows]) for each in columns), seed=3)
            assert (scores.estimates[name].low, scores.estimates[name].high) == (expected.low, expected.high)
        assert scores.certainty.ece == pytest.approx(scores.estimates["ece"].value, abs=1e-12)


def test_intervals_are_seeded():
    first, again, other = (score(sampled(), resamples=50, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first[0].estimates["ece"].value == other[0].estimates["ece"].value
    assert first[0].estimates["ece"].low != other[0].estimates["ece"].low


def test_without_a_confidence_calibration_is_missing_but_accuracy_and_strict_values_are_not():
    estimates = score(predictions(range(4), [np.nan] * 4, [1, 0, 1, 1]), resamples=200)[0].estimates
    for name in (
        "ece",
        "brier",
        "ocg",
        "spr",
        "auroc",
        "aurc",
        "smooth_ece",
        "mean_confidence",
        "selective_accuracy_0.5",
    ):
        assert (estimates[name].value, estimates[name].low, estimates[name].high) == (None, None, None), name
        assert estimates[name].n == 0
    assert estimates["accuracy"].value == estimates["ece_strict"].value == estimates["brier_strict"].value == 0.75
    assert estimates["accuracy"].low < 0.75 < estimates["accuracy"].high
    assert estimates["format_adherence"].value == 0.0
    assert estimates["answer_parse_rate"].value is None


def test_without_wrong_completions_ranking_is_missing():
    estimates = score(predictions(range(3), [0.5, 0.6, 0.7], [1, 1, 1]), resamples=20)[0].estimates
    assert [estimates[name].value for name in ("spr", "auroc", "tie_rate")] == [None] * 3
    assert estimates["accuracy"].value == 1.0


def test_resamples_without_a_value_are_left_out():
    """Half of the resamples of two prompts hold one class alone; the others rank perfectly."""
    spr = score(predictions([0, 1], [0.9, 0.1], [1, 0]), resamples=200)[0].estimates["spr"]
    assert (spr.value, spr.low, spr.high) == (1.0, 1.0, 1.0)


def test_one_prompt_has_no_interval():
    estimates = score(predictions([0, 0], [0.9, 0.1], [1, 0]), resamples=20)[0].estimates
    assert estimates["accuracy"].value == 0.5
    assert estimates["accuracy"].low is None


@pytest.mark.parametrize("settings", [{"resamples": -1}, {"seed": -1}])
def test_negative_settings_are_refused(settings):
    with pytest.raises(ConfigError, match="`resamples` and `seed` to be at least 0"):
        score(sampled(), **settings)
