"""Reads the value that a confidence segment states, as a person would. Its work is bounded: no text can stall it."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import NamedTuple

from caopd.types import ConfidenceOutcome

MAX_VALUE = 256
"""Most characters after the word ``confidence`` and its colon that are looked at."""
_MAX_NUMBER = 32
"""Length of the longest number that is read, in characters."""
_SAME = Decimal("0.005")
"""How far a value that is stated a second time may be off by rounding, as in ``2/3 (0.67)``."""
_COUNTS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_COUNT = f"(?ai:{'|'.join(_COUNTS)})"

FORMATTING = r"</?(?:b|i|u|em|strong|code|mark|span)>"
"""HTML tags of formatting, which belong to the text that they stand in."""
_MEANS_SOMETHING = (
    r"<>\u2264-\u226b\u2272\u2273~\u2248\u223c\u00b1\u2260\u00ac?!+\-\u2212\u2010-\u2015.,:;/\\%^|&\u2190-\u2199"
)
DRESS = rf"(?:[^\w{_MEANS_SOMETHING}]|_|\\[A-Za-z]{{1,12}}\s?\{{|\\[^\w\s]|{FORMATTING})"
"""White space, markdown, quotes, brackets, LaTeX, HTML or a symbol: it does not change what it surrounds."""
_DEGREES = "very|quite|fairly|rather|pretty|extremely|relatively|moderately|reasonably|somewhat"
_LEVELS = "high|medium|moderate|low|strong|full|certain|sure|confident|unsure|uncertain"
_LEVEL = rf"""(?ai:(?:i(?:\sam|['\u2019]m)\s)?(?:(?:{_DEGREES})\s{{1,4}})?(?:{_LEVELS})(?:\s{{1,4}}confidence)?)
    [\s*_]{{0,4}}[,:=()\[|\uff08\u2013\u2014-]\s{{0,4}}"""
_NAME = r"(?ai:p\s{0,4}=|(?:my\s)?confidence\s{0,4}(?:[:=]|is\b))\s{0,4}"
_SCALE = rf"""\s{{0,4}}(?:(?P<percent>\\?%|\uff05|(?ai:per\s?cent)\b)
    |(?:/|(?ai:out\s{{1,4}}of)\b)\s{{0,4}}(?P<whole>[0-9]{{1,4}}(?:\.0{{1,2}})?|{_COUNT}\b)(?![0-9]|[.,][0-9]))"""
_QUANTITY = rf"""(?P<sign>[-+\u2212]?)
    (?:(?P<comma>0,[0-9]+|[0-9]{{1,3}},[0-9]{{1,2}})(?![0-9]|[.,][0-9])
    |(?P<point>[0-9]*\.[0-9]+)|(?P<integer>[0-9]+)|(?P<count>{_COUNT})\b(?=\s{{0,4}}(?:/|(?ai:out\s))))
    (?:{_SCALE})?"""
_VALUE = re.compile(
    rf"(?P<dress>{DRESS}{{0,16}})(?P<level>{_LEVEL}{DRESS}{{0,8}})?(?P<name>{_NAME})?{_QUANTITY}", re.VERBOSE
)
_PLAIN_DRESS = re.compile(r"[*_`\s]*")

# What may stand after a number.
_SUBJECT = re.compile(r"\s{1,4}(?ai:is|was|were|would|seems?|looks?|might|could|may|should|feels?|sounds?)\b")
_INTERVAL = re.compile(
    rf"""{DRESS}{{0,8}}(?ai:(?:(?:confidence|credible|credibility|prediction)\s{{1,4}})?(?:interval|band|bound|limit|region)s?
    |c\.?i)(?![^\W_])""",
    re.VERBOSE,
)
_COUNTED = re.compile(r"\s{1,4}(?!(?:because|since|as|given)\b)[a-z]")
_UNCLEAR = re.compile(
    rf"""[^\W_] | [.,](?:[^\W_]|\.) | :[0-9] | [-\u2212\u2010-\u2015][.0-9]     # goes on: a word, a range, odds
    | \s{{0,4}}[+^\u00b1~\u2248\u2264\u2265/] | {DRESS}{{0,8}}\?                # a bound, a formula, a question
    | \s{{0,4}}(?ai:or|and)\s{{1,4}}(?ai:higher|more|above|greater|lower|less|below|so)\b""",
    re.VERBOSE,
)
_REMARK = re.compile(
    r"""[(\[\uff08] | [.!\u3002\uff01](?:\s{1,4}[^\sa-z0-9]|\s*\Z)
    | \b(?ai:because|since|as|given|due|based|although|though)\b""",
    re.VERBOSE,
)
_ANOTHER = re.compile(rf"(?<![\w.,]){_QUANTITY}", re.VERBOSE)
_RESTATED = re.compile(
    rf"{DRESS}{{0,8}}[(\uff08]{DRESS}{{0,4}}(?:(?!out\s)[a-z][a-z.,]{{0,9}}\s){{0,2}}{_QUANTITY}\s{{0,4}}[)\uff09]",
    re.VERBOSE,
)
_REVISES = re.compile(
    r"""\b(?ai:wait|now|actually|rather|sorry|hmm+|oops|correction|corrected|instead|revised?|revising|reconsider\w{0,3}
    |make\s(?:that|it)|scratch\sthat|on\ssecond\sthought|too\s(?:high|low))\b""",
    re.VERBOSE,
)
_JOINED = re.compile(r"(?ai:[^\w(\[]|or\b|and\b|to\b)*")


class StatedValue(NamedTuple):
    """What is read after the word ``confidence`` and its colon.

    Attributes:
        value: The confidence in [0, 1], None where none is stated.
        outcome: In which form it is stated, or why none is.
        is_number: Whether a quantity stands there at all, and not a word, the subject of a sentence ("0.9 is"), a
            number of things ("2 options") or of an interval ("95% CI").
        is_bare: Whether it is an integer without a scale such as ``%``, which may be something else.
    """

    value: float | None
    outcome: ConfidenceOutcome
    is_number: bool = True
    is_bare: bool = False


NO_NUMBER = StatedValue(None, ConfidenceOutcome.MALFORMED, is_number=False)
_UNREADABLE = StatedValue(None, ConfidenceOutcome.MALFORMED)


def read_value(text: str, cut: bool = False, percent_without_sign: bool = False) -> StatedValue:
    """Read the value at the start of ``text``.

    Args:
        text: What stands after the word and its colon, at most ``MAX_VALUE`` characters.
        cut: Whether the completion was cut at the end of this text: then ``0.`` may have become ``0.85``, while
            ``1.`` is 1.
        percent_without_sign: Whether a number above 1 without a scale is a percentage.

    Examples:
        >>> [read_value(text).value for text in ("0.85, I think", "high (85 %)", "17/20", "0.8 or 0.9", "0.9?")]
        [0.85, 0.85, 0.85, None, None]
        >>> [read_value(text, percent_without_sign=True).value for text in ("95.", "1", "0.95", "150")]
        [0.95, 1.0, 0.95, None]
    """
    found = _VALUE.match(text)
    if found is None or found.end() - found.start("sign") > _MAX_NUMBER:
        return NO_NUMBER if found is None else _UNREADABLE
    rest, amount, is_bare = text[found.end() :], _amount(found), _is_bare(found)
    if _SUBJECT.match(rest) or _INTERVAL.match(rest) or (is_bare and _COUNTED.match(rest)):
        return NO_NUMBER
    is_percent = percent_without_sign and not found["percent"] and not found["whole"] and (amount or 0) > 1
    if is_percent and amount is not None:
        amount, is_bare = amount / 100, False
    is_cut = cut and is_bare and rest in (".", ",") and amount != 1
    if amount is None or is_cut or _UNCLEAR.match(rest) or _is_contradicted(amount, rest):
        return _UNREADABLE
    if not 0 <= amount <= 1:
        return StatedValue(None, ConfidenceOutcome.OUT_OF_RANGE)
    outcome = ConfidenceOutcome.PERCENT if is_percent else _outcome(found)
    return StatedValue(abs(float(amount)), outcome, is_bare=is_bare)


def _is_bare(found: re.Match[str]) -> bool:
    return found["integer"] is not None and not found["percent"] and not found["whole"]


def _amount(found: re.Match[str]) -> Decimal | None:
    # Decimal, because 8.7 / 10 in floats is not the 0.87 that the completion states.
    number = found["comma"] or found["point"] or found["integer"]
    amount = _number(found["count"] if number is None else number.replace(",", "."))
    if found["sign"] in ("-", "\u2212"):
        amount = -amount
    whole = Decimal(100) if found["percent"] else _number(found["whole"] or "1")
    is_idiom = number == found["whole"] == "50"
    return amount / whole if whole and not is_idiom else None


def _number(text: str) -> Decimal:
    return Decimal(_COUNTS.index(text.lower()) if text.lower() in _COUNTS else text)


def _outcome(found: re.Match[str]) -> ConfidenceOutcome:
    """Return the outcome DECIMAL only for a number with a point that nothing but markdown surrounds."""
    whole = _number(found["whole"] or "1")
    if found["percent"] or whole == 100:
        return ConfidenceOutcome.PERCENT
    if whole == 10:
        return ConfidenceOutcome.OUT_OF_TEN
    has_more = found["level"] or found["name"] or found["comma"] or found["count"]
    if whole != 1 or has_more or not _PLAIN_DRESS.fullmatch(found["dress"]):
        return ConfidenceOutcome.OTHER_FORM
    return ConfidenceOutcome.DECIMAL


def _is_contradicted(amount: Decimal, rest: str) -> bool:
    """Return whether what follows makes the value unclear: a range, a choice, a correction, a condition."""
    restated = _RESTATED.match(rest)
    remark = _REMARK.search(rest)
    beside = rest if remark is None else rest[: remark.start()]
    others = [] if restated is None else [_amount(restated)]
    for found in _ANOTHER.finditer(beside):
        is_thing = not _JOINED.fullmatch(beside, 0, found.start()) or _COUNTED.match(beside, found.end())
        if not (_is_bare(found) and is_thing):
            others.append(_amount(found))
    revision = _REVISES.search(rest)
    if revision is not None:  # within a remark in brackets, too
        for found in _ANOTHER.finditer(rest, revision.end()):
            if not (_is_bare(found) and _COUNTED.match(rest, found.end())):
                others.append(_amount(found))
    return any(other is not None and abs(other) <= 1 and abs(abs(other) - amount) > _SAME for other in others)
