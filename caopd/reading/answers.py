"""Finds the final answer in a text, in the forms in which models and data sets mark it."""

from __future__ import annotations

import re
from collections import deque
from typing import NamedTuple

from caopd.reading.quoting import Quotations
from caopd.reading.tags import last_element
from caopd.reading.thinking import said
from caopd.types import AnswerOutcome

_BOX = re.compile(r"\\boxed\s?\{")
_BRACES = re.compile(r"\\.|[{}]", re.DOTALL)
_MARKED = re.compile(
    r"""^[ \t]*(?:\#{4}(?!\#)|[*_]{0,2}(?:(?:so|thus|therefore|hence),?[ ])?(?:the[ ])?(?:final[ ])?answer
    (?:[*_]{0,2}:|[ ]is\b:?)[*_]{0,2})[ \t]*(?P<answer>\S[^\n]*)$""",
    re.VERBOSE | re.MULTILINE | re.IGNORECASE | re.ASCII,
)


class StatedAnswer(NamedTuple):
    """What a text states as its answer.

    Attributes:
        text: The answer without its mark and the white space around it; None where none is marked or it cannot be read.
        outcome: In which form it is stated, or why there is none.
        is_marked: Whether something marks it; a text of one line may be an answer without.
    """

    text: str | None
    outcome: AnswerOutcome
    is_marked: bool = True


def stated_answer(text: str) -> StatedAnswer:
    r"""Return the answer that a text states.

    It is what stands in the last ``<answer>`` tag (:func:`caopd.reading.tags.last_element`; a tag that nothing closes,
    or that is empty, is MALFORMED). Without a tag it is the content of the last ``\boxed{...}``, else what follows the
    last ``####``, ``Answer:`` or ``The answer is`` that leads its line; all of these are OTHER_FORM. A text of one line
    without any mark is an answer as it is. Of longer ones, which part is the answer is a guess: it is MISSING.

    Thoughts (:mod:`caopd.reading.thinking`) hold no answer.

    Args:
        text: Any text.

    Examples:
        >>> stated_answer("It is on the Seine.\n<answer>Paris</answer>").text
        'Paris'
        >>> stated_answer("6 * 3 = 18\n#### 18")
        StatedAnswer(text='18', outcome=<AnswerOutcome.OTHER_FORM: 'other_form'>, is_marked=True)
    """
    text = said(text).strip()
    element = last_element(text, "answer")
    if element is not None:
        return _nonempty(text[slice(*element.content)] if element.is_closed else "", AnswerOutcome.PARSED)
    box = _boxed(text)
    if box is not None:
        return _nonempty(box, AnswerOutcome.OTHER_FORM)
    marked = next(iter(deque(_MARKED.finditer(text), maxlen=1)), None)
    if marked is not None:
        return StatedAnswer(marked["answer"].strip(), AnswerOutcome.OTHER_FORM)
    if not text or "\n" in text:
        return StatedAnswer(None, AnswerOutcome.MISSING, is_marked=False)
    return StatedAnswer(text, AnswerOutcome.PARSED, is_marked=False)


def _nonempty(text: str, outcome: AnswerOutcome) -> StatedAnswer:
    return StatedAnswer(text.strip(), outcome) if text.strip() else StatedAnswer(None, AnswerOutcome.MALFORMED)


def _boxed(text: str) -> str | None:
    """Return the content of the last box that is not quoted; an empty text where nothing closes it."""
    boxes = list(_BOX.finditer(text))
    quotations = Quotations(text) if boxes else ()
    opening = next((box for box in reversed(boxes) if box.start() not in quotations), None)
    if opening is None:
        return None
    depth = 1
    for brace in _BRACES.finditer(text, opening.end()):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if depth == 0:
            return text[opening.end() : brace.start()]
    return ""
