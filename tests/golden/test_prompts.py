"""Rendered prompts, compared with the files beside this one to the character.

After a wanted change, ``UPDATE_GOLDEN=1 pytest tests/golden`` writes the files anew; read the difference.
"""

import json
import os
from pathlib import Path

import pytest

from caopd.confidence import InlineConfidence, TagConfidence
from caopd.prompts import student_messages, teacher_messages
from caopd.tasks import DataSource, ScienceQA, ToolUse
from caopd.tasks.draw import Draw
from caopd.types import TeacherContext

GOLDEN = Path(__file__).parent / "prompts"
QUESTION = {
    "idx": 1,
    "system": "Answer in the given format.",
    "prompt": "Which element is a noble gas?\n\nA: iron\nB: neon\nPlease reason step by step.",
    "answer": "B",
}
TOOL = {
    "Name": "Lamp",
    "Description": "Lights of one room",
    "NLDocumentation": 'setColour: Set the colour.\nParameters: {"colour": "Required. string."}\n',
    "Instructions": ["Make it red."],
    "Golden_Answers": [[{"Action": "setColour", "Action_Input": '{"colour": "red"}'}]],
}
TASKS = {"science_qa": (ScienceQA, QUESTION), "tool_use": (ToolUse, TOOL)}
FORMATS = {"inline": InlineConfidence(), "tag": TagConfidence()}
SOLUTION = "A solution that the student sampled."
FEEDBACK = "Call 1, 'setColour', has a wrong input."
CONTEXTS = {
    "student": lambda demonstration: None,
    "demonstration_1.00": lambda demonstration: TeacherContext("demonstration", demonstration, 1.0),
    "demonstration_empirical_0.38": lambda demonstration: TeacherContext(
        "demonstration", demonstration, 1.0
    ).with_empirical_confidence(0.375),
    "solution": lambda demonstration: TeacherContext("solution", SOLUTION, None),
    "solution_empirical_0.38": lambda demonstration: TeacherContext(
        "solution", SOLUTION, None
    ).with_empirical_confidence(0.375),
    "note_alone_0.38": lambda demonstration: TeacherContext("solution", None, None).with_empirical_confidence(0.375),
}
WITH_FEEDBACK = {
    "solution_feedback": lambda demonstration: TeacherContext("solution", SOLUTION, 0.9, feedback=FEEDBACK),
    "feedback": lambda demonstration: TeacherContext("solution", None, None, feedback=FEEDBACK),
    "feedback_empirical_0.38": lambda demonstration: TeacherContext(
        "solution", None, None, feedback=FEEDBACK
    ).with_empirical_confidence(0.375),
}
CASES = [("inline", task, context) for task in (*TASKS, "draw") for context in CONTEXTS]
CASES += [("inline", "tool_use", context) for context in WITH_FEEDBACK]
CASES.append(("tag", "science_qa", "demonstration_empirical_0.38"))


def rendered(form, task, context, tmp_path):
    if task == "draw":
        example = Draw("even", (3, 8, 5, 2, 6), drawn=8).example()
    else:
        task_class, row = TASKS[task]
        path = tmp_path / "chemistry.jsonl"
        path.write_text(json.dumps(row))
        (example,) = task_class(DataSource(files={"train": str(path)})).examples("train")
    teacher_context = {**CONTEXTS, **WITH_FEEDBACK}[context](example.demonstration)
    if teacher_context is None:
        messages = student_messages(example, FORMATS[form])
    else:
        messages = teacher_messages(example, teacher_context, FORMATS[form])
    return "\n".join(f"[{message['role']}]\n{message['content']}\n[end]" for message in messages) + "\n"


@pytest.mark.parametrize(("form", "task", "context"), CASES)
def test_prompt_is_as_recorded(form, task, context, tmp_path):
    golden = GOLDEN / f"{task}.{context}.{form}.txt"
    text = rendered(form, task, context, tmp_path)
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8")


def test_every_recorded_file_has_a_case():
    assert {path.name for path in GOLDEN.iterdir()} == {f"{task}.{context}.{form}.txt" for form, task, context in CASES}
