"""Errors of tasks, rows and verifiers: one screen that says what, where and how to mend it, and a non-zero status."""

import json

import pytest

from caopd.cli import main


@pytest.fixture
def science(tmp_path):
    """Arguments for a science task on the given rows."""

    def arguments(rows):
        file = tmp_path / "chemistry.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        source = {"files": dict.fromkeys(("train", "validation", "test"), str(file))}
        task = {"class_path": "caopd.tasks.ScienceQA", "init_args": {"source": source}}
        config = tmp_path / "task.yaml"
        config.write_text(json.dumps({"data": {"task": task, "round": {"num_prompts_per_round": 64}}}))
        return f"--config={config}", "--data.sampling.max_new_tokens=8"

    return arguments


def rows(number=64, **changes):
    row = {"prompt": "Which gas is noble?\nA: neon\nB: iron\nC: tin\nD: zinc", "answer": "A", **changes}
    return [{**row, "idx": index} for index in range(number)]


def stage(name="odd", num_rounds=1, num_train=256):
    task = {"kinds": ["odd"], "num_train": num_train, "num_validation": 4, "num_test": 4}
    task = {"class_path": "caopd.tasks.DrawTask", "init_args": task}
    return {"name": name, "num_rounds": num_rounds, "task": task}


@pytest.mark.parametrize(
    ("stages", "words"),
    [
        ([stage("a/b")], ("'a/b'", "test/NAME/ece")),
        ([stage(num_rounds=60), stage("high", 60)], ("max_epochs", "120 (odd 60, high 60)", "100")),
        ([stage(num_rounds=40), stage("high", 60)], ("'odd' ends after round 40", "check_val_every_n_epoch` is 25")),
        ([stage(num_rounds=50), stage("high", 50, num_train=99)], ("task of stage 'high' has 99",)),
    ],
)
def test_a_sequence_of_tasks_that_cannot_be(failure, stages, words, tmp_path):
    task = {"class_path": "caopd.tasks.TaskSequence", "init_args": {"stages": stages}}
    (tmp_path / "stages.yaml").write_text(json.dumps({"data": {"task": task}}))
    message = failure(f"--config={tmp_path / 'stages.yaml'}", "--data.evaluation.batch_size=4")
    for word in words:
        assert word in message


def test_tasks_of_an_evaluation_that_cannot_be(failure, tmp_path):
    tasks = {"odd": stage()["task"]}
    sequence = {"class_path": "caopd.tasks.TaskSequence", "init_args": {"stages": [stage(num_rounds=100)]}}
    data = {"task": sequence, "evaluation": {"tasks": tasks}}
    (tmp_path / "twice.yaml").write_text(json.dumps({"data": data}))
    assert "odd more than once" in failure(f"--config={tmp_path / 'twice.yaml'}", "--data.seed=1")
    assert "0 for the greedy ones alone" in failure("--data.evaluation.num_samples=-1")
    assert "`data.evaluation.num_samples` to 0" in failure("--data.sampling.temperature=0")
    assert "validate_tasks" in failure("--data.evaluation.validate_tasks=true")


def test_too_few_prompts(failure):
    message = failure("--data.task.num_train=100", "--data.task.num_validation=4")
    assert "100" in message
    assert "num_prompts_per_round" in message


def test_a_missing_data_file(failure, science, tmp_path):
    arguments = science(rows())
    (tmp_path / "chemistry.jsonl").unlink()
    assert "chemistry.jsonl" in failure(*arguments)


def test_a_row_without_an_answer(failure, science):
    data = rows()
    del data[5]["answer"]
    message = failure(*science(data))
    assert "answer" in message
    assert "6" in message  # the sixth line


def test_a_row_without_demonstration_has_no_teacher(failure, tmp_path, monkeypatch):
    (tmp_path / "undemonstrated.py").write_text(
        "from collections.abc import Sequence\n"
        "from dataclasses import dataclass, replace\n"
        "from caopd.tasks import DrawTask\n"
        "from caopd.types import Example\n"
        "@dataclass(frozen=True)\n"
        "class Undemonstrated(DrawTask):\n"
        "    def examples(self, split: str) -> Sequence[Example]:\n"
        "        return [replace(example, demonstration=None) for example in super().examples(split)]\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    message = failure("--data.task=undemonstrated.Undemonstrated", "--data.task.num_validation=4")
    assert "demonstration" in message
    assert "SDPO" in message


def test_a_prompt_longer_than_the_model(failure, science):
    message = failure(*science(rows(prompt="word " * 300)))
    assert "chemistry-0" in message
    assert "takes 512" in message
    assert "max_new_tokens" in message


def test_a_demonstration_that_would_be_cut(failure, science):
    message = failure(*science(rows(demonstration="word " * 300)), "--data.evaluation.max_new_tokens=8")
    assert "teacher's prompt (demonstration)" in message
    assert "chemistry-0" in message
    assert "Nothing is cut" in message


def test_rollouts_that_would_not_fit_as_a_context(failure):
    message = failure("--model.method=SDPO", "--data.sampling.max_new_tokens=250")
    assert "teacher's prompt (solution)" in message


OWN = """
from dataclasses import dataclass, field

from caopd.tasks import DrawTask
from caopd.types import AnswerOutcome, Verdict
from caopd.verifiers import Verifier


class Table:
    def verify(self, text: str, target: str) -> Verdict:
        raise PermissionError("answers.sqlite")


class Points:
    def verify(self, text: str, target: str) -> Verdict:
        return Verdict(0.75, text, AnswerOutcome.PARSED)


@dataclass(frozen=True)
class Looking(DrawTask):
    verifier: Verifier = field(default=Table(), init=False)


@dataclass(frozen=True)
class Counting(DrawTask):
    verifier: Verifier = field(default=Points(), init=False)
"""


FEW = ["--data.task.num_validation=4", "--data.round.num_prompts_per_round=32"]


@pytest.fixture
def own_tasks(tmp_path, monkeypatch):
    (tmp_path / "own_tasks.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("own_tasks")
def test_an_error_of_the_users_verifier_keeps_its_traceback_and_fails_the_run(request, tmp_path, capsys):
    config = request.config.rootpath / "configs" / "quickstart.yaml"
    arguments = [f"--config={config}", f"--trainer.default_root_dir={tmp_path}", "--data.task=own_tasks.Looking"]
    assert main(["fit", *arguments, *FEW]) == 1
    shown, message = capsys.readouterr().err.split("\nerror: ")
    assert 'raise PermissionError("answers.sqlite")' in shown
    assert shown.rstrip().endswith("PermissionError: answers.sqlite")
    assert len(shown[shown.index("Traceback") :].splitlines()) <= 12
    for word in ("own_tasks.Table", "example '", "PermissionError: answers.sqlite"):
        assert word in message


@pytest.mark.usefixtures("own_tasks")
def test_a_verdict_of_points(failure):
    message = failure("--data.task=own_tasks.Counting", *FEW)
    for word in ("own_tasks.Points", "correct=0.75", "example '"):
        assert word in message
