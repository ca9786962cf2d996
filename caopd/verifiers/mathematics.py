"""Verifier of mathematical expressions, by the library math-verify."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from caopd.errors import ConfigError, DataError
from caopd.reading.answers import stated_answer
from caopd.reading.thinking import said
from caopd.types import AnswerOutcome, Verdict
from caopd.verifiers.base import Verifier

_DELIMITERS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"))
_EMPHASIS = "*_`"
_PROSE = re.compile(r"(?<![\\A-Za-z{])[A-Za-z]{2,},?\s+[A-Za-z]{2,}(?![A-Za-z}])")
"""Matches two words side by side; no command of LaTeX is one, and no text in braces."""


@dataclass(frozen=True)
class Mathematics(Verifier):
    r"""The answer is the same expression as the target: ``\frac{1}{2}`` is ``0.5``, ``(x+1)^2`` is ``x^2+2x+1``.

    math-verify (https://github.com/huggingface/Math-Verify) reads and compares the expressions; it comes with
    ``pip install 'caopd[math]'``. Where the text states its answer (:func:`caopd.reading.answers.stated_answer`), that
    is read as one expression, without the emphasis and the full stop around it; of a sentence, or of a text of several
    lines that marks no answer, the last expression. Its own limits of time are off, since they would count what takes
    long as wrong: ``data.verifier_timeout_seconds`` leaves it out.

    Example: ``Mathematics().verify(r"So it is $\boxed{0.5}$.", target=r"\frac{1}{2}").correct`` is true.
    """

    def verify(self, text: str, target: str) -> Verdict:
        """Compare the expression in ``text`` with ``target``.

        Raises:
            ConfigError: math-verify is not installed.
            DataError: ``target`` is no expression.
        """
        library = _library()
        wanted = _target(target)
        answer, outcome, _ = stated_answer(text)
        if outcome is AnswerOutcome.MALFORMED:
            return Verdict(correct=False, answer=None, outcome=outcome)
        text = said(text).strip()
        found = _expressions(answer) if answer else library.parse(text, parsing_timeout=None)
        if not found:
            outcome = AnswerOutcome.MALFORMED if text else AnswerOutcome.MISSING
            return Verdict(correct=False, answer=None, outcome=outcome)
        outcome = AnswerOutcome.OTHER_FORM if answer is None else outcome
        return Verdict(bool(library.verify(wanted, found, timeout_seconds=None)), str(found[0]), outcome)


def _library() -> Any:  # noqa: ANN401
    try:
        import math_verify
    except ImportError as error:
        raise ConfigError(
            "The verifier Mathematics needs the package math-verify, which cannot be imported "
            f"({error}): pip install 'caopd[math]'"
        ) from error
    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that its limits of time are off
    return math_verify


def _expressions(text: str) -> list[Any]:
    """Return what math-verify reads in an answer: one expression, or, of a sentence, the last one."""
    announced = stated_answer(text)
    bare = _undressed(announced.text if announced.is_marked and announced.text else text)
    alone = bare if _PROSE.search(bare) else rf"\boxed{{{bare}}}"
    return list(_library().parse(alone, parsing_timeout=None))


def _undressed(text: str) -> str:
    """Return a text without the emphasis, the delimiters of mathematics and the end of a sentence around it."""
    before = None
    while before != text:
        before = text
        text = text.strip().strip(_EMPHASIS).rstrip(".,;:").strip()
        for opening, closing in _DELIMITERS:
            inner = text[len(opening) : -len(closing)]
            if text == f"{opening}{inner}{closing}" and inner.strip() and opening not in inner:
                text = inner
    return text


@lru_cache(maxsize=4096)
def _target(target: str) -> list[Any]:
    """Return what the target reads as; it is read once for all rollouts of a question."""
    read = _expressions(target)
    if not read:
        raise DataError(
            f"Expected the target of a question for an expression to be one, but got {target[:80]!r}. Correct the "
            "row's answer, or take another verifier."
        )
    return read
