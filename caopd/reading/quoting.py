"""Finds quotations, such as a tool's input or a JSON string. What stands there is not what the text itself states."""

from __future__ import annotations

import re
from bisect import bisect_right

_QUOTED = re.compile(
    r"""["\u201c{](?:                    # first a set of characters, which is searched for fast
      (?<=")(?:[^"\\\r\n]|\\[^\r\n]?)*+(?P<end>"?)
    | (?<=\u201c)[^\u201c\u201d\r\n]*\u201d
    | (?<=\{)(?<![A-Za-z].)[^{}"\r\n]*\})
    """,
    re.VERBOSE,
)
"""Quotation marks on one line, and braces except those of LaTeX; one that is never closed goes to the line's end."""
_JSON_OPENS = re.compile(r"[{\[:,]\s*\Z")


class Quotations:
    r"""The quoted parts of a text, found in one pass.

    A mark that is not closed on its line does not count, except in JSON that goes to the end of the text: it was cut.

    Args:
        text: Any text.

    Examples:
        >>> quotations = Quotations('say "confidence: 0.9", then\nConfidence: 0.7')
        >>> 5 in quotations, 28 in quotations
        (True, False)
    """

    def __init__(self, text: str) -> None:
        ranges = [match.span() for match in _QUOTED.finditer(text) if _is_quotation(text, match)]
        self._starts = [start for start, _ in ranges]
        self._ends = [end for _, end in ranges]

    def __contains__(self, position: int) -> bool:
        """Return whether the character at ``position`` is quoted."""
        index = bisect_right(self._starts, position) - 1
        return index >= 0 and position < self._ends[index]


def _is_quotation(text: str, match: re.Match[str]) -> bool:
    if match["end"] != "":
        return True
    return match.end() == len(text) and _JSON_OPENS.search(text, max(0, match.start() - 8), match.start()) is not None
