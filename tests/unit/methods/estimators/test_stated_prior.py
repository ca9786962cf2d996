import random
from statistics import fmean, pvariance

import numpy as np
import pytest

from caopd.errors import ConfigError
from caopd.methods.estimators import Shrinkage, StatedPrior
from caopd.types import Example

EXAMPLE = Example("7", "Q", "B")
ROUND = [(0.9, 0.5), (0.7, 0.25), (0.2, 0.25), (0.5, 0.0)]
"""What a group states, and its success rate, a multiple of 1/4."""


@pytest.fixture
def group(group_of):
    def build(stated, rate, size=4):
        text = "B" if stated is None else f"B\nConfidence: {stated:.4f}"
        return group_of(EXAMPLE, [(text, index < rate * size) for index in range(size)])

    return build


@pytest.fixture
def learnt(group):
    def build(*rounds, **arguments):
        estimator = StatedPrior(**arguments)
        for pairs in rounds:
            estimator.learn_from([group(*pair) for pair in pairs])
        return estimator

    return build


@pytest.mark.parametrize("stated", [0.0, 0.3, 0.85])
def test_the_prior_is_the_least_squares_line_through_the_groups_of_the_first_round(learnt, stated):
    slope, intercept = np.polyfit(*zip(*ROUND, strict=True), 1)
    assert 0 < intercept + slope * stated < 1
    assert learnt(ROUND).predicted(stated) == pytest.approx(intercept + slope * stated)


def test_past_rounds_fade_by_the_momentum(learnt):
    """By numpy's weighted fit: the first round's four groups weigh .75 together, the second's two .25."""
    later = [(0.1, 0.75), (0.6, 1.0)]
    weights = np.sqrt([0.75 / 4] * 4 + [0.25 / 2] * 2)
    slope, intercept = np.polyfit(*zip(*ROUND, *later, strict=True), 1, w=weights)
    assert learnt(ROUND, later, momentum=0.25).predicted(0.4) == pytest.approx(intercept + slope * 0.4)


@pytest.mark.parametrize("strength", [0.0, 2.0, 24.0])
def test_the_estimate_is_the_posterior_mean_around_it(learnt, group, strength):
    estimator = learnt(ROUND, strength=strength)
    expected = (3 + strength * estimator.predicted(0.3)) / (4 + strength)
    assert estimator.estimate_group(group(0.3, 0.75)) == pytest.approx((expected,) * 4)


def test_what_is_stated_is_a_mean_over_the_rollouts_that_state_something(learnt, group_of):
    estimator = learnt(ROUND)
    mixed = group_of(EXAMPLE, [("B\nConfidence: 0.20", True), ("B", True), ("B\nConfidence: 0.60", False)])
    assert estimator.estimate_group(mixed) == pytest.approx(((2 + 8 * estimator.predicted(0.4)) / 11,) * 3)


def test_the_prior_is_a_success_rate_however_steep_the_line(learnt):
    estimator = learnt([(0.4, 0.0), (0.5, 0.5), (0.6, 1.0)])
    assert estimator.predicted(0.52) == pytest.approx(0.6)
    assert (estimator.predicted(0.1), estimator.predicted(0.95)) == (0.0, 1.0)


@pytest.mark.parametrize("pairs", [[(1.0, 0.25), (1.0, 0.75)], [(None, 0.25), (None, 0.75)], []])
def test_where_nothing_is_told_apart_it_is_shrinkage_to_the_mean_accuracy(learnt, group, pairs):
    shrinkage, estimator = Shrinkage(strength=8.0), learnt(*[pairs] if pairs else [])
    if pairs:
        shrinkage.learn_from([group(*pair) for pair in pairs])
    for stated in (None, 0.1, 1.0):
        asked = group(stated, 0.75)
        assert estimator.estimate_group(asked) == pytest.approx(shrinkage.estimate_group(asked))


def test_the_state_restores_the_line(learnt, group):
    first, second = learnt(ROUND), StatedPrior()
    second.load_state_dict(first.state_dict())
    for estimator in (first, second):
        estimator.learn_from([group(0.1, 1.0)])
    assert second == first
    assert second.estimate_group(group(0.3, 0.5)) == first.estimate_group(group(0.3, 0.5))


@pytest.mark.parametrize(("strength", "scatter"), [(0.0, 0.2), (8.0, 0.1), (24.0, 0.055)])
def test_a_student_that_states_what_it_is_taught_comes_to_state_the_success_rate_of_its_kind(
    group_of, strength, scatter
):
    """Two kinds of prompts, told apart by .1 at first, of whose success rates the student knows the kind alone.

    A fifth of what it states is what was taught in the last round. Without a prior it comes to state mu_hat with all
    its scatter (sqrt(.16^2 + .13^2) for the hard ones); around a fixed prior that would be G / (G + s) of it.
    """
    rng, estimator, stated = random.Random(0), StatedPrior(strength=strength), {"hard": [0.9] * 60, "easy": [1.0] * 60}
    rates = {"hard": [0.0, 0.2, 0.4], "easy": [0.4, 0.8, 1.0]}
    settled = {kind: [] for kind in rates}
    for number in range(60):
        groups = {kind: [] for kind in rates}
        for kind, found in groups.items():
            for _ in range(60):
                rate = rng.choice(rates[kind])
                texts = [f"B\nConfidence: {rng.choice(stated[kind]):.3f}" for _ in range(8)]
                found.append(group_of(EXAMPLE, [(text, rng.random() < rate) for text in texts]))
            taught = [estimator.estimate_group(each)[0] for each in found]
            stated[kind] = [new if rng.random() < 0.2 else old for new, old in zip(taught, stated[kind], strict=True)]
            settled[kind] += taught if number >= 40 else []
        estimator.learn_from([each for found in groups.values() for each in found])
    assert fmean(settled["hard"]) == pytest.approx(0.2, abs=0.03)
    assert fmean(settled["easy"]) == pytest.approx(2.2 / 3, abs=0.03)
    assert pvariance(settled["hard"]) ** 0.5 == pytest.approx(scatter, rel=0.25)


@pytest.mark.parametrize(("arguments", "name"), [({"strength": -1.0}, "strength"), ({"momentum": 0.0}, "momentum")])
def test_impossible_arguments_are_refused(arguments, name):
    with pytest.raises(ConfigError, match=f"`{name}` of StatedPrior"):
        StatedPrior(**arguments)
