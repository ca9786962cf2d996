"""Verifier of short answers: the whole completion is the answer."""

from __future__ import annotations

from dataclasses import dataclass

from caopd.reading.thinking import said
from caopd.types import AnswerOutcome, Verdict
from caopd.verifiers.base import Verifier


@dataclass(frozen=True)
class ExactMatch(Verifier):
    """The text equals the target, white space around both aside. An empty text is a MISSING answer.

    Thoughts (:mod:`caopd.reading.thinking`) are not part of the text.

    Examples:
        >>> ExactMatch().verify(" 6 ", target="6")
        Verdict(correct=True, answer='6', outcome=<AnswerOutcome.PARSED: 'parsed'>, feedback=None)
    """

    def verify(self, text: str, target: str) -> Verdict:
        """Compare ``text`` with ``target``, character by character."""
        answer = said(text).strip()
        if not answer:
            return Verdict(correct=False, answer=None, outcome=AnswerOutcome.MISSING)
        return Verdict(correct=answer == target.strip(), answer=answer, outcome=AnswerOutcome.PARSED)
