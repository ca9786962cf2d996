"""Names and paths to verifiers and formats; what cannot be one is refused."""

import math
import sys
import types

import pytest

from caopd.commands.score.judge import FORMATS, TASKS, Judge
from caopd.errors import ConfigError
from caopd.tasks import DataSource, DrawTask, ScienceQA, ToolUse
from caopd.types import Form
from caopd.verifiers import MultipleChoice

SOURCE = DataSource(path="nowhere")
CALLS = '[{"Action": "search", "Action_Input": {"page": 1}}]'
RIGHT = {
    "science_qa": ("<answer>B</answer>", "B", ScienceQA(SOURCE)),
    "tool_use": ('Action: search\nAction Input: {"page": 1}', CALLS, ToolUse(SOURCE)),
    "draw": ("6", "6", DrawTask()),
}


@pytest.mark.parametrize("name", TASKS)
def test_every_shipped_task_is_judged_by_its_own_verifier_without_its_data(name):
    response, target, task = RIGHT[name]
    for given in (name, TASKS[name]):
        judge = Judge.named(given, "inline")
        assert judge.verifier == task.verifier
        assert judge(f"{response}\nConfidence: 0.85", target) == (0.85, True, Form.ASKED, Form.ASKED)


@pytest.mark.parametrize(("name", "text"), [("inline", "Confidence: 0.4"), ("tag", "<confidence>0.4</confidence>")])
def test_every_shipped_format_is_read_and_cut_off(name, text):
    for given in (name, FORMATS[name]):
        judge = Judge.named("draw", given)
        assert judge(f"6\n{text}", "6") == (0.4, True, Form.ASKED, Form.ASKED)
        assert judge(f"6\n{text.replace('0.4', '40%')}", "6") == (0.4, True, Form.ASKED, Form.OTHER)
    confidence, *others = judge("", "6")
    assert math.isnan(confidence)
    assert others == [False, Form.NONE, Form.NONE]


class OwnTask:
    """A task that makes its verifier when it is built."""

    def __init__(self, options="AB"):
        self._options = options

    @property
    def verifier(self):
        return MultipleChoice(self._options)


def test_a_task_that_needs_no_arguments_is_built(monkeypatch):
    monkeypatch.setitem(sys.modules, "own_task", types.SimpleNamespace(OwnTask=OwnTask))
    assert Judge.named("own_task.OwnTask", "inline").verifier == MultipleChoice("AB")


def test_a_verifier_class_is_a_task_too():
    assert Judge.named("caopd.verifiers.ExactMatch", "inline")("6", "6")[1:] == (True, Form.ASKED, Form.NONE)


def test_first_call_only_is_still_a_setting_of_the_task():
    assert ToolUse(SOURCE, first_call_only=True).verifier.first_call_only
    assert not ToolUse.verifier.first_call_only


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("sciense_qa", "one of science_qa, tool_use, draw, or a class that can be imported.*'sciense_qa'"),
        ("caopd.tasks.Sums", "one of science_qa.*'caopd.tasks.Sums'"),
        ("no_such_module.Task", "No module named 'no_such_module'"),
        ("caopd.tasks.SPLITS", "to name a class, but 'caopd.tasks.SPLITS' is"),
        ("caopd.types.Sample", "one of science_qa"),
        ("caopd.types.Example", r"needs no arguments, but .*missing 3 .*caopd\.verifiers\.ExactMatch"),
        ("caopd.confidence.TagConfidence", "the class of a task or of a verifier, but got 'caopd.confidence.TagC"),
    ],
)
def test_what_is_no_task_is_refused(task, message):
    with pytest.raises(ConfigError, match=message):
        Judge.named(task, "inline")


@pytest.mark.parametrize("name", ["decimal", "caopd.verifiers.ExactMatch"])
def test_what_is_no_format_is_refused(name):
    with pytest.raises(ConfigError, match=r"--confidence_format` .*but got"):
        Judge.named("draw", name)
