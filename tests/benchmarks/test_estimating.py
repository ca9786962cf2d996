"""The study of estimators: enumeration against closed forms and simulation, and its tables."""

from math import comb, pi
from statistics import fmean

import numpy as np
import pytest

from caopd.methods.estimators import EmpiricalBayes, LeaveOneOut, MonteCarlo, Shrinkage
from estimating.enumeration import (
    REFERENCE,
    SYNTHETIC,
    adaptive,
    endings,
    fixed,
    judge,
    learn,
    oracle_share,
    stopping_bias,
)
from estimating.page import SHOWN, page
from estimating.training import BUDGETS

RATES = {1.0: 0.25, 0.5: 0.25, 0.2: 0.5}
VARIANCE = 0.25 * 0.25 + 0.5 * 0.16


@pytest.mark.parametrize("size", [4, 16])
def test_fixed_budgets_are_where_theory_has_them(size):
    mean = judge(fixed(MonteCarlo, size), RATES)
    assert mean["bias"] == pytest.approx(0)
    assert mean["variance"] == mean["excess_brier"] == pytest.approx(VARIANCE / size) == mean["theory"]
    assert judge(fixed(LeaveOneOut, size), RATES)["excess_brier"] == pytest.approx(VARIANCE / (size - 1))


def test_calibration_error_is_that_of_the_values_stated():
    """One rollout states 0 or 1, so it is the sum over both of what is missing to the rate, or too much."""
    ones = sum(weight * rate for rate, weight in RATES.items())
    right = sum(weight * rate * rate for rate, weight in RATES.items())
    assert judge(fixed(MonteCarlo, 1), RATES)["ece"] == pytest.approx(2 * (ones - right))


@pytest.mark.parametrize("policy", [adaptive(MonteCarlo, 0.15), adaptive(EmpiricalBayes, 0.15, num_levels=9)])
def test_an_adaptive_budget_is_what_simulation_shows(policy):
    rate, rng = 0.3, np.random.default_rng(0)
    estimator = learn(policy, {rate: 0.5, 0.9: 0.5})
    sizes, shares = [], []
    for _ in range(20_000):
        size = correct = 0
        while size == 0 or not policy.stops(estimator, size, correct):
            size, correct = size + 4, correct + int(rng.binomial(4, rate))
        sizes.append(size)
        shares.append(correct / size)
    ends = endings(policy, estimator, rate)
    assert sum(ends.values()) == pytest.approx(1)
    assert sum(p * n for (n, _), p in ends.items()) == pytest.approx(fmean(sizes), abs=0.15)
    assert sum(p * k / n for (n, k), p in ends.items()) == pytest.approx(fmean(shares), abs=0.01)


def test_monte_carlo_has_no_bias_under_an_adaptive_budget_and_shrinkage_learns_the_mean():
    assert judge(adaptive(MonteCarlo, 0.15), RATES)["bias"] == pytest.approx(0, abs=1e-12)
    truth = stopping_bias(0.15, {"some": RATES})["means"]["some"]
    assert truth["truth"] == pytest.approx(0.475)
    assert learn(adaptive(Shrinkage, 0.15), RATES).state_dict()["mean"] == pytest.approx(0.475, abs=0.02)
    assert truth["whole_groups"] < 0.45


def test_the_bias_of_stopped_shares_is_that_of_two_batches_by_hand():
    """4 of 4 and 0 of 4 stop at a limit of .15, and so do 1, 2, 6 and 7 of 8; at 16 everything does."""
    found = stopping_bias(0.15, {"some": RATES})
    assert found["mean_at_0.2"] == pytest.approx(0.1461, abs=5e-5)
    assert abs(found["worst_bias"]) == pytest.approx(0.0558, abs=5e-5)
    rate, ends = 0.3, endings(adaptive(MonteCarlo, 0.15), MonteCarlo(), 0.3)
    assert ends[4, 0] == pytest.approx((1 - rate) ** 4)
    assert ends[8, 1] == pytest.approx(4 * rate * (1 - rate) ** 7)


def test_levels_change_what_is_stated():
    states = {(n, k): p for (n, k), p in endings(fixed(MonteCarlo, 4), MonteCarlo(), 0.3).items()}
    assert states == pytest.approx({(4, k): comb(4, k) * 0.3**k * 0.7 ** (4 - k) for k in range(5)})
    policy = fixed(MonteCarlo, 4)
    two = judge(type(policy)(**{**vars(policy), "num_levels": 2}), {0.3: 1.0})
    stated = sum(p for (_, k), p in states.items() if k > 2)  # of 0 and 1, the even one is nearest to 1/2
    assert two["bias"] == pytest.approx(0.3 - stated)


def test_the_oracle_divides_rollouts_best():
    many = {(index + 0.5) / 1000: 1 / 1000 for index in range(1000)}
    assert oracle_share(many) == pytest.approx((pi / 8) ** 2 * 6, abs=1e-4)
    assert oracle_share({0.5: 1.0}) == pytest.approx(1)
    two = {0.5: 0.5, 0.1: 0.5}
    best = min(0.125 / share + 0.045 / (2 - share) for share in np.linspace(0.01, 1.99, 2000))
    assert oracle_share(two) == pytest.approx(best / 0.17, abs=1e-4)


def test_the_page_marks_what_reaches_the_aim():
    row = {"rollouts": 16.0, "bias": 0.0, "variance": 0.01, "excess_brier": 0.01, "theory": 0.01, "ece": 0.03}
    rows = {REFERENCE.name: row, "cheap": {**row, "rollouts": 9.6}, "dear": {**row, "rollouts": 9.7}}
    rows["worse"] = {**row, "rollouts": 4.0, "ece": 0.0301}
    runs = [
        {
            "budget": budget,
            "seed": seed,
            "rollouts": cost,
            "rollouts_at_the_end": cost,
            "final": {"greedy": dict.fromkeys(SHOWN, e), "sampled": dict.fromkeys(SHOWN, 2 * e)},
        }
        for budget, cost, errors in ((REFERENCE.name, 16.0, (0.1, 0.2)), ("other", 8.0, (0.05, 0.25)))
        for seed, e in zip((1, 2), errors, strict=True)
    ]
    machine = {"timestamp": "2026-11-25", "versions": {"caopd": "0"}, "cpus": 2, "processes": 2}
    record = {"environment": machine, "distributions": {"some": rows}, "oracle_shares": {"some": 0.5}, "runs": runs}
    means = {"some": {"truth": 0.5, "whole_groups": 0.46}}
    stopping = {"0.1": {"worst_rate": 0.14, "worst_bias": -0.024, "mean_at_0.2": 0.179, "means": means}}
    text = page(record | {"num_rounds": 3, "stopping": stopping})
    assert "| 0.1 | 0.179 | -0.024 at 0.14 | 0.460 for 0.500 |" in text
    assert "| **cheap** | 9.60 | 0.60 |" in text
    assert "| dear |" in text
    assert "| worse | 4.00 | 0.25 | 0.0000 | 0.0100 | **0.0100** |" in text
    assert "| **other** | all | 8.000 ± 0.000 | 0.500 ± 0.000 |" in text
    assert text.count("| other | ") == 4
    greedy, sampled = text.split("### greedy: ")[1].split("### sampled: ")
    assert "| greedy, budget |" in greedy
    assert "| sampled, budget |" in sampled
    assert all(value in greedy for value in ("| +0.050 |", "| -0.050 |"))
    assert all(value in sampled for value in ("| +0.100 |", "| -0.100 |"))


def test_the_reference_is_trained_and_enumerated():
    assert next(iter(BUDGETS)) == REFERENCE.name
    assert all(sum(rates.values()) == pytest.approx(1) for rates in SYNTHETIC.values())
