"""Reads and verifies saved responses as training and evaluation do, with a verifier and a confidence format alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from inspect import signature
from typing import NamedTuple, cast

from caopd.confidence import ConfidenceFormat
from caopd.errors import ConfigError
from caopd.types import Form
from caopd.verifiers import Verifier
from caopd.verifiers.time_limit import TimeLimit
from caopd.verifiers.verification import Verification

TASKS = {
    "science_qa": "caopd.tasks.ScienceQA",
    "tool_use": "caopd.tasks.ToolUse",
    "draw": "caopd.tasks.DrawTask",
}
"""Short names of the tasks of this package."""
FORMATS = {"inline": "caopd.confidence.InlineConfidence", "tag": "caopd.confidence.TagConfidence"}
"""Short names of the confidence formats of this package."""


class Judged(NamedTuple):
    """What is made of one saved response.

    Attributes:
        confidence: The stated confidence; NaN where none can be read.
        correct: Whether the answer is correct.
        answer: In which form there is an answer; None where it is not known.
        form: In which form the confidence is stated; None where it is not known.
    """

    confidence: float
    correct: bool
    answer: Form | None
    form: Form | None


@dataclass(frozen=True, slots=True)
class Judge:
    r"""A verifier and a confidence format, which together read and verify a saved response.

    Examples:
        >>> judge = Judge.named("science_qa", "inline")
        >>> judge("<answer>\nB\n</answer>\nConfidence: 85%", target="B")
        Judged(confidence=0.85, correct=True, answer=<Form.ASKED: 'asked'>, form=<Form.OTHER: 'other'>)
    """

    verifier: Verifier
    confidence_format: ConfidenceFormat
    limit: TimeLimit = field(default_factory=TimeLimit)

    @classmethod
    def named(
        cls, task: str, confidence_format: str, limit: TimeLimit | None = None, percent_without_sign: bool = False
    ) -> Judge:
        """Return the judge of a task; the task's data are not needed.

        Args:
            task: A key of :data:`TASKS`, or the path of a class: of a task whose ``verifier`` is a class attribute
                or that needs no arguments, or of a verifier that needs none.
            confidence_format: A key of :data:`FORMATS`, or the path of a class.
            limit: Calls the verifier; None calls it in this process, without a limit of time.
            percent_without_sign: The format's setting of this name, for one that has it.

        Raises:
            ConfigError: There is no such class, or it is neither a task nor a verifier, or no confidence format.
        """
        settings = {"percent_without_sign": True} if percent_without_sign else {}
        return cls(_verifier(task), _confidence_format(confidence_format, settings), limit or TimeLimit())

    def __call__(
        self, response: str, target: str, cut: bool = False, ranges: Sequence[tuple[int, int]] | None = None
    ) -> Judged | None:
        """Read and verify one completion.

        Args:
            response: The completion.
            target: What the verifier compares with.
            cut: Whether the length limit is known to have ended it.
            ranges: The character ranges of its thoughts; None finds them by their marks.

        Returns:
            What is made of it; None where the verifier had to be ended.

        Raises:
            DataError: The verifier cannot compare with ``target``, or returns no verdict.
            UserCodeError: The verifier or the format raised.
        """
        where = f"the response {response if len(response) <= 80 else response[:80] + '...'!r}"
        verification = Verification(self.verifier, self.confidence_format, self.limit)
        verdict, reading = verification.verify(response, target, where, ranges, cut)
        if verdict is None:
            return None
        confidence = math.nan if reading.value is None else reading.value
        return Judged(confidence, verdict.correct, verdict.outcome.form, reading.outcome.form)


def _verifier(task: str) -> Verifier:
    found = _class("task", task, TASKS)
    if hasattr(found, "verifier") and hasattr(found.verifier, "verify"):
        return cast(Verifier, found.verifier)
    made = _made("task", found)
    verifier = made.verifier if hasattr(made, "verifier") else made
    if not hasattr(verifier, "verify"):
        raise ConfigError(f"Expected `--task` to name the class of a task or of a verifier, but got {task!r}.")
    return cast(Verifier, verifier)


def _confidence_format(name: str, settings: Mapping[str, bool]) -> ConfidenceFormat:
    found = _class("confidence_format", name, FORMATS)
    if not hasattr(found, "parse"):
        raise ConfigError(f"Expected `--confidence_format` to name a class with a method `parse`, but got {name!r}.")
    if settings and "percent_without_sign" not in signature(found).parameters:
        raise ConfigError(
            f"Expected `--percent_without_sign` with a format that has this setting, but {name!r} has not."
        )
    return cast(ConfidenceFormat, _made("confidence_format", found, settings))


def _class(option: str, name: str, names: Mapping[str, str]) -> type:
    module, _, attribute = names.get(name, name).rpartition(".")
    try:
        found = vars(import_module(module))[attribute]
    except (ImportError, ValueError, KeyError) as error:
        raise ConfigError(
            f"Expected `--{option}` to be one of {', '.join(names)}, or a class that can be imported, such as "
            f"{next(iter(names.values()))}, but got {name!r} ({error})."
        ) from error
    if not isinstance(found, type):
        raise ConfigError(f"Expected `--{option}` to name a class, but {name!r} is {found!r}.")
    return found


def _made(option: str, found: type, settings: Mapping[str, bool] | None = None) -> object:
    try:
        return found(**(settings or {}))
    except TypeError as error:
        advice = (
            " Name the class of the task's verifier, such as caopd.verifiers.ExactMatch." if option == "task" else ""
        )
        raise ConfigError(
            f"Expected `--{option}` to name a class that needs no arguments, but {error}.{advice}"
        ) from error
