"""Tasks, which make examples of rows; each has its own prompt, splits and verifier."""

from caopd.tasks.arithmetic import Arithmetic
from caopd.tasks.base import SPLITS, Task, check_split, examples_of, verifier_of
from caopd.tasks.draw import DrawTask
from caopd.tasks.loading import DataSource
from caopd.tasks.question_answering import QuestionAnswering
from caopd.tasks.science_qa import ScienceQA
from caopd.tasks.sequence import Stage, TaskSequence, check_task_name, check_unique, stages_of
from caopd.tasks.tool_use import ToolUse

__all__ = [
    "SPLITS",
    "Arithmetic",
    "DataSource",
    "DrawTask",
    "QuestionAnswering",
    "ScienceQA",
    "Stage",
    "Task",
    "TaskSequence",
    "ToolUse",
    "check_split",
    "check_task_name",
    "check_unique",
    "examples_of",
    "stages_of",
    "verifier_of",
]
