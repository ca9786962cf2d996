"""Verifiers, which judge a completion by its target. A task has one, for training and evaluation alike."""

from caopd.verifiers.base import Verifier
from caopd.verifiers.exact_match import ExactMatch
from caopd.verifiers.judge import Judge, JudgeModel
from caopd.verifiers.mathematics import Mathematics
from caopd.verifiers.multiple_choice import MultipleChoice
from caopd.verifiers.numeric import Numeric
from caopd.verifiers.served_model import ServedModel
from caopd.verifiers.short_answer import ShortAnswer
from caopd.verifiers.tool_calls import ToolCalls

__all__ = [
    "ExactMatch",
    "Judge",
    "JudgeModel",
    "Mathematics",
    "MultipleChoice",
    "Numeric",
    "ServedModel",
    "ShortAnswer",
    "ToolCalls",
    "Verifier",
]
