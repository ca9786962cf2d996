"""Self-consistency of several completions: the majority's answer, and how many agree with it. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from caopd.methods.estimators import majority_answer
from caopd.types import VerifiedRollout


@dataclass(frozen=True, slots=True)
class Vote:
    """What several completions of one prompt say together (Wang et al. 2022, arXiv 2203.11171).

    Attributes:
        answer: The most frequent answer, of equally frequent ones the first given; None where no completion has one.
        correct: Whether it is right; without an answer it is not.
        agreement: Share of *all* completions with a verdict that give it, those without a readable answer included;
            None without an answer.
        stated: Mean of the confidences that the agreeing completions state; None where none states one.
    """

    answer: str | None
    correct: bool
    agreement: float | None
    stated: float | None


def vote(completions: Sequence[VerifiedRollout]) -> Vote:
    """Let the completions of one prompt vote.

    Args:
        completions: The completions of the prompt, at least one of which has a verdict.

    Example:
        >>> from caopd.types import AnswerOutcome, ConfidenceOutcome, ConfidenceReading, Rollout, StopReason, Verdict
        >>> def completion(answer, confidence):
        ...     reading = ConfidenceReading(confidence, None, ConfidenceOutcome.DECIMAL)
        ...     verdict = Verdict(answer == "B", answer, AnswerOutcome.PARSED)
        ...     return VerifiedRollout(Rollout((1,), "", StopReason.EOS, (-1.0,), 0), verdict, reading)
        >>> vote([completion("A", 0.5), completion("B", 0.75), completion("B", 0.25), completion("C", 1.0)])
        Vote(answer='B', correct=True, agreement=0.5, stated=0.5)
    """
    judged = [(each.verdict, each.reading.value) for each in completions if each.verdict is not None]
    answer = majority_answer([verdict.answer for verdict, _ in judged])
    if answer is None:
        return Vote(None, correct=False, agreement=None, stated=None)
    agreeing = [(verdict, confidence) for verdict, confidence in judged if verdict.answer == answer]
    stated = [confidence for _, confidence in agreeing if confidence is not None]
    return Vote(
        answer,
        correct=agreeing[0][0].correct,  # equal answers are equally right
        agreement=len(agreeing) / len(judged),
        stated=fmean(stated) if stated else None,
    )
