"""The curve of a cascade against brute force over thresholds, subsets and orders of tied prompts."""

import itertools
import math
import random
from statistics import fmean

import pytest
import torch

from caopd.errors import ConfigError, DataError
from caopd.metrics import cascade_curve

COSTS = (0.5, 4.0)


def sampled(seed, size=6):
    """Few prompts, confidences with many ties and some missing."""
    rng = random.Random(seed)
    confidence = [rng.choice([None, 0.0, 0.3, 0.3, 0.7, 1.0]) for _ in range(size)]
    return confidence, [rng.random() < 0.5 for _ in range(size)], [rng.random() < 0.7 for _ in range(size)]


def curve_of(confidence, small, large, costs=COSTS):
    stated = torch.tensor([math.nan if value is None else value for value in confidence], dtype=torch.float64)
    return cascade_curve(stated, torch.tensor(small), torch.tensor(large), *costs)


def accuracy_of(deferred, small, large):
    return fmean(large[i] if i in deferred else small[i] for i in range(len(small)))


def choices(count, size):
    return [set(chosen) for chosen in itertools.combinations(range(count), size)]


@pytest.mark.parametrize("seed", range(40))
def test_points_are_what_the_thresholds_give(seed):
    confidence, small, large = sampled(seed)
    deferred = {frozenset()} | {
        frozenset(i for i, value in enumerate(confidence) if value is None or value < threshold)
        for threshold in [step / 20 for step in range(21)] + [2.0]
    }
    points = curve_of(confidence, small, large).points
    assert [(p.deferred, p.cost, p.accuracy) for p in points] == [
        pytest.approx((len(chosen) / 6, COSTS[0] + COSTS[1] * len(chosen) / 6, accuracy_of(chosen, small, large)))
        for chosen in sorted(deferred, key=len)
    ]
    for point in points[:-1]:
        if point.threshold is not None:
            kept = [value for value in confidence if value is not None and value >= point.threshold]
            assert len(kept) == round(6 * (1 - point.deferred))
    assert points[-1].threshold is None
    assert (points[0].threshold is None) == (None in confidence)


@pytest.mark.parametrize("seed", range(40))
def test_random_and_oracle_deferral_are_the_mean_and_the_best_of_all_choices(seed):
    confidence, small, large = sampled(seed)
    curve = curve_of(confidence, small, large)
    for size in range(7):
        found = [accuracy_of(chosen, small, large) for chosen in choices(6, size)]
        assert curve.random_accuracy(size / 6) == pytest.approx(fmean(found))
        assert curve.oracle_accuracy(size / 6) == pytest.approx(max(found))


def area_of_order(order, small, large):
    """Area under the curve of deferring prompt after prompt, above that of random deferral; trapezoids."""
    line = [accuracy_of(set(order[:size]), small, large) for size in range(len(order) + 1)]
    chance = [line[0] + (line[-1] - line[0]) * size / len(order) for size in range(len(order) + 1)]
    gains = [above - below for above, below in zip(line, chance, strict=True)]
    return sum((left + right) / 2 for left, right in itertools.pairwise(gains)) / len(order)


@pytest.mark.parametrize("seed", range(12))
def test_the_area_is_the_mean_over_all_orders_of_tied_prompts_and_the_oracles_the_largest_of_all(seed):
    confidence, small, large = sampled(seed, size=5)
    order = [-1.0 if value is None else value for value in confidence]
    every = list(itertools.permutations(range(5)))
    sorted_ones = [p for p in every if all(order[a] <= order[b] for a, b in itertools.pairwise(p))]
    curve = curve_of(confidence, small, large)
    expected = fmean(area_of_order(p, small, large) for p in sorted_ones)
    largest = max(area_of_order(p, small, large) for p in every)
    assert curve.area_above_random == pytest.approx(expected, abs=1e-12)
    assert curve.oracle_area_above_random == pytest.approx(largest, abs=1e-12)
    assert fmean(area_of_order(p, small, large) for p in every) == pytest.approx(0, abs=1e-12)
    if largest > 1e-9:
        assert curve.relative_area == pytest.approx(expected / largest)
    else:
        assert math.isnan(curve.relative_area)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("value", [0.0, 1 / 6, 0.5, 0.7, 5 / 6, 1.0])
def test_the_chosen_points_are_those_of_a_search(seed, value):
    curve = curve_of(*sampled(seed))
    accurate = [p for p in curve.points if p.accuracy >= value - 1e-9]
    assert curve.cheapest(value) == (min(accurate, key=lambda p: p.cost) if accurate else None)
    budget = 5 * value
    affordable = [p for p in curve.points if p.cost <= budget + 1e-9]
    expected = min(affordable, key=lambda p: (-p.accuracy, p.cost)) if affordable else None
    assert curve.best(budget) == expected


def test_a_small_model_that_is_always_sure_routes_by_chance():
    curve = curve_of([1.0] * 4, [True, False, False, True], [True, True, True, False])
    assert [point.deferred for point in curve.points] == [0.0, 1.0]
    assert curve.area_above_random == 0
    assert curve.relative_area == 0


def test_a_confidence_that_is_upside_down_is_worse_than_chance():
    curve = curve_of([0.9, 0.9, 0.1, 0.1], [False, False, True, True], [True, True, False, False])
    assert curve.relative_area == pytest.approx(-1)


def test_missing_is_deferred_before_a_stated_zero():
    curve = curve_of([None, 0.0], [False, False], [True, False])
    assert [(p.threshold, p.accuracy) for p in curve.points] == [(None, 0.0), (0.0, 0.5), (None, 0.5)]


def test_a_budget_that_a_decimal_misses_by_rounding_is_kept():
    curve = curve_of([0.1 * k for k in range(10)], [False] * 10, [True] * 10, costs=(0.1, 0.2))
    assert curve.best(0.16).deferred == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([0.5], [1], [1], -1.0), ConfigError, "`small_cost`.*-1"),
        (([0.5], [1], [1], 1.0, math.inf), ConfigError, "`large_cost`.*inf"),
        (([], [], []), ConfigError, "at least one prompt"),
        (([1.5], [1], [1]), DataError, "`confidence`"),
        (([0.5], [2], [1]), DataError, "`small_correct`"),
        (([0.5], [1], [1, 0]), DataError, "`large_correct`"),
    ],
)
def test_what_is_no_cascade_is_refused(arguments, error, message):
    confidence, small, large, *costs = arguments
    with pytest.raises(error, match=message):
        cascade_curve(torch.tensor(confidence), torch.tensor(small), torch.tensor(large), *costs)
