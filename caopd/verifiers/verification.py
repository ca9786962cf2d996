"""Reads a completion's stated confidence and has its answer verified, for training, evaluation and scoring alike."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from caopd.confidence import ConfidenceFormat
from caopd.errors import CaopdError, DataError, UnansweredError, name_of, user_code
from caopd.reading.thinking import Marks, ends_in_thought, hidden, thoughts
from caopd.types import (
    AnswerOutcome,
    ConfidenceOutcome,
    ConfidenceReading,
    Example,
    Rollout,
    StopReason,
    Verdict,
    VerifiedRollout,
    strip_segment,
)
from caopd.verifiers import Verifier
from caopd.verifiers.time_limit import TimeLimit

_CONTINUATIONS = ("0", "9", ".9")
"""What the length limit may have cut off after a digit: the smallest digit, the largest, and a point."""
_PRECISION = 0.01
"""Precision of the confidence that is asked for: digits beyond it do not matter."""


@dataclass(frozen=True, slots=True)
class Verification:
    """Reads and verifies completions: one verifier and one confidence format.

    Both see the completion with its thoughts replaced by line feeds, even if they are classes of the user's own.

    Attributes:
        verifier: The task's verifier.
        confidence_format: Reads the stated confidence.
        limit: Calls the verifier; by default in this process, without a limit of time.
        marks: Marks of thinking that the model's chat template declares, beyond the usual ones.
    """

    verifier: Verifier
    confidence_format: ConfidenceFormat
    limit: TimeLimit = field(default_factory=TimeLimit)
    marks: Marks = ()

    def __call__(self, rollout: Rollout, example: Example, begun: bool = False) -> VerifiedRollout:
        """Read the confidence, and verify the text without its confidence segment.

        Args:
            rollout: The completion.
            example: The prompt's row.
            begun: Whether the prompt opened a thought.

        Raises:
            UserCodeError: The verifier or the format raised.
            DataError: One of them returned what it must not.
        """
        (verified,) = self.each([(rollout, example, begun)])
        return verified

    def each(self, completions: Sequence[tuple[Rollout, Example, bool]]) -> list[VerifiedRollout]:
        """Read and verify several completions; faster than one after the other.

        Args:
            completions: Completions with their rows, and whether the prompt opened a thought.

        Raises:
            UserCodeError: The verifier or the format raised.
            DataError: One of them returned what it must not.
        """
        calls, heard = [], []
        for rollout, example, begun in completions:
            where = f"example {example.id!r}"
            ranges = tuple(thoughts(rollout.text, begun, self.marks))
            unfinished = ends_in_thought(rollout.text, begun, self.marks)
            cut = rollout.stop_reason is StopReason.LENGTH
            text, reading = self._heard(rollout.text, where, ranges, unfinished, cut)
            calls.append(((text, example.target), where))
            heard.append((rollout, reading, ranges))
        return [
            VerifiedRollout(rollout, verdict, reading, thoughts=ranges)
            for (rollout, reading, ranges), verdict in zip(heard, self._verdicts(calls), strict=True)
        ]

    def verify(
        self,
        text: str,
        target: str,
        where: str,
        ranges: Sequence[tuple[int, int]] | None = None,
        cut: bool = False,
    ) -> tuple[Verdict | None, ConfidenceReading]:
        """Return the verdict on one text, None where the verifier had to be ended, and the reading of its confidence.

        Args:
            text: A completion.
            target: What the verifier compares with.
            where: How errors name the text.
            ranges: The character ranges of its thoughts; None finds them by their marks.
            cut: Whether the length limit ended it.

        Raises:
            UserCodeError: The verifier or the format raised.
            DataError: One of them returned what it must not.
        """
        if ranges is None:
            ranges, unfinished = tuple(thoughts(text, marks=self.marks)), ends_in_thought(text, marks=self.marks)
        else:
            unfinished = bool(ranges) and ranges[-1][1] == len(text)
        heard, reading = self._heard(text, where, ranges, unfinished, cut)
        (verdict,) = self._verdicts([((heard, target), where)])
        return verdict, reading

    def _heard(
        self, text: str, where: str, ranges: Sequence[tuple[int, int]], unfinished: bool, cut: bool
    ) -> tuple[str, ConfidenceReading]:
        """Return what the verifier sees of a text, and the reading of its confidence."""
        heard = hidden(text, ranges)
        reading = self._read(heard, where)
        if reading.outcome is ConfidenceOutcome.MISSING and unfinished:
            reading = replace(reading, outcome=ConfidenceOutcome.UNFINISHED)
        elif cut and reading.value is not None and self._may_go_on(heard, reading.value, where):
            reading = replace(reading, value=None, outcome=ConfidenceOutcome.MALFORMED)
        return strip_segment(heard, reading), reading

    def _verdicts(self, calls: Sequence[tuple[tuple[str, str], str]]) -> list[Verdict | None]:
        verdicts: list[Verdict | None] = []
        for answer, (_, where) in zip(self.limit.each(self.verifier, "verify", calls), calls, strict=True):
            if isinstance(answer, UnansweredError):
                warnings.warn(str(answer), stacklevel=2)
                verdicts.append(None)
            elif isinstance(answer, CaopdError):
                raise answer
            else:
                verdicts.append(self._checked(answer, where))
        return verdicts

    def _read(self, heard: str, where: str) -> ConfidenceReading:
        with user_code(self.confidence_format, where):
            reading = self.confidence_format.parse(heard)
            if isinstance(reading, ConfidenceReading) and _is_reading(reading, heard):
                return reading
        raise DataError(
            f"Expected {name_of(self.confidence_format)} to return a ConfidenceReading with a value in [0, 1] or None "
            f"and a span within the text, but got {reading!r} for {where}. Correct its `parse`."
        )

    def _may_go_on(self, heard: str, value: float, where: str) -> bool:
        """Return whether more digits after a cut completion could have stated another confidence."""
        if not heard[-1:].isdigit():
            return False
        longer = [self._read(heard + more, where).value for more in _CONTINUATIONS]
        known = [other for other in longer if other is not None]
        return not known or any(abs(other - value) > _PRECISION for other in known)

    def _checked(self, verdict: object, where: str) -> Verdict:
        """Return the verdict with ``correct`` as a bool.

        Raises:
            DataError: It is no verdict, or ``correct`` is neither true nor false.
        """
        problem = f"a Verdict with an answer of text or None and an AnswerOutcome, but got {verdict!r:.200}"
        if isinstance(verdict, Verdict) and _is_verdict(verdict):
            correct: object = verdict.correct
            if isinstance(correct, bool):
                return verdict
            if not isinstance(correct, float) and correct in (0, 1):  # an integer, or numpy's bool
                return replace(verdict, correct=bool(correct))
            problem = f"True or False for `correct`, but got correct={correct!r}"
        raise DataError(
            f"Expected the verifier {name_of(self.verifier)} to give {problem}, for {where}. Correct its `verify`: an "
            "answer is right or it is not; say there from which score on it is."
        )


def _is_reading(reading: ConfidenceReading, text: str) -> bool:
    if reading.value is not None and not 0 <= reading.value <= 1:
        return False
    start, end = reading.span or (0, 0)
    return 0 <= start <= end <= len(text) and isinstance(reading.outcome, ConfidenceOutcome)


def _is_verdict(verdict: Verdict) -> bool:
    return isinstance(verdict.answer, str | None) and isinstance(verdict.outcome, AnswerOutcome)
