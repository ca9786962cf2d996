"""Verifiers, which judge a completion by its target. A task has one, for training and evaluation alike."""

from caopd.verifiers.base import Verifier
from caopd.verifiers.exact_match import ExactMatch
from caopd.verifiers.multiple_choice import MultipleChoice
from caopd.verifiers.numeric import Numeric
from caopd.verifiers.tool_calls import ToolCalls

__all__ = ["ExactMatch", "MultipleChoice", "Numeric", "ToolCalls", "Verifier"]
