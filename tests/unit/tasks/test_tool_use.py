import json
import re
from pathlib import Path

import pytest

from caopd.errors import DataError
from caopd.tasks import DataSource, ToolUse
from caopd.tasks.tool_use import tool_prompt
from caopd.types import AnswerOutcome

TOOL_USE = Path(__file__).parents[4] / "shared" / "data" / "tooluse"
with_real_data = pytest.mark.skipif(not TOOL_USE.is_dir(), reason=f"no real data in {TOOL_USE}")
UNREADABLE_IDS = ["107", "111", "112", "113"]
"""Rows of the real training data whose golden input is not JSON: ``"symbols": "symbols": "JPY"``."""

PREPARED = {
    "idx": 3,
    "system": None,
    "prompt": "Use the tools.\nName: Lamp\nDescription: A lamp\nQuestion: Red, please.",
    "answer": '[{"Action": "setColour", "Action_Input": "{\\"colour\\": \\"red\\"}"}]',
}
TOOL = {
    "Name": "Lamp",
    "Description": "A lamp",
    "NLDocumentation": "setColour: Set the colour.\nParameters: {}\n",
    "Instructions": ["Red, please.", "Off and on."],
    "Golden_Answers": [
        [{"Action": "setColour", "Action_Input": '{"colour": "red"}'}],
        [
            {"Action": "turnOff", "Action_Input": "{}"},
            {"Action": "[Optional]turnOn", "Action_Input": {"lamp": "é"}},
        ],
    ],
}


def task_of(tmp_path, rows, **arguments):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ToolUse(DataSource(files={"train": str(path)}), **arguments)


@pytest.mark.parametrize("answer", [PREPARED["answer"], json.loads(PREPARED["answer"])])
def test_a_prepared_row(tmp_path, answer):
    (example,) = task_of(tmp_path, [{**PREPARED, "answer": answer}]).examples("train")
    assert (example.id, example.category, example.system) == ("3", "Lamp", None)
    assert example.question == PREPARED["prompt"]
    assert json.loads(example.target) == json.loads(PREPARED["answer"])
    assert example.demonstration == (
        'Thought: I should call setColour.\nAction: setColour\nAction Input: {"colour": "red"}'
    )


def test_a_tool_of_toolalpaca_makes_one_example_for_every_instruction(tmp_path):
    task = task_of(tmp_path, [TOOL])
    first, second = task.examples("train")
    assert (first.id, second.id, second.category) == ("Lamp-0", "Lamp-1", "Lamp")
    assert first.question.endswith("Begin!\nQuestion: Red, please.")
    assert "Documentation:\nsetColour: Set the colour.\nParameters: {}\n\nUse the following" in first.question
    assert second.demonstration == (
        "Thought: I should call turnOff.\nAction: turnOff\nAction Input: {}\n"
        'Thought: I should call turnOn.\nAction: turnOn\nAction Input: {"lamp": "é"}'
    )
    for example in (first, second):
        assert task.verifier.verify(example.demonstration, example.target).correct


def test_first_call_only_reaches_the_verifier(tmp_path):
    text = "Action: turnOff\nAction Input: {}\nAction: explode\nAction Input: {}"
    for first_call_only in (False, True):
        task = task_of(tmp_path, [TOOL], first_call_only=first_call_only)
        assert task.verifier.verify(text, task.examples("train")[1].target).correct is first_call_only


def test_unreadable_answers_are_listed_together_and_can_be_excluded(tmp_path):
    broken = '[{"Action": "setColour", "Action_Input": "{\\"colour\\": }"}]'
    rows = [PREPARED, *({**PREPARED, "idx": n, "answer": broken} for n in range(10, 15))]
    with pytest.raises(DataError) as caught:
        task_of(tmp_path, rows).examples("train")
    message = str(caught.value)
    assert message.startswith("5 of 6 rows have an answer that cannot be read")
    assert "a.jsonl, line 2" in message
    ids = json.loads(re.search(r"`exclude_ids: (\[.*\])`", message)[1])
    assert len(message) < 2000
    assert [e.id for e in task_of(tmp_path, rows, exclude_ids=ids).examples("train")] == ["3"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({**PREPARED, "answer": None}, "at least one call"),
        ({**PREPARED, "answer": []}, "at least one call"),
        ({key: PREPARED[key] for key in ("idx", "prompt")}, r"at least one call.*Columns: idx, prompt"),
        ({**PREPARED, "prompt": ""}, "'prompt'"),
        ({**TOOL, "Golden_Answers": TOOL["Golden_Answers"][:1]}, "equal length"),
        ({**TOOL, "Description": None}, "'Description'"),
        ({**PREPARED, "idx": 3}, "unique ids, but '3'"),
    ],
)
def test_a_row_that_cannot_be_used_is_named_never_skipped(tmp_path, row, message):
    with pytest.raises(DataError, match=message) as caught:
        task_of(tmp_path, [PREPARED, row]).examples("train")
    assert "a.jsonl, line 2" in str(caught.value)


@with_real_data
@pytest.mark.parametrize(("split", "count"), [("train", 110), ("test", 68)])
def test_every_real_demonstration_is_correct(split, count):
    task = ToolUse(DataSource(files={split: str(TOOL_USE / f"{split}.jsonl")}), exclude_ids=UNREADABLE_IDS)
    examples = task.examples(split)
    assert len(examples) == count
    for example in examples:
        verdict = task.verifier.verify(example.demonstration, example.target)
        assert verdict.correct
        calls = json.loads(example.target)
        assert len(json.loads(verdict.answer)) == len(calls)
        assert example.category


def written(calls):
    """The calls of a gold answer in forms that models use; ``[Optional]`` stands where the form allows for it."""
    plain = [name.removeprefix("[Optional]") for name, _ in calls]
    yield "\n".join(f"Thought: next\nAction: {name}\nAction Input: {json.dumps(given)}" for name, given in calls)
    objects = [{"name": name, "arguments": given} for name, given in calls]
    yield json.dumps([{"Action": name, "Action_Input": given} for name, given in calls], indent=2)
    yield "\n".join(f"<tool_call>\n{json.dumps(each)}\n</tool_call>" for each in objects)
    functions = [{**each, "arguments": json.dumps(each["arguments"])} for each in objects]
    yield json.dumps({"tool_calls": [{"type": "function", "function": each} for each in functions]})
    keywords = [", ".join(f"{key}={value!r}" for key, value in given.items()) for _, given in calls]
    yield f"[{', '.join(f'{name}({given})' for name, given in zip(plain, keywords, strict=True))}]"
    for name, (_, given) in zip(plain, calls, strict=True):
        values = {key: value if isinstance(value, str) else json.dumps(value) for key, value in given.items()}
        parameters = "".join(f"<parameter={key}>\n{value}\n</parameter>\n" for key, value in values.items())
        if len(calls) == 1:
            yield f"<tool_call>\n<function={name}>\n{parameters}</function>\n</tool_call>"


@with_real_data
@pytest.mark.parametrize(("split", "count"), [("train", 110), ("test", 68)])
def test_every_real_answer_is_right_by_itself_in_every_form(split, count):
    task = ToolUse(DataSource(files={split: str(TOOL_USE / f"{split}.jsonl")}), exclude_ids=UNREADABLE_IDS)
    examples = task.examples(split)
    assert len(examples) == count
    for example in examples:
        inputs = [(call["Action"], call["Action_Input"]) for call in json.loads(example.target)]
        calls = [(name, json.loads(given) if isinstance(given, str) else given) for name, given in inputs]
        for number, text in enumerate(written(calls)):
            verdict = task.verifier.verify(f"I need this:\n{text}\n", example.target)
            assert verdict.correct, text
            assert (verdict.outcome is AnswerOutcome.PARSED) == (number == 0)


@with_real_data
def test_the_real_rows_that_cannot_be_judged_are_known():
    task = ToolUse(DataSource(files={"train": str(TOOL_USE / "train.jsonl")}))
    with pytest.raises(DataError, match=re.escape(f"`exclude_ids: {json.dumps(UNREADABLE_IDS)}`")):
        task.examples("train")


@with_real_data
@pytest.mark.parametrize("split", ["train", "test"])
def test_toolalpacas_fields_give_the_real_prompts_back(split):
    pattern = re.compile(
        r"\nName: (.*?)\nDescription: (.*?)\nDocumentation:\n(.*)\nUse the following.*\nBegin!\n"
        r"Question: (.*)",
        re.S,
    )
    for line in (TOOL_USE / f"{split}.jsonl").read_text(encoding="utf-8").splitlines():
        prompt = json.loads(line)["prompt"]
        assert tool_prompt(*pattern.search(prompt).groups()) == prompt
