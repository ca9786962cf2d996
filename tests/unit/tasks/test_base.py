import pytest
from jsonargparse import ArgumentParser

from caopd.confidence import ConfidenceFormat, TagConfidence
from caopd.errors import ConfigError, DataError, UserCodeError
from caopd.tasks import DataSource, ScienceQA, Task, ToolUse, check_split, examples_of, verifier_of
from caopd.verifiers import ExactMatch

CONFIGS = [
    (
        {
            "class_path": "caopd.tasks.ScienceQA",
            "init_args": {
                "source": {
                    "files": {"train": ["a.jsonl", "b.jsonl"], "test": "c.jsonl"},
                    "columns": {"id": "n"},
                },
                "subjects": ["chemistry"],
            },
        },
        ScienceQA(
            DataSource(files={"train": ["a.jsonl", "b.jsonl"], "test": "c.jsonl"}, columns={"id": "n"}),
            subjects=["chemistry"],
        ),
    ),
    (
        {
            "class_path": "caopd.tasks.ToolUse",
            "init_args": {
                "source": {"path": "a/b", "splits": {"validation": "test"}},
                "first_call_only": True,
                "exclude_ids": ["107"],
            },
        },
        ToolUse(DataSource(path="a/b", splits={"validation": "test"}), first_call_only=True, exclude_ids=["107"]),
    ),
]


@pytest.mark.parametrize(("config", "expected"), CONFIGS)
def test_typed_constructors_make_the_configuration(config, expected):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--task", type=Task)
    assert parser.instantiate(parser.parse_object({"task": config})).task == expected


def test_a_confidence_format_is_configured_by_its_class_alone():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--confidence", type=ConfidenceFormat)
    parsed = parser.parse_args(["--confidence=caopd.confidence.TagConfidence"])
    assert parser.instantiate(parsed).confidence == TagConfidence()


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_the_three_splits_pass(split):
    check_split(split)


@pytest.mark.parametrize("split", ["", "dev", "Train"])
def test_any_other_split_is_an_error(split):
    with pytest.raises(ConfigError, match="train, validation, test"):
        check_split(split)


class Own:
    """A task whose verifier and examples are what a function returns."""

    def __init__(self, function):
        self._function = function

    @property
    def verifier(self):
        return self._function()

    def examples(self, split):
        return self._function()


def fails():
    raise PermissionError("answers.sqlite")


def test_what_a_task_raises_names_it_and_what_it_returns_is_checked():
    assert verifier_of(Own(ExactMatch)) == ExactMatch()
    with pytest.raises(UserCodeError, match=r"Own .*its verifier.*PermissionError: answers\.sqlite"):
        verifier_of(Own(fails))
    with pytest.raises(ConfigError, match=r"`verifier` of .*Own to have a method `verify`, but got 'exact'"):
        verifier_of(Own(lambda: "exact"))
    with pytest.raises(UserCodeError, match=r"Own .*the split 'train'.*PermissionError"):
        examples_of(Own(fails), "train")
    with pytest.raises(DataError, match=r"Own to return Examples for the split 'test', but got 'row'"):
        examples_of(Own(lambda: ["row"]), "test")
