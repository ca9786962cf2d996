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
            task: {"accuracy": value, "ece": 1 - value, "brier": None if task == "b" else value / 2}
            for task, value in zip("abcd", row, strict=True)
        }
        found.append(Measurement(stage, 2 * number, 8 * number, tasks))
    return found[:upto]


def test_forgetting_is_from_the_tasks_own_stage_to_the_end():
    assert forgetting(measurements()) == {
        "a": {"accuracy_drop": 0.25, "ece_rise": 0.25, "brier_rise": -0.125},
        "b": {"accuracy_drop": 0.0, "ece_rise": 0.0, "brier_rise": None},
        "mean": {"accuracy_drop": 0.125, "ece_rise": 0.125, "brier_rise": None},
    }


@pytest.mark.parametrize("upto", [0, 1, 2])
def test_before_a_second_stage_nothing_is_forgotten(upto):
    assert forgetting(measurements(upto)) == {}


def test_the_file_holds_the_matrix():
    record = as_json(measurements())
    assert [row["stage"] for row in record["stages"]] == ["before", "a", "b", "c"]
    assert record["stages"][2]["tasks"]["d"]["accuracy"] == 0.5
    assert (record["stages"][2]["round"], record["stages"][2]["step"]) == (4, 16)
    assert record["forgetting"] == forgetting(measurements())
