"""Verifier that asks a language model whether an answer is right; its verdicts are kept on disk."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from caopd.errors import ConfigError, DataError, UnansweredError
from caopd.files import write_text
from caopd.reading.answers import stated_answer
from caopd.reading.thinking import said
from caopd.types import AnswerOutcome, Verdict
from caopd.verifiers.base import Verifier
from caopd.verifiers.short_answer import normalised

INSTRUCTION = (
    "You grade an answer to a question. It is correct if it says the same as one of the accepted answers, however it "
    "is worded, and nothing that contradicts it; otherwise it is incorrect. What you believe yourself does not "
    "matter.\n\nQuestion: {question}\n\nAccepted answers: {accepted}\n\nAnswer to grade: {answer}\n\n"
    "Reply with one word, CORRECT or INCORRECT."
)
"""What the model is asked."""
_FIELDS = ("{question}", "{accepted}", "{answer}")
_GRADE = re.compile(r"\b(in)?correct\b", re.IGNORECASE)
_FIRST = re.compile(rf"[^\w?]*{_GRADE.pattern}[*_`\"']*(?:[.!:\n]|\s*\Z)", re.IGNORECASE)
"""Matches a grade that is the first sentence of a reply."""
_DOUBT = re.compile(r"\?|\b(?:not|no|never|neither|nor)\b|n['\u2019]t\b", re.IGNORECASE)


class JudgeModel(Protocol):
    """A language model that grades; a class of your own joins by its ``class_path``."""

    if TYPE_CHECKING:  # at run time it would be the default of a dataclass's field of this name

        @property
        def name(self) -> str:
            """Says which model it is: its verdicts are kept under this name."""
            ...

    def reply(self, prompt: str) -> str:
        """Return what the model answers to a prompt.

        Raises:
            UnansweredError: It does not answer; the completion has no verdict.
        """
        ...


@dataclass(frozen=True)
class Judge(Verifier):
    """A model says whether the answer is right, unless it equals an accepted one already (``ShortAnswer``).

    Every verdict is a small file in ``folder``, named by what the model was asked, so no question is asked twice, by
    resumed runs and other processes either. A reply grades by its first sentence, or by the only grade that it holds;
    one that denies or asks (``It is not correct.``) does not. Without a grade there is no verdict: the completion is
    left out and counted, and is not kept.

    Args:
        model: The model that grades.
        folder: Where verdicts are kept, relative to the current directory.
        instruction: What it is asked, with the fields ``{question}``, ``{accepted}`` and ``{answer}``; other braces are
            not allowed.

    Raises:
        ConfigError: The instruction lacks one of these fields.
    """

    model: JudgeModel
    folder: str = "judged"
    instruction: str = INSTRUCTION

    def __post_init__(self) -> None:
        if any(self.instruction.count(field) != 1 for field in _FIELDS):
            raise ConfigError(
                f"Expected `instruction` of Judge to hold {', '.join(_FIELDS)}, each once, but got "
                f"{self.instruction!r:.300}."
            )

    def target(self, question: str, answers: Sequence[str]) -> str:
        """Return the target of a question: a JSON object of it and all accepted answers.

        Args:
            question: The question as the judge is to see it.
            answers: All accepted answers.
        """
        return json.dumps({"question": question, "answers": list(answers)}, ensure_ascii=False)

    def verify(self, text: str, target: str) -> Verdict:
        """Have the answer in ``text`` graded; a text of several lines that marks none is graded whole.

        Raises:
            DataError: ``target`` is not what :meth:`target` returns.
            UnansweredError: The model does not answer, or does not grade.
        """
        question, answers = _parsed(target)
        answer, outcome, _ = stated_answer(text)
        if answer is None and outcome is AnswerOutcome.MISSING and said(text).strip():
            answer, outcome = said(text).strip(), AnswerOutcome.OTHER_FORM
        if answer is None:
            return Verdict(correct=False, answer=None, outcome=outcome)
        found = normalised(answer)
        correct = found in map(normalised, answers) or self._graded(question, answers, answer)
        return Verdict(correct, found, outcome)

    def _graded(self, question: str, answers: Sequence[str], answer: str) -> bool:
        """Return what the model says, now or when it was asked before."""
        fields = dict(zip(_FIELDS, (question, "; ".join(answers), answer), strict=True))
        parts = re.split("|".join(map(re.escape, _FIELDS)), self.instruction)
        order = re.findall("|".join(map(re.escape, _FIELDS)), self.instruction)
        prompt = parts[0] + "".join(fields[field] + after for field, after in zip(order, parts[1:], strict=True))
        key = hashlib.sha256(json.dumps([self.model.name, prompt]).encode()).hexdigest()
        kept = Path(self.folder, key[:2], f"{key}.json")
        if kept.is_file():
            return _kept(kept)
        reply = said(self.model.reply(prompt))
        correct = _grade(reply)
        if correct is None:
            raise UnansweredError(
                f"Expected the judge {self.model.name} to reply CORRECT or INCORRECT, but got {reply.strip()[:200]!r}: "
                "there is no verdict, and the completion is left out. Take another model, or change `instruction`."
            )
        write_text(kept, json.dumps({"judge": self.model.name, "prompt": prompt, "reply": reply, "correct": correct}))
        return correct


def _grade(reply: str) -> bool | None:
    """Return whether a reply says that the answer is correct; None where it says neither, or both."""
    first = _FIRST.match(reply)
    if first is not None:
        return not first[1]
    grades = {not wrong for wrong in _GRADE.findall(reply)}
    return grades.pop() if len(grades) == 1 and not _DOUBT.search(reply) else None


def _kept(file: Path) -> bool:
    """Return the verdict that a file keeps.

    Raises:
        DataError: The file is damaged.
    """
    try:
        correct = json.loads(file.read_text(encoding="utf-8"))["correct"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(
            f"Expected {file} to keep a judge's verdict, but it is damaged ({error}). Delete it: the judge is asked "
            "again."
        ) from error
    return bool(correct)


def _parsed(target: str) -> tuple[str, list[str]]:
    try:
        parsed = json.loads(target)
        question, answers = parsed["question"], parsed["answers"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(
            f"Expected the target of a question for a judge to be a JSON object of `question` and `answers`, but got "
            f"{target[:80]!r}: let `Judge.target` make it."
        ) from error
    return str(question), [str(answer) for answer in answers]
