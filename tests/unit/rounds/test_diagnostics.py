"""The propositions' diagnostics, against sums over the groups by hand."""

from dataclasses import replace

import pytest

from caopd.errors import ConfigError
from caopd.methods import GRPO, SDFT, SDPO, SFT, CaOPD
from caopd.rounds.diagnostics import TeacherProbe, optimism_bias, stated_optimism
from caopd.types import Example

EXAMPLE = Example("1", "Q", "B", demonstration="DEMONSTRATION")


def optimism(groups, method):
    return stated_optimism(groups, [method.train_samples(group) for group in groups])


@pytest.fixture
def groups(group_of):
    """Accuracies 1/2, 0 and 1, of which the last has no estimate, and the first one that is far off."""
    sure, unsure = "B\nConfidence: 0.90", "B\nConfidence: 0.30"
    return [
        group_of(EXAMPLE, [(sure, True), (unsure, False), (unsure, True), (sure, False)], mu_hat=0.75),
        group_of(EXAMPLE, [(sure, False)] * 4, mu_hat=0.0),
        group_of(EXAMPLE, [(sure, True)] * 4, mu_hat=None),
    ]


def test_a_demonstration_states_more_than_the_student_reaches(groups):
    assert optimism(groups, SDFT())["stated_optimism"] == pytest.approx(((1 - 0.5) + (1 - 0.0) + 0.0) / 3)
    states_less = SDFT(demonstration_confidence=0.4)
    assert optimism(groups, states_less)["stated_optimism"] == pytest.approx((-0.1 + 0.4 - 0.6) / 3)


def test_calibration_leaves_the_estimates_own_error(groups):
    """Without an estimate there is nothing to learn from a group, so what its context states is told to nobody."""
    for method in (CaOPD(SDFT()), CaOPD(SDPO())):
        assert optimism(groups, method)["stated_optimism"] == pytest.approx(0.75 / 2 - 0.5)


def test_teaching_where_there_is_a_solution_alone_is_optimistic_over_all_groups(group_of):
    """One success of four, none and two: 3, 0 and 4 rollouts have a solution, and every target is its group's rate."""
    rates = (0.25, 0.0, 0.5)
    groups = [group_of(EXAMPLE, [("B", n < 4 * rate) for n in range(4)], mu_hat=rate) for rate in rates]
    literal = optimism(groups, CaOPD(SDPO(), calibrate_all=False))["stated_optimism"]
    assert literal == pytest.approx((3 * 0.25 + 4 * 0.5) / 7 - 0.25)
    assert optimism(groups, CaOPD(SDPO()))["stated_optimism"] == 0


def test_a_solution_states_what_it_was_sampled_with(groups):
    """Rollouts 0 and 2 are right: the first is shown to the three others, the other one to the first."""
    stated = (0.3 + 3 * 0.9 + 4 * 0.9) / 8
    assert optimism(groups, SDPO())["stated_optimism"] == pytest.approx(stated - 0.5)


def test_without_a_context_nothing_is_said(groups):
    assert optimism(groups, GRPO()) == {}
    assert optimism(groups[2:], CaOPD()) == {}
    assert optimism([replace(group, rollouts=(), mu_hats=()) for group in groups], SFT()) == {}
    assert optimism_bias(groups, [(), (), ()]) == {}


def test_optimism_is_the_teachers_success_above_the_students(groups):
    right, half = groups[2].rollouts, groups[0].rollouts
    found = optimism_bias(groups, [right, half, half])
    assert found == pytest.approx({"teacher_accuracy": 2 / 3, "optimism_bias": (0.5 + 0.5 - 0.5) / 3})
    assert optimism_bias(groups, [right, (), half]) == pytest.approx({"teacher_accuracy": 0.75, "optimism_bias": 0.0})


def test_of_groups_of_different_sizes_as_many_rollouts_count_as_the_smallest_has(groups):
    """Sampling stopped where the first were alike: the others of a group that went on would count for too much."""
    groups[1] = replace(groups[1], rollouts=groups[1].rollouts[:1], mu_hats=(0.0,))
    assert optimism(groups[:2], CaOPD())["stated_optimism"] == pytest.approx((0.75 + 0.0) / 2 - (1 + 0) / 2)
    expected = ((1 - 1.0) + (1 - 0.0) + (1 - 1.0)) / 3
    assert optimism(groups, SDFT())["stated_optimism"] == pytest.approx(expected)


def test_rollouts_without_a_verdict_are_left_out(groups):
    """Of the first group the two right ones are left, of the second none, of the teacher's first completions one."""
    right, half = groups[2].rollouts, groups[0].rollouts
    lost = [replace(each, verdict=None) for each in half]
    first = replace(groups[0], rollouts=(half[0], lost[1], half[2], lost[3]))
    second = replace(groups[1], rollouts=tuple(lost))
    found = optimism_bias([first, second, groups[2]], [(half[1], *lost[:3]), right, half])
    assert found == pytest.approx({"teacher_accuracy": (0 + 0.5) / 2, "optimism_bias": (-1.0 - 0.5) / 2})
    assert optimism_bias([first], [lost]) == {}
    assert optimism([first, second, groups[2]], SDFT())["stated_optimism"] == pytest.approx(0.0)


@pytest.mark.parametrize(("every", "due"), [(0, []), (1, [0, 1, 2, 3, 4, 5]), (3, [0, 3])])
def test_a_probe_is_due_every_so_many_rounds(every, due):
    assert [number for number in range(6) if TeacherProbe(every).is_due(number)] == due


@pytest.mark.parametrize("arguments", [{"every_num_rounds": -1}, {"num_rollouts": 0}])
def test_an_impossible_probe_is_refused(arguments):
    with pytest.raises(ConfigError, match=r"every_num_rounds.*num_rollouts.*data\.teacher_probe"):
        TeacherProbe(**arguments)


def test_groups_are_gone_through_a_few_times_however_many_there_are(groups):
    """Once for every group made hours of a round of 50,000 prompts."""

    class Counted(list):
        times = 0

        def __iter__(self):
            Counted.times += 1
            return super().__iter__()

    many = Counted(groups * 20)
    stated_optimism(many, [CaOPD().train_samples(group) for group in groups] * 20)
    assert Counted.times < 5
