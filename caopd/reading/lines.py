"""Finds lines that state a confidence: where such a segment starts, what it states, and where it ends."""

from __future__ import annotations

import re
from collections import deque
from functools import cached_property

from caopd.reading.mentions import Mentions
from caopd.reading.quoting import Quotations
from caopd.reading.values import DRESS, FORMATTING, MAX_VALUE, NO_NUMBER, StatedValue, read_value
from caopd.types import ConfidenceOutcome, ConfidenceReading

_MAX_WORDS = 1000
"""Most occurrences of the word ``confidence`` that are looked at, from the end of the text."""
_MAX_LEAD = 40
"""Most characters before the word ``confidence``, on its line, that are looked at."""
_MAX_DECORATION = 16
"""Most characters of markdown and brackets right before the word, within a line, that belong to the segment."""

# The first letter comes before what stands before it: a set of characters is searched for fast.
_WORD = re.compile(r"[Cc](?<![^\W_].)(?<![-\u2010\u2011].)(?ai:onfidence)", re.DOTALL)
_DENIES = re.compile(
    r"""\b(?:(?ai:lack|absence|loss)\s(?ai:of|in)(?:\s(?ai:any|my|the))?|(?:(?ai:no|not|without|zero)|[0-9]{1,3}\s?%)(?=\s[*_`]{0,4}c))
    \s[*_`]{0,4}[Cc]\Z""",
    re.VERBOSE,
)
"""What gives the word another meaning (``95% confidence``); ``Answer: No Confidence: 0.9`` has two fields."""
_FIELD = re.compile(
    rf"""(?ai:confidence)
    (?P<more>(?:\s?(?ai:level|score|rating|value|estimate)|\s(?ai:in\s(?:my|this|the)\s(?:final\s)?answer))?
    (?:\s?\((?![^()\r\n]{{0,40}}\b(?ai:c\.?i|interval)\b)[^()\r\n]{{1,40}}\))?)
    (?P<closing>(?:[*_`\ \t}}]|{FORMATTING}){{0,8}})
    (?:(?P<is>(?ai:is)\s{{0,2}})?(?P<colon>[:\uff1a])|(?P<other>[=|]|[\u2013\u2014-](?=\s)))""",
    re.VERBOSE,
)
_HEADING = re.compile(r"(?ai:confidence)[*_`\ \t]{0,8}(?=[\r\n])")
_BLANK = re.compile(rf"{DRESS}{{0,16}}(?=[\r\n])", re.VERBOSE)
_NEXT_LINE = re.compile(r"(?:\r\n?|\n)(?:[ \t]{0,8}(?:\r\n?|\n))?(?:[ \t]{0,8}[-\u2022][ \t])?")
_LINE_START = re.compile(rf"(?:[^\w\r\n{{]|_|\\[A-Za-z]{{1,12}}\s?\{{|\d{{1,2}}[.)]|{FORMATTING})*")
_OPTION = re.compile(
    r"^[^\w\r\n]{0,8}(?:(?ai:option|choice)[^\w\r\n]{1,4})?([A-Z])[^\w\r\n]{1,8}(?=(?ai:confidence))", re.MULTILINE
)
_END = re.compile(
    rf"""[\r\n]
    | (?!{FORMATTING})<(?=[A-Za-z/\\|\uff5c])
    | [,;|.]?\s(?=(?ai:(?:so\s|and\s)?(?:the\s|my\s)?(?:final\s|correct\s)?answer(?:\sis\b|\s?[:=])))""",
    re.VERBOSE,
)


class ConfidenceLines:
    """The segments of a text that state a confidence, each found by its word ``confidence``.

    Args:
        text: A completion, with its thoughts replaced by line feeds.
        percent_without_sign: Whether a number above 1 without a scale is a percentage.
    """

    def __init__(self, text: str, percent_without_sign: bool = False) -> None:
        self._text = text
        self._percent_without_sign = percent_without_sign

    def last(self) -> ConfidenceReading | None:
        """Return what the last segment states, None where there is none."""
        words = deque((match.start() for match in _WORD.finditer(self._text)), maxlen=_MAX_WORDS)
        readings = (self._segment(word) for word in reversed(words))
        return next((reading for reading in readings if reading is not None), None)

    def _segment(self, word: int) -> ConfidenceReading | None:
        start, leads = self._start(word)
        field = _FIELD.match(self._text, word)
        if start is None or (field is None and not leads):
            return None
        if not leads and (word in self._quotations or word in self._options):
            return None
        reading = self._read(word, start, leads, field)
        if reading is None or reading.span is None:
            return None
        return None if self._mentions.is_mentioned(*reading.span, leads) else reading

    def _read(self, word: int, start: int, leads: bool, field: re.Match[str] | None) -> ConfidenceReading | None:
        if field is None:
            heading = _HEADING.match(self._text, word)
            return None if heading is None else self._below(start, heading.end())
        stated = self._value(field.end())
        if stated is NO_NUMBER and leads and field["colon"] and _BLANK.match(self._text, field.end()):
            below = self._below(start, field.end())
            if below is not None:
                return below
        if not _is_segment(self._text, field, leads, stated):
            return None
        is_plain = field["colon"] == ":" and not field["more"] and not field["is"] and "}" not in field["closing"]
        outcome = stated.outcome if is_plain else other_form(stated.outcome)
        return ConfidenceReading(stated.value, (start, segment_end(self._text, field.end())), outcome)

    def _start(self, word: int) -> tuple[int | None, bool]:
        """Return where the segment starts and whether it leads its line; None where the word is part of another one."""
        text, floor = self._text, max(0, word - _MAX_LEAD)
        line = max(text.rfind("\n", floor, word), text.rfind("\r", floor, word)) + 1 or floor
        at_line_start = line == 0 or text[line - 1] in "\r\n"
        if at_line_start and _LINE_START.fullmatch(text, line, word):
            return line, True
        if _DENIES.search(text, floor, word + 1):
            return None, False
        start, floor = word, max(0, word - _MAX_DECORATION)
        while start > floor and text[start - 1] in "*_`([\uff08\u3010":
            start -= 1
        if start > 0 and (text[start - 1].isalnum() or text[start - 1] in "-\u2010\u2011"):
            return None, False
        return start, False

    def _value(self, position: int) -> StatedValue:
        end = _END.search(self._text, position, position + MAX_VALUE)
        stop = position + MAX_VALUE if end is None else end.start()
        return read_value(self._text[position:stop], stop >= len(self._text), self._percent_without_sign)

    def _below(self, start: int, position: int) -> ConfidenceReading | None:
        """Read a value that stands on the next line, where a bare integer is not read: it may be anything."""
        blank = _BLANK.match(self._text, position)
        line = None if blank is None else _NEXT_LINE.match(self._text, blank.end())
        if line is None:
            return None
        stated = self._value(line.end())
        if stated.value is None or stated.is_bare:
            return None
        span = (start, segment_end(self._text, line.end()))
        return ConfidenceReading(stated.value, span, other_form(stated.outcome))

    @cached_property
    def _mentions(self) -> Mentions:
        return Mentions(self._text)

    @cached_property
    def _quotations(self) -> Quotations:
        return Quotations(self._text)

    @cached_property
    def _options(self) -> frozenset[int]:
        """Return the words that are each about one option, where there are several options."""
        found = {match.end(): match[1] for match in _OPTION.finditer(self._text)}
        return frozenset(found) if len(set(found.values())) > 1 else frozenset()


def _is_segment(text: str, field: re.Match[str], leads: bool, stated: StatedValue) -> bool:
    """Return whether this is a segment: it has the form asked for, or what follows shows that it is meant as one."""
    if field["colon"]:
        return leads or stated.is_number
    if not leads or stated.value is None:
        return False
    return field["other"] != "=" or text[field.start()].isupper()


def segment_end(text: str, position: int) -> int:
    """Return where a segment ends: at the end of its line, at a tag, or at the words that introduce an answer."""
    end = _END.search(text, position)
    return len(text) if end is None else end.start()


def other_form(outcome: ConfidenceOutcome) -> ConfidenceOutcome:
    """Return the outcome of a segment that is not written as asked for."""
    return ConfidenceOutcome.OTHER_FORM if outcome is ConfidenceOutcome.DECIMAL else outcome
