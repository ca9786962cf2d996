r"""Finds the last number of a text, and tells whether it stands for itself or within a calculation that nobody did."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

_GAP = "[ \u00a0\u2009\u202f]"
_MINUS = r"\-\u2212\u2013"
_NUMBER = re.compile(
    rf"""(?:(?<![\w)\]])(?P<sign>[+{_MINUS}]|(?ai:minus|negative)\ )\$?)?(?<![A-Za-z0-9_])
    (?P<number>(?:[0-9]{{1,3}}(?:(?:,[0-9]{{3}})++|(?:{_GAP}[0-9]{{3}})++)(?![0-9])|[0-9]++)(?:\.[0-9]++)?|\.[0-9]++)
    (?:[eE](?P<exponent>[-+]?[0-9]{{1,3}})(?![\w.])
     | \s?(?:\\times|\\cdot|[x\u00d7*\u00b7])\s?10
       (?:\s?(?:\^|\*\*)\s?\{{?(?P<power>[+{_MINUS}]?[0-9]{{1,3}})\}}?|(?P<raised>\u207b?[\u2070\u00b9\u00b2\u00b3\u2074-\u2079]{{1,3}})))?
    (?:{_GAP}?(?P<scale>thousand|million|billion|trillion)\b)?""",
    re.VERBOSE,
)
_SCALES = {"thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_RAISED = str.maketrans("\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079\u207b", "0123456789-")
_LATEX_SPACES = re.compile(r"\{,\}|\\[,!]|(?<=\d)\\ (?=\d)")
_FRACTION = re.compile(r"\\[dt]?frac\s?(?:\{([^{}]{0,40})\}|(\d))\s?(?:\{([^{}]{0,40})\}|(\d))")
_EXPONENT = re.compile(r"[\w)\]}][ \t]?(?:\^|\*\*)[ \t]?\{?[ \t]?[-+]?\Z")
_OPERATOR = re.compile(
    r"""[)\]}\s]{0,4}(?<!\n)(?:[ \t]*
    (?:[-+*/x:\u00d7\u00f7\u00b7\u2212\u2013]|\\(?:times|cdot|div)|\b(?:or|plus|minus|times|over|divided\ by)\b)
    [ \t]*(?!\n)[(\[{$]{0,2}|,)""",
    re.VERBOSE,
)
_SPACED_COLON = re.compile(r"\s:|:\s")
_TAKEN = re.compile(r"(?:\\sqrt(?:\[\d+\])?[ \t]?\{?|\\[dt]?frac\{.{1,80}\}\{|\u221a|\\neq?|\u2260|!=)\s?\Z")
_GOES_ON = re.compile(r"\s?(?:(?:\^|\*\*)\s?[-+({\d]|[x\u00d7]\s?\d|[\u2070\u00b9\u00b2\u00b3\u2074-\u2079])")


@dataclass(frozen=True, slots=True)
class Number:
    r"""A number within a text.

    Attributes:
        value: The number; ``1,692``, ``1 692``, ``1.692e3`` and ``1.692 thousand`` are equal.
        before: The text before it.
        behind: The text behind it.
        is_alone: Whether it stands for itself: not a term of a calculation (``432 / 8``, ``2^3``, ``\sqrt{5}``), one
            of several (``18 or 20``), half of another (``12,5``) or what something is not (``\neq 5``).
    """

    value: Decimal
    before: str
    behind: str
    is_alone: bool


def last_number(text: str) -> Number | None:
    """Return the last number of a text, None where there is none; digits of other scripts are not read.

    An exponent is no number of its own, and neither is what belongs to a word (``H2``, ``x_2``).

    Args:
        text: Any text; of LaTeX, spaces and fractions are known.

    Examples:
        >>> last_number("47 * 36 = 1,692 m^2.").value, last_number("432 / 8").is_alone
        (Decimal('1692'), False)
    """
    text = _FRACTION.sub(r"\1\2 / \3\4", _LATEX_SPACES.sub("", text))
    found = deque(_bases(text), maxlen=2)
    if not found:
        return None
    last = found[-1]
    between = text[found[0].end() : last.start()] if len(found) == 2 else ""
    is_alone = not (
        _is_operator(between)
        or (len(found) == 2 and last["sign"] and between.isspace() and "\n" not in between)
        or _TAKEN.search(text, max(last.start() - 100, 0), last.start())
        or _GOES_ON.match(text, last.end())
    )
    return Number(_value(last), text[: last.start()], text[last.end() :], is_alone)


def _bases(text: str) -> Iterator[re.Match[str]]:
    """Return the numbers that are no exponents of others."""
    for found in _NUMBER.finditer(text):
        if not _EXPONENT.search(text, max(found.start() - 8, 0), found.start()):
            yield found


def _is_operator(between: str) -> bool:
    """Return whether two numbers with this between them are one expression; ``Step 2: 5`` is none."""
    return _OPERATOR.fullmatch(between) is not None and not _SPACED_COLON.search(between)


def _value(found: re.Match[str]) -> Decimal:
    power = found["exponent"] or found["power"] or (found["raised"] or "0").translate(_RAISED)
    exponent = int(power.replace("\u2212", "-").replace("\u2013", "-")) + _SCALES.get(found["scale"] or "", 0)
    sign = "-" if found["sign"] not in (None, "+") else ""
    digits = "".join(character for character in found["number"] if character in "0123456789.")
    return Decimal(f"{sign}{digits}e{exponent}")
