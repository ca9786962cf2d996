import pytest
from jsonargparse import ArgumentParser

from caopd.confidence import ConfidenceFormat, TagConfidence
from caopd.errors import ConfigError
from caopd.tasks import DataSource, ScienceQA, Task, ToolUse, check_split

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
