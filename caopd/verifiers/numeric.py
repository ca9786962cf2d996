"""Verifier of answers that are numbers."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass
from decimal import Decimal

from caopd.errors import DataError
from caopd.reading.thinking import said
from caopd.types import AnswerOutcome, Verdict

_NUMBER = re.compile(
    r"""(?:(?<![\w)\]])(?P<sign>[-+\u2212])\$?)?(?<![A-Za-z0-9_])
    (?P<number>(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)
    (?P<fraction>\s?/\s?[0-9])?""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Numeric:
    """The last number of the text is the answer; it equals the target's as a number.

    ``1,692``, ``1692`` and ``1692.0`` are equal. What stands around the number does not matter: ``47 * 36 = 1692.`` is
    1692. A text without a number is MISSING; a fraction, such as ``432 / 8``, is not worked out and is MALFORMED.

    Thoughts (:mod:`caopd.reading.thinking`) are not part of the text.

    Examples:
        >>> Numeric().verify("47 * 36 = 1,692", target="1692")
        Verdict(correct=True, answer='1692', outcome=<AnswerOutcome.PARSED: 'parsed'>, feedback=None)
    """

    def verify(self, text: str, target: str) -> Verdict:
        """Compare the last number of ``text`` with ``target``.

        Raises:
            DataError: ``target`` is not one number.
        """
        wanted = _NUMBER.fullmatch(target.strip())
        if wanted is None or wanted["fraction"]:
            raise DataError(f"Expected the target of a question for a number to be one, but got {target[:80]!r}.")
        found = next(iter(deque(_NUMBER.finditer(said(text)), maxlen=1)), None)
        if found is None or found["fraction"]:
            outcome = AnswerOutcome.MISSING if found is None else AnswerOutcome.MALFORMED
            return Verdict(correct=False, answer=None, outcome=outcome)
        value = _value(found)
        return Verdict(value == _value(wanted), _written(value), AnswerOutcome.PARSED)


def _value(found: re.Match[str]) -> Decimal:
    value = Decimal(found["number"].replace(",", ""))
    return -value if found["sign"] not in (None, "+") else value


def _written(value: Decimal) -> str:
    """Return the number as text; equal numbers are equal texts."""
    text = format(value, "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in ("-0", "") else text
