"""The propositions' diagnostics, against sums over the groups by hand."""

import pytest

from caopd.diagnostics import TeacherProbe, optimism_bias, stated_optimism
from caopd.errors import ConfigError
from caopd.methods import GRPO, SDFT, SDPO, CaOPD
from caopd.types import Example

EXAMPLE = Example("1", "Q", "B", demonstration="DEMONSTRATION")


@pytest.fixture
def groups(group_of):
    """Accuracies 1/2, 0 and 1, of which the last has no estimate."""
    sure, unsure = "B\nConfidence: 0.90", "B\nConfidence: 0.30"
    return [
        group_of(EXAMPLE, [(sure, True), (unsure, False), (unsure, True), (sure, False)], mu_hat=0.5),
        group_of(EXAMPLE, [(sure, False)] * 4, mu_hat=0.0),
        group_of(EXAMPLE, [(sure, True)] * 4, mu_hat=None),
    ]


def test_a_demonstration_states_more_than_the_student_reaches(groups):
    assert stated_optimism(groups, SDFT())["stated_optimism"] == pytest.approx(((1 - 0.5) + (1 - 0.0)) / 2)
    states_less = SDFT(demonstration_confidence=0.4)
    assert stated_optimism(groups, states_less)["stated_optimism"] == pytest.approx((-0.1 + 0.4) / 2)


@pytest.mark.parametrize("backbone", [SDFT(), SDPO()])
def test_calibration_leaves_no_stated_optimism(groups, backbone):
    assert stated_optimism(groups, CaOPD(backbone))["stated_optimism"] == pytest.approx(0.0, abs=1e-12)


def test_a_solution_states_what_it_was_sampled_with(groups):
    """Rollouts 0 and 2 are right: the first is shown to the three others, the other one to the first."""
    expected = (0.3 + 3 * 0.9) / 4 - 0.5  # the second group has no solution, the third no estimate
    assert stated_optimism(groups, SDPO())["stated_optimism"] == pytest.approx(expected)


def test_without_a_context_or_an_estimate_nothing_is_said(groups):
    assert stated_optimism(groups, GRPO()) == {}
    assert stated_optimism(groups[2:], SDFT()) == {}
    assert optimism_bias(groups, [(), (), groups[0].rollouts]) == {}


def test_optimism_is_the_teachers_success_above_mu_hat(groups):
    right, half = groups[2].rollouts, groups[0].rollouts
    found = optimism_bias(groups, [right, half, half])
    assert found == pytest.approx({"teacher_accuracy": 0.75, "optimism_bias": ((1 - 0.5) + (0.5 - 0.0)) / 2})
    assert optimism_bias(groups, [right, (), half]) == pytest.approx({"teacher_accuracy": 1.0, "optimism_bias": 0.5})


@pytest.mark.parametrize(("every", "due"), [(0, []), (1, [0, 1, 2, 3, 4, 5]), (3, [0, 3])])
def test_a_probe_is_due_every_so_many_rounds(every, due):
    assert [number for number in range(6) if TeacherProbe(every).is_due(number)] == due


@pytest.mark.parametrize("arguments", [{"every_num_rounds": -1}, {"num_rollouts": 0}])
def test_an_impossible_probe_is_refused(arguments):
    with pytest.raises(ConfigError, match=r"every_num_rounds.*num_rollouts.*data\.teacher_probe"):
        TeacherProbe(**arguments)
