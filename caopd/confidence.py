"""Stated confidence: the sentence that asks for it, its rendering, its parser.

The only owner of the string ``Confidence:``. A format is a small class behind :class:`ConfidenceFormat`:
:class:`InlineConfidence` is the paper's line (arXiv 2604.16830, section 3), :class:`TagConfidence` a tag,
:class:`RLCRConfidence` the last of four tags.

What the parsers hold to:

- The *last* segment of a text counts, readable or not; earlier ones are part of the answer.
- Missing is not zero: a segment that is absent, unreadable or out of range has ``value`` None. The last two
  keep their ``span``, so that a revision can overwrite them.
- Work is bounded by construction: one backward search without nested quantifiers, then at most ``_MAX_VALUE``
  characters of a value. No text can stall or crash it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

from caopd.errors import ConfigError
from caopd.types import ConfidenceOutcome, ConfidenceReading

_MAX_VALUE = 256
"""Characters of a segment's value that are looked at; the closing tag must come within them."""
_MAX_NUMBER = 32
"""Characters of the longest number that is read as one."""
_MAX_DECORATION = 16
"""Markdown characters before the word that still belong to the segment."""

_LAST_INLINE = re.compile(r"(?s:.*)(?<![^\W_])(?<![-\u2010\u2011])((?ai:confidence))[*_` \t]{0,8}:")
_LAST_TAG = re.compile(r"(?s:.*)(?ai:<confidence>)")
_CLOSING_TAG = re.compile(r"(?ai:</confidence>)")
_SEGMENT_END = re.compile(r"[\r\n]|<(?=[A-Za-z/])")
_NUMBER = re.compile(r"[*_`\s]{0,16}([-+\u2212]?(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+))")
_SCALE = re.compile(r"(?ai:\s{0,4}(?:(\\?%)|(?:/|out\s{1,4}of\b)\s{0,4}(100?|1)(?:\.0{1,2})?(?![0-9]|\.[0-9])))")
_NOT_A_VALUE = re.compile(r"[^\W_]|[.,]\d|\s{0,4}(?:[-+~=^/\u00b1\u2013\u2014]|to\b)\s{0,4}[.\d]")


class ConfidenceFormat(Protocol):
    """How a completion states its confidence: asked for, rendered and read by one object."""

    @property
    def instruction(self) -> str:
        """Sentence that asks for a confidence; prompts append it to the question."""
        ...

    @property
    def field_name(self) -> str:
        """How a teacher's note names the field, for example ``Confidence:``."""
        ...

    def render(self, confidence: float) -> str:
        """The segment that states ``confidence``, rounded to two decimals.

        Raises:
            ConfigError: ``confidence`` is outside [0, 1] or NaN.
        """
        ...

    def parse(self, text: str) -> ConfidenceReading:
        """Read the last confidence segment of ``text``. Never raises, whatever the text."""
        ...


@dataclass(frozen=True, slots=True)
class InlineConfidence:
    r"""The line ``Confidence: 0.85``.

    The segment runs from the word (markdown before it, such as ``**`` or ``- `` at the start of the line,
    included) to the end of its line, or to a tag that opens on that line: an answer behind the value stays in
    the text. The word counts in any case and anywhere on a line, but only as a word of its own followed by a
    colon: ``Overconfidence: 0.3``, ``Self-confidence: 0.3``, the JSON key ``"confidence": 0.3`` are none.

    Read as a value: ``0.85``, ``.85``, ``85%``, ``8.5/10``, ``8.5 out of 10`` (and out of 1 or 100), with
    markdown around it and a remark behind it, as in ``**0.85** (high)``. MALFORMED are a decimal comma
    (``0,85``), an exponent (``1e-3``), a range (``0.8-0.9``), digits of other scripts, and words. A bare
    ``85`` is OUT_OF_RANGE: it is not guessed to be a percentage.

    Examples:
        >>> form = InlineConfidence()
        >>> form.render(0.375)
        'Confidence: 0.38'
        >>> form.parse("B\nConfidence: 0.85")
        ConfidenceReading(value=0.85, span=(2, 18), outcome=<ConfidenceOutcome.DECIMAL: 'decimal'>)
        >>> form.parse("**Confidence:** 8.5/10").value
        0.85
        >>> form.parse("Confidence: 0.85, or rather\nConfidence: high").outcome
        <ConfidenceOutcome.MALFORMED: 'malformed'>
    """

    @property
    def instruction(self) -> str:
        """Sentence that asks for the line."""
        return (
            "After your answer, state how confident you are that it is correct, on a last line of its own: "
            "`Confidence: p`, with p between 0.00 and 1.00."
        )

    @property
    def field_name(self) -> str:
        """``Confidence:``."""
        return "Confidence:"

    def render(self, confidence: float) -> str:
        """The line for ``confidence``.

        Raises:
            ConfigError: ``confidence`` is outside [0, 1] or NaN.
        """
        return f"Confidence: {_two_decimals(confidence)}"

    def parse(self, text: str) -> ConfidenceReading:
        """Read the last ``Confidence:`` segment of ``text``."""
        end = len(text)
        while match := _LAST_INLINE.match(text, 0, end):
            start = _inline_start(text, match.start(1))
            if start is not None:
                return _reading(text, start, match.end(), _segment_end(text, match.end()))
            end = match.start(1)
        return ConfidenceReading(value=None, span=None, outcome=ConfidenceOutcome.MISSING)


@dataclass(frozen=True, slots=True)
class TagConfidence:
    """The tag ``<confidence>0.85</confidence>``.

    The last opening tag counts. Its closing tag must come within 256 characters; without it the segment is
    MALFORMED and ends with its line. Values are read as :class:`InlineConfidence` reads them.

    Examples:
        >>> form = TagConfidence()
        >>> form.render(1.0)
        '<confidence>1.00</confidence>'
        >>> form.parse("B <confidence> 85% </confidence>").value
        0.85
        >>> form.parse("B <confidence>0.85")
        ConfidenceReading(value=None, span=(2, 18), outcome=<ConfidenceOutcome.MALFORMED: 'malformed'>)
    """

    @property
    def instruction(self) -> str:
        """Sentence that asks for the tag."""
        return (
            "After your answer, state how confident you are that it is correct, on a last line of its own: "
            "`<confidence>p</confidence>`, with p between 0.00 and 1.00."
        )

    @property
    def field_name(self) -> str:
        """``<confidence>``."""
        return "<confidence>"

    def render(self, confidence: float) -> str:
        """The tag for ``confidence``.

        Raises:
            ConfigError: ``confidence`` is outside [0, 1] or NaN.
        """
        return f"<confidence>{_two_decimals(confidence)}</confidence>"

    def parse(self, text: str) -> ConfidenceReading:
        """Read the last ``<confidence>`` segment of ``text``."""
        opening = _LAST_TAG.match(text)
        if opening is None:
            return ConfidenceReading(value=None, span=None, outcome=ConfidenceOutcome.MISSING)
        value_start = opening.end()
        start = value_start - len(self.field_name)
        closing = _CLOSING_TAG.search(text, value_start, value_start + _MAX_VALUE)
        if closing is None:
            span = (start, _segment_end(text, value_start))
            return ConfidenceReading(value=None, span=span, outcome=ConfidenceOutcome.MALFORMED)
        value, outcome = _read_value(text[value_start : closing.start()])
        return ConfidenceReading(value=value, span=(start, closing.end()), outcome=outcome)


@dataclass(frozen=True, slots=True)
class RLCRConfidence(TagConfidence):
    """The form of RLCR (arXiv 2507.16806): reasoning, answer, analysis of the uncertainty, confidence, each in a tag.

    Written and read as :class:`TagConfidence`; only what is asked for differs. The first tag is ``<reasoning>``, as in
    the prompts of this package's tasks, where the paper has ``<think>``, which some chat templates take for themselves.

    Example:
        >>> RLCRConfidence().parse("<answer>B</answer><analysis>C?</analysis><confidence>0.6</confidence>").value
        0.6
    """

    @property
    def instruction(self) -> str:
        """Sentences that ask for the four tags."""
        return (
            "Respond in four parts: your reasoning in `<reasoning>...</reasoning>`, your final answer in "
            "`<answer>...</answer>`, an analysis of what speaks for and against that answer in "
            "`<analysis>...</analysis>`, and last how confident you are that it is correct, in "
            "`<confidence>p</confidence>`, with p between 0.00 and 1.00."
        )


def _two_decimals(confidence: float) -> str:
    if not 0.0 <= confidence <= 1.0:
        raise ConfigError(f"Expected a confidence to render in [0, 1], but got {confidence!r}.")
    return f"{confidence + 0.0:.2f}"  # + 0.0 turns -0.0 into 0.0


def _inline_start(text: str, word: int) -> int | None:
    """Where the segment of the word at ``word`` starts, None if the word is the tail of a longer one."""
    floor = max(0, word - _MAX_DECORATION)
    start = word
    while start > floor and text[start - 1] in "*_`":
        start -= 1
    if start > 0 and (text[start - 1].isalnum() or text[start - 1] in "-\u2010\u2011"):
        return None
    line = start
    while line > floor and text[line - 1] in " \t#>*_`-":
        line -= 1
    return line if line == 0 or text[line - 1] in "\r\n" else start


def _segment_end(text: str, value_start: int) -> int:
    match = _SEGMENT_END.search(text, value_start)
    return len(text) if match is None else match.start()


def _reading(text: str, start: int, value_start: int, end: int) -> ConfidenceReading:
    value, outcome = _read_value(text[value_start : min(end, value_start + _MAX_VALUE)])
    return ConfidenceReading(value=value, span=(start, end), outcome=outcome)


def _read_value(text: str) -> tuple[float | None, ConfidenceOutcome]:
    """Read the value at the start of ``text``, which is at most ``_MAX_VALUE`` characters long."""
    number = _NUMBER.match(text)
    if number is None or len(number[1]) > _MAX_NUMBER:
        return None, ConfidenceOutcome.MALFORMED
    scale = _SCALE.match(text, number.end())
    end = number.end() if scale is None else scale.end()
    if _NOT_A_VALUE.match(text, end):
        return None, ConfidenceOutcome.MALFORMED
    divisor, outcome = _scale(scale)
    # Decimal, because 8.7 / 10 in floats is not the 0.87 that the completion states.
    value = Decimal(number[1].replace("\u2212", "-")) / divisor
    if not 0 <= value <= 1:
        return None, ConfidenceOutcome.OUT_OF_RANGE
    return abs(float(value)), outcome


def _scale(match: re.Match[str] | None) -> tuple[int, ConfidenceOutcome]:
    if match is None or match[2] == "1":
        return 1, ConfidenceOutcome.DECIMAL
    if match[2] == "10":
        return 10, ConfidenceOutcome.OUT_OF_TEN
    return 100, ConfidenceOutcome.PERCENT
