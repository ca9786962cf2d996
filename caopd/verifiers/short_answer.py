"""Verifier of short answers in words, of which there may be several spellings."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from caopd.reading.answers import stated_answer
from caopd.types import Verdict
from caopd.verifiers.base import Verifier

_ARTICLES = re.compile(r"\b(?:a|an|the)\s+(?=\w)")
_NUMBER = re.compile(r"((?<![\w.])[-\u2212]?[0-9]+(?:,[0-9]{3})*(?:\.[0-9]+)?(?![\w]|[.,][0-9]))")


@dataclass(frozen=True)
class ShortAnswer(Verifier):
    r"""The stated answer equals one of the accepted ones, up to case, articles, punctuation and white space.

    Where a text states its answer is the rule of :func:`caopd.reading.answers.stated_answer`. This is the normalised
    exact match of SQuAD (arXiv 1606.05250), with aliases as in TriviaQA (arXiv 1705.03551), but for numbers, whose sign
    and decimal point count (``1.5`` is not ``15``, and is ``1.50``), and an ``A`` that nothing follows (``Vitamin A``).

    Examples:
        >>> verifier = ShortAnswer()
        >>> target = verifier.target("Who wrote it?", ["Mark Twain", "Samuel Clemens"])
        >>> verifier.verify("It was him.\n<answer>the Samuel  Clemens.</answer>", target).correct
        True
    """

    def target(self, question: str, answers: Sequence[str]) -> str:
        """Return the target of a question: its answer, or a JSON list where several are accepted.

        Args:
            question: The question, which does not matter here.
            answers: All accepted answers.
        """
        return (
            answers[0] if len(answers) == 1 and not answers[0].lstrip().startswith("[") else json.dumps(list(answers))
        )

    def verify(self, text: str, target: str) -> Verdict:
        """Compare the answer that ``text`` states with all that ``target`` accepts."""
        answer, outcome, _ = stated_answer(text)
        if answer is None:
            return Verdict(correct=False, answer=None, outcome=outcome)
        found = normalised(answer)
        return Verdict(found in map(normalised, accepted(target)), found, outcome)


def accepted(target: str) -> list[str]:
    """Return the answers that a target holds: those of a JSON list of texts, or else itself."""
    try:
        answers = json.loads(target) if target.lstrip().startswith("[") else None
    except (ValueError, RecursionError):
        answers = None
    texts = [answer for answer in answers if isinstance(answer, str)] if isinstance(answers, list) else []
    return texts if texts and texts == answers else [target]


def normalised(answer: str) -> str:
    """Return an answer without case, articles, punctuation and superfluous white space.

    ``#`` and ``%`` stay, numbers are written in one way, and an answer of nothing but what is left out stays as it is,
    in lower case.

    Examples:
        >>> normalised("The  U.S.A. (mainland)"), normalised("+"), normalised("-1,500.0 m")
        ('usa mainland', '+', '-1500 m')
    """
    folded = unicodedata.normalize("NFKC", answer).casefold()
    parts = _NUMBER.split(folded)  # a word, a number, a word, ...
    parts[::2] = map(_without_punctuation, parts[::2])
    parts[1::2] = map(_one_form, parts[1::2])
    return " ".join(_ARTICLES.sub("", "".join(parts)).split()) or " ".join(folded.split())


def _without_punctuation(text: str) -> str:
    return "".join(" " if _separates(character) else character for character in text if character not in ".'\u2019`")


def _one_form(number: str) -> str:
    number = number.replace(",", "").replace("\u2212", "-")
    return number.rstrip("0").rstrip(".") if "." in number else number


def _separates(character: str) -> bool:
    return unicodedata.category(character)[0] in "PZC" and character not in "#%"
