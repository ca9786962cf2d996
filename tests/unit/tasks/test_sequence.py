import sys

import pytest

from caopd.errors import ConfigError
from caopd.tasks import DrawTask, Stage, TaskSequence, check_unique, stages_of


def test_a_task_alone_is_one_stage_that_never_ends():
    task = DrawTask()
    assert stages_of(task) == [Stage("", task, sys.maxsize)]
    stages = [Stage("a", task, 1)]
    assert stages_of(TaskSequence(stages)) is stages


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([], r"at least one stage in `data.task.stages`"),
        ([Stage("a", DrawTask(), 0)], r"`num_rounds` of the stage 'a'.*at least 1.*0.*`data.evaluation.tasks`"),
        ([Stage("a", DrawTask(), 1), Stage("a", DrawTask(), 1)], r"name of its own, but got a more than once"),
        ([Stage("a/b", DrawTask(), 1)], r"`data.task.stages`.*letters.*'a/b'"),
        ([Stage("before", DrawTask(), 1)], r"none of.*before"),
    ],
)
def test_sequences_that_cannot_be(stages, message):
    with pytest.raises(ConfigError, match=message):
        TaskSequence(stages)


def test_names_are_unique_over_stages_and_evaluation():
    check_unique(["a", "b"])
    with pytest.raises(ConfigError, match="a, b more than once"):
        check_unique(["b", "a", "c", "a", "b"])


def test_a_sequence_has_the_rows_of_its_stages_and_no_verifier_of_its_own():
    odd, even = (DrawTask(8, 4, 2, kinds=[kind]) for kind in ("odd", "even"))
    sequence = TaskSequence([Stage("odd", odd, 1), Stage("even", even, 1)])
    assert sequence.examples("validation") == [*odd.examples("validation"), *even.examples("validation")]
    with pytest.raises(ConfigError, match=r"sequence \(odd, even\): take a stage's task"):
        _ = sequence.verifier
