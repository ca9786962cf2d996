"""Sets of runs that differ in their seed alone: which they are, and their means, held against scipy."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from caopd.commands.report.sets import half_width, mean_curve, mean_of, sets_of
from caopd.errors import ConfigError
from caopd.run_directory import Measured

from .records import run

CAOPD, SDFT = "caopd.methods.CaOPD", "caopd.methods.SDFT"


def fitted(name, seed, method=CAOPD, step=8, **trainer):
    config = {"seed_everything": seed, "data": {"seed": seed}, "model": {"method": method}, "trainer": trainer}
    return replace(run(name, config=config), final=Measured(step, {}))


def names_of(runs, names=None):
    return {each.name: [str(run.directory) for run in each.runs] for each in sets_of(runs, names)}


def test_runs_that_differ_in_their_seed_alone_are_a_set():
    runs = [fitted("a0", 0), fitted("b0", 0, SDFT), fitted("a1", 1, devices=2), fitted("b1", 1, SDFT), fitted("a2", 2)]
    assert names_of(runs) == {"CaOPD": ["a0", "a1", "a2"], "SDFT": ["b0", "b1"]}
    assert names_of(runs, ["ours", "theirs"]) == {"ours": ["a0", "a1", "a2"], "theirs": ["b0", "b1"]}
    (ours, _) = sets_of(runs)
    assert [name for name, _ in ours.labelled] == ["CaOPD, seed 0", "CaOPD, seed 1", "CaOPD, seed 2"]


@pytest.mark.parametrize(
    "other",
    [
        fitted("other", 1, step=16),  # trained for longer
        fitted("other", 1, precision="bf16-mixed"),
        fitted("other", 0),  # the same run again
        run("other"),  # of a script: nobody knows
    ],
)
def test_other_runs_are_none(other):
    found = names_of([fitted("one", 0), other])
    assert list(found.values()) == [["one"], ["other"]]


def test_a_seed_that_was_run_twice_is_in_two_sets():
    runs = [fitted("a0", 0), fitted("a0-run2", 0), fitted("a1", 1)]
    assert names_of(runs) == {"CaOPD #1": ["a0", "a1"], "CaOPD #2": ["a0-run2"]}


def test_runs_without_a_config_stand_alone():
    assert len(sets_of([run("a"), run("b")])) == 2


def test_names_are_of_the_sets():
    with pytest.raises(ConfigError, match=r"Expected 1 different names for the runs a0, a1 \(.*\), but got 2"):
        sets_of([fitted("a0", 0), fitted("a1", 1)], ["one", "two"])


@pytest.mark.parametrize("n", [2, 3, 5, 30, 31, 32, 60, 1000])
def test_the_interval_is_that_of_students_t(n):
    values = np.random.default_rng(n).normal(size=n)
    low, high = stats.t.interval(0.95, n - 1, loc=values.mean(), scale=stats.sem(values))
    found = mean_of(values.tolist())
    assert found.value == pytest.approx(values.mean(), abs=1e-12)
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-4, abs=1e-4)
    assert found.n == n


def test_an_interval_ends_where_values_do():
    found = mean_of([0.2, 0.9], 0.0, 1.0)
    assert (found.value, found.low, found.high) == (pytest.approx(0.55), 0.0, 1.0)


def test_one_seed_has_no_interval_and_an_undefined_value_no_mean():
    assert half_width([0.5]) is None
    assert (mean_of([0.5]).value, mean_of([0.5]).low) == (0.5, None)
    assert mean_of([0.5, None, 0.25]) is None
    assert mean_of([]) is None


def test_curves_meet_at_the_steps_that_all_have():
    means = mean_curve([[(0, 1.0), (4, 0.5), (8, 0.25)], [(0, 0.0), (8, 0.75), (12, 0.5)]])
    assert {step: each.value for step, each in means.items()} == {0: 0.5, 8: 0.5}
    assert means[8].high - means[8].low == pytest.approx(2 * 12.7062 * 0.25, rel=1e-4)
    assert mean_curve([]) == {}


def test_a_measurement_that_a_seed_lacks_is_missing():
    (found,) = sets_of([fitted("a0", 0), replace(fitted("a1", 1), initial=Measured(0, {}))])
    assert (len(found.measured("before")), len(found.measured("after"))) == (1, 2)
