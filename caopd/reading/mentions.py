"""Tells a confidence that is stated from one that is only mentioned on the way to the answer, as in a plan."""

from __future__ import annotations

import re

_ANSWER = re.compile(
    r"""<\s{0,4}[/\\]?\s{0,4}(?ai:answer)\s{0,4}> | \\boxed\s?\{ | ^[\s*_`#>-]{0,8}(?ai:action)\s?[:\uff1a]
    | \b(?ai:answer)[*_`]{0,3}(?:\s(?ai:is)\b | \s?[:=\uff1a])""",
    re.VERBOSE | re.MULTILINE,
)
"""Matches what says that the answer is here."""
_LISTED = re.compile(r"[ \t>*_`#]{0,8}(?:[-+*\u2022][ \t]|\d{1,2}[.)])")
_SILENT = re.compile(r"(?:[^\w<]|_|<[/|\uff5c]?[^<>\s]{0,40}>)*+\Z")
_MARKS = re.compile(r"[^\w\r\n>]+\Z")
_MAX_MARKS = 16
"""Most characters before a tag that are looked at."""
_MAX_LEAD = 200
"""Most characters before the word ``answer``, on its line, in which a list's mark is looked for."""


class Mentions:
    """Which confidences of a text are only mentioned: what the model says at the end counts.

    - A confidence within a line is mentioned where the text goes on behind that line, unless the answer stands before
      it and none behind it: "I will end with Confidence: 0.5." is a plan, "The answer is 6 (confidence: 0.8)." is not.
    - An item of a list is mentioned where an answer outside the list follows, and none stands before it.
    - Any other line that begins with its confidence states it.

    Args:
        text: A completion, with its thoughts replaced by line feeds.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._first, self._last, self._last_unlisted = len(text), -1, -1  # where an answer is announced
        for found in _ANSWER.finditer(text):
            line = text.rfind("\n", max(0, found.start() - _MAX_LEAD), found.start()) + 1
            self._first, self._last = min(self._first, found.start()), found.start()
            if _LISTED.match(text, line) is None:
                self._last_unlisted = found.start()

    def is_mentioned(self, start: int, end: int, leads: bool) -> bool:
        """Return whether a segment is only mentioned.

        Args:
            start: Where it starts.
            end: Where it ends.
            leads: Whether it leads its line.
        """
        if leads:
            is_listed = _LISTED.match(self._text, start) is not None
            return is_listed and self._first > start and self._last_unlisted >= end
        line = self._text.find("\n", end)
        if line < 0 or _SILENT.match(self._text, line):
            return False
        return self._first > start or self._last >= end


def leads_its_line(text: str, position: int) -> bool:
    r"""Return whether nothing but marks, or a tag, stands before a tag on its line.

    Examples:
        >>> leads_its_line("B\n**<", 4), leads_its_line("</answer> <", 10), leads_its_line("I say <", 6)
        (True, True, False)
    """
    before = _MARKS.sub("", text[max(0, position - _MAX_MARKS) : position])
    return not before or before[-1] in ">\r\n"
