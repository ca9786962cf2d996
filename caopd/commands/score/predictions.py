"""Reads saved predictions, JSON lines, into arrays. Every line is scored, or none is."""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt

from caopd.commands.score.judge import Judge, Judged
from caopd.errors import DataError
from caopd.texts import unique
from caopd.types import GREEDY, SAMPLED, AnswerOutcome, ConfidenceOutcome, Form, StopReason

MAX_SHOWN = 10
"""Most bad lines that an error shows."""
UNKNOWN, NONE, AS_ASKED, OTHERWISE = -1, 0, 1, 2
"""How columns number the forms in which an answer or a confidence is given."""
_NUMBER = {Form.NONE: NONE, Form.ASKED: AS_ASKED, Form.OTHER: OTHERWISE}


@dataclass(frozen=True, slots=True)
class Predictions:
    """N completions as arrays.

    Attributes:
        confidence: Stated confidences in [0, 1], NaN where missing, float64 ``[N]``.
        correct: Verified correctness, bool ``[N]``.
        answered: The form of the answer: 1 as asked for, 2 another one, 0 none, -1 where it is not known, int8 ``[N]``.
        form: The form of the stated confidence, likewise, int8 ``[N]``.
        prompt: Index of the completion's prompt, from 0, int64 ``[N]``. A line without ``prompt_id`` is a prompt of
            its own.
        category: Index into ``categories``, -1 for none, int64 ``[N]``.
        categories: Names of the categories, in the order of the file.
        prompt_ids: The ``prompt_id`` of each prompt that has one -> index of the prompt.
        unjudged: The ``prompt_id`` of every line without a verdict, None where it has none; these lines are in no
            array.
        event: Which completions these are, ``greedy`` or ``sampled``; None where the lines do not say.
    """

    confidence: npt.NDArray[np.float64]
    correct: npt.NDArray[np.bool_]
    answered: npt.NDArray[np.int8]
    form: npt.NDArray[np.int8]
    prompt: npt.NDArray[np.int64]
    category: npt.NDArray[np.int64]
    categories: tuple[str, ...]
    prompt_ids: Mapping[int | str, int] = field(default_factory=dict)
    unjudged: tuple[int | str | None, ...] = ()
    event: str | None = None


def read_predictions(path: Path, judge: Judge | None = None) -> Predictions:
    """Read a file of JSON lines; empty lines are skipped.

    Args:
        path: The file.
        judge: Reads and verifies ``response`` against ``target``; None takes ``confidence`` and ``correct`` as they
            stand. With a judge, lines without ``response`` are taken as they stand, too.

    Raises:
        DataError: Lines cannot be scored (all are counted, the first ten are shown), the file has none, or its lines
            are of both events.
        OSError: The file cannot be read.
    """
    columns, bad, shown = _Columns(judge), 0, []
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            text = line.strip()
            if not text:
                continue
            try:
                columns.add(json.loads(text, object_pairs_hook=unique))
            except (ValueError, RecursionError) as error:
                bad += 1
                if bad <= MAX_SHOWN:
                    shown.append(f"  line {number}: {_reason(error)}")
    if bad:
        raise DataError(
            f"Expected every line of {path} to be a prediction, but {bad:,} cannot be scored, so nothing was scored. "
            f"The first {len(shown)}:\n" + "\n".join(shown) + "\nCorrect or remove these lines."
        )
    if not columns.correct:
        found = f"none of its {len(columns.unjudged):,} lines has one" if columns.unjudged else "it holds no line"
        raise DataError(f"Expected at least one prediction with a verdict in {path}, but {found}.")
    if len(columns.events) > 1:
        raise DataError(
            f"Expected the lines of {path} to be of one `event`, but some are of {GREEDY!r} and others of {SAMPLED!r}: "
            "these are two questions about the same confidences. Score each in a file of its own."
        )
    return columns.predictions()


class _Columns:
    """Collects lines column by column: a list of rows would take several times the memory."""

    def __init__(self, judge: Judge | None) -> None:
        self._judge = judge
        self.confidence, self.correct = array("d"), array("b")
        self.answered, self.form = array("b"), array("b")
        self.prompt, self.category = array("q"), array("q")
        self._num_prompts = 0
        self._prompts: dict[int | str, int] = {}
        self._categories: dict[str, int] = {}
        self.unjudged: list[int | str | None] = []
        self.events: set[str] = set()

    def add(self, row: object) -> None:
        """Add one line; raises ``DataError`` if it is no prediction."""
        if not isinstance(row, dict):
            raise DataError(f"expected a JSON object, but got {_shortened(row)}")
        event = row.get("event")
        if event in (GREEDY, SAMPLED):  # logs of others may mean something else by it
            self.events.add(str(event))
        judged: Judged | None
        if self._judge is not None and "response" in row:
            cut = row.get("stop_reason") == StopReason.LENGTH
            judged = self._judge(_text(row, "response"), _text(row, "target"), cut, _thoughts(row))
        else:
            judged = _as_stated(row)
        if judged is None:
            name = row.get("prompt_id")
            self.unjudged.append(None if name is None else _checked_id("prompt_id", name))
            return
        self.confidence.append(judged.confidence)
        self.correct.append(judged.correct)
        self.answered.append(UNKNOWN if judged.answer is None else _NUMBER[judged.answer])
        self.form.append(UNKNOWN if judged.form is None else _NUMBER[judged.form])
        self.prompt.append(self._prompt(row.get("prompt_id")))
        self.category.append(self._category(row.get("category")))

    def predictions(self) -> Predictions:
        """Return the columns as arrays, which share their memory."""
        return Predictions(
            confidence=np.frombuffer(self.confidence, np.float64),
            correct=np.frombuffer(self.correct, np.bool_),
            answered=np.frombuffer(self.answered, np.int8),
            form=np.frombuffer(self.form, np.int8),
            prompt=np.frombuffer(self.prompt, np.int64),
            category=np.frombuffer(self.category, np.int64),
            categories=tuple(self._categories),
            prompt_ids=self._prompts,
            unjudged=tuple(self.unjudged),
            event=next(iter(self.events), None),
        )

    def _prompt(self, name: object) -> int:
        if name is not None:
            number = self._prompts.setdefault(_checked_id("prompt_id", name), self._num_prompts)
            if number < self._num_prompts:
                return number
        self._num_prompts += 1
        return self._num_prompts - 1

    def _category(self, name: object) -> int:
        if name is None or name == "":
            return -1
        return self._categories.setdefault(str(_checked_id("category", name)), len(self._categories))


def _as_stated(row: dict[str, object]) -> Judged | None:
    """Return confidence, correctness and forms as stated; None: no verdict."""
    if "confidence" not in row or "correct" not in row:
        advice = "; give `--task` to read and verify `response`" if "response" in row else ""
        raise DataError(f"expected `confidence` and `correct`, but got only {_shortened(', '.join(row))}{advice}")
    confidence, correct = row["confidence"], row["correct"]
    if confidence is None:
        confidence = math.nan
    elif isinstance(confidence, bool) or not isinstance(confidence, int | float) or not 0 <= confidence <= 1:
        raise DataError(f"expected `confidence` to be a number from 0 to 1 or null, but got {_shortened(confidence)}")
    if correct is None:
        return None
    if correct not in (0, 1):
        raise DataError(
            f"expected `correct` to be 0, 1, true, false, or null without a verdict, but got {_shortened(correct)}"
        )
    answer = _form(row, "answer_outcome", AnswerOutcome)
    if answer is None and "answer" in row and "response" in row:
        answer = Form.NONE if row["answer"] is None else Form.ASKED
    return Judged(confidence, correct == 1, answer, _form(row, "confidence_outcome", ConfidenceOutcome))


def _form(row: dict[str, object], name: str, outcomes: type[AnswerOutcome | ConfidenceOutcome]) -> Form | None:
    value = row.get(name)
    if value is not None and value not in [outcome.value for outcome in outcomes]:
        raise DataError(f"expected `{name}` to be one of {', '.join(outcomes)}, or null, but got {_shortened(value)}")
    return None if value is None else outcomes(str(value)).form


def _text(row: dict[str, object], name: str) -> str:
    value = row.get(name)
    if not isinstance(value, str):
        raise DataError(f"expected `{name}` to be a text, but got {_shortened(value)}")
    return value


def _thoughts(row: dict[str, object]) -> list[tuple[int, int]] | None:
    """Return the character ranges of the thoughts of a response; None where the line does not say."""
    ranges = row.get("thoughts")
    if ranges is None:
        return None
    try:
        found = [(int(start), int(end)) for start, end in cast("list[list[int]]", ranges)]
    except (TypeError, ValueError):
        found = [(-1, -1)]
    edges = [0, *(edge for each in found for edge in each), len(str(row["response"]))]
    if edges != sorted(edges):
        raise DataError(
            "expected `thoughts` to be ranges of characters of `response`, [[start, end], ...], or null, but got "
            f"{_shortened(ranges)}"
        )
    return found


def _checked_id(name: str, value: object) -> int | str:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise DataError(f"expected `{name}` to be a text, an integer or null, but got {_shortened(value)}")
    return value


def _reason(error: ValueError | RecursionError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"expected JSON, but it cannot be read at column {error.colno} ({error.msg})"
    return "expected JSON, but it is nested too deeply" if isinstance(error, RecursionError) else str(error)


def _shortened(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 100 else text[:100] + "..."
