from dataclasses import replace

import pytest

from caopd.evaluation.forgetting import Measurement, as_json, forgetting

ACCURACY = {  # rows: before and after each stage; columns: tasks
    "before": (0.25, 0.5, 0.125, 0.75),
    "a": (0.75, 0.5, 0.25, 0.75),
    "b": (0.625, 1.0, 0.25, 0.5),
    "c": (0.5, 1.0, 0.75, 0.25),
}


def measurements(upto=None):
    found = []
    for number, (stage, row) in enumerate(ACCURACY.items()):
        tasks = {
            task: {
                "greedy": {"accuracy": value, "ece": 1 - value, "brier": None if task == "b" else value / 2},
                "sampled": {"accuracy": value / 4, "ece": None, "brier": 0.5},
            }
            for task, value in zip("abcd", row, strict=True)
        }
        found.append(Measurement(stage, 2 * number, 8 * number, tasks))
    return found[:upto]


def test_forgetting_is_from_the_tasks_own_stage_to_the_end():
    assert forgetting(measurements()) == {
        "a": {
            "greedy": {"accuracy_drop": 0.25, "ece_rise": 0.25, "brier_rise": -0.125},
            "sampled": {"accuracy_drop": 0.0625, "ece_rise": None, "brier_rise": 0.0},
        },
        "b": {
            "greedy": {"accuracy_drop": 0.0, "ece_rise": 0.0, "brier_rise": None},
            "sampled": {"accuracy_drop": 0.0, "ece_rise": None, "brier_rise": 0.0},
        },
        "mean": {
            "greedy": {"accuracy_drop": 0.125, "ece_rise": 0.125, "brier_rise": None},
            "sampled": {"accuracy_drop": 0.03125, "ece_rise": None, "brier_rise": 0.0},
        },
    }


@pytest.mark.parametrize("upto", [0, 1, 2])
def test_before_a_second_stage_nothing_is_forgotten(upto):
    assert forgetting(measurements(upto)) == {}


def test_an_event_that_was_not_measured_before_has_lost_nothing_that_is_known():
    """A run that goes on with other settings may measure an event at its end that it did not measure earlier."""
    *earlier, end = measurements()
    earlier = [replace(each, tasks={t: {"greedy": e["greedy"]} for t, e in each.tasks.items()}) for each in earlier]
    found = forgetting([*earlier, end])
    assert found["a"]["sampled"] == dict.fromkeys(("accuracy_drop", "ece_rise", "brier_rise"))
    assert found["mean"]["greedy"] == forgetting(measurements())["mean"]["greedy"]


def test_the_file_holds_the_matrix():
    record = as_json(measurements())
    assert [row["stage"] for row in record["stages"]] == ["before", "a", "b", "c"]
    assert record["stages"][2]["tasks"]["d"]["greedy"]["accuracy"] == 0.5
    assert (record["stages"][2]["round"], record["stages"][2]["step"]) == (4, 16)
    assert record["forgetting"] == forgetting(measurements())
