"""What every task promises."""

import itertools
import json

import pytest

from caopd.confidence import InlineConfidence, TagConfidence
from caopd.errors import ConfigError
from caopd.tasks import SPLITS, Arithmetic, DataSource, DrawTask, QuestionAnswering, ScienceQA, ToolUse
from caopd.types import AnswerOutcome
from caopd.verifiers import ShortAnswer

QUESTIONS = [
    {
        "idx": n,
        "system": "Answer in tags.",
        "prompt": f"Question {n}?\n\nA: iron\nB: neon {n}\nPlease reason step by step.",
        "answer": "AB"[n % 2],
    }
    for n in range(20)
]
CAPITALS = [{"question": f"Which city is number {n}?", "answer": [f"City {n}", f"{n} City"]} for n in range(20)]
TOOLS = [
    {
        "Name": f"Lamp{n}",
        "Description": "Lights of one room",
        "NLDocumentation": 'setColour: Set the colour.\nParameters: {"colour": "string"}\n',
        "Instructions": ["Make it red.", "Make it green."],
        "Golden_Answers": [
            [{"Action": "setColour", "Action_Input": json.dumps({"colour": colour})}] for colour in ("red", "green")
        ],
    }
    for n in range(10)
]
THIRDS = {"train": 0.5, "validation": 0.25, "test": 0.25}


def from_file(tmp_path, rows):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    splits = dict.fromkeys(SPLITS, "all")
    return DataSource(files={"all": str(path)}, splits=splits, shares=THIRDS)


TASKS = {
    "arithmetic": lambda tmp_path: Arithmetic(40, 20, 20, kinds=["2+1", "2-2", "3*1", "3/1"], demonstration="worked"),
    "draw": lambda tmp_path: DrawTask(num_train=40, num_validation=20, num_test=20),
    "question_answering": lambda tmp_path: QuestionAnswering(from_file(tmp_path, CAPITALS), ShortAnswer()),
    "science_qa": lambda tmp_path: ScienceQA(from_file(tmp_path, QUESTIONS)),
    "tool_use": lambda tmp_path: ToolUse(from_file(tmp_path, TOOLS)),
}


@pytest.fixture(params=TASKS)
def task(request, tmp_path):
    return TASKS[request.param](tmp_path)


def all_examples(task):
    return [example for split in SPLITS for example in task.examples(split)]


def test_a_split_is_the_same_every_time(task):
    for split in SPLITS:
        assert list(task.examples(split)) == list(task.examples(split)) != []


def test_ids_are_unique_and_no_question_is_in_two_splits(task):
    examples = all_examples(task)
    assert len({example.id for example in examples}) == len(examples)
    assert len({example.question for example in examples}) == len(examples)


def test_an_unknown_split_is_refused(task):
    with pytest.raises(ConfigError, match=r"train, validation, test.*'dev'"):
        task.examples("dev")


def test_the_demonstration_is_a_correct_answer(task):
    for example in all_examples(task):
        verdict = task.verifier.verify(example.demonstration, example.target)
        assert verdict.correct
        assert verdict.outcome is AnswerOutcome.PARSED


def test_an_answer_to_another_question_is_wrong(task):
    examples = all_examples(task)
    for example, other in itertools.pairwise(examples):
        verdict = task.verifier.verify(other.demonstration, example.target)
        assert verdict.correct == (other.target == example.target)


def test_no_answer_is_wrong_and_not_parsed(task):
    verdict = task.verifier.verify("", all_examples(task)[0].target)
    assert (verdict.correct, verdict.answer) == (False, None)
    assert verdict.outcome is not AnswerOutcome.PARSED


def test_equal_answers_are_equal_strings(task):
    """What self-consistency counts."""
    for example in all_examples(task):
        plain = task.verifier.verify(example.demonstration, example.target)
        spaced = task.verifier.verify(f"\n{example.demonstration}\n\n", example.target)
        assert plain.answer == spaced.answer is not None


def test_the_data_states_no_confidence(task):
    for example in all_examples(task):
        for form in (InlineConfidence(), TagConfidence()):
            assert form.parse(example.demonstration).span is None
            assert form.instruction not in example.question


def test_the_question_does_not_hold_the_demonstration(task):
    for example in all_examples(task):
        if len(example.demonstration) > 1:
            assert example.demonstration not in example.question
