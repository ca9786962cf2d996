"""Verifier of answers that are numbers."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field
from decimal import Decimal, localcontext
from math import isfinite

from caopd.errors import ConfigError, DataError
from caopd.reading.answers import stated_answer
from caopd.reading.thinking import said
from caopd.types import AnswerOutcome, Verdict
from caopd.verifiers.base import Verifier

_NUMBER = re.compile(
    r"""(?:(?<![\w)\]])(?P<sign>[-+\u2212])\$?)?(?<![A-Za-z0-9_])
    (?P<number>(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)
    (?:[eE](?P<exponent>[-+]?[0-9]{1,3})(?![\w.])
     | \s?(?:\\times|\\cdot|[\u00d7*])\s?10\s?(?:\^|\*\*)\s?\{?(?P<power>[-+\u2212]?[0-9]{1,3})\}?)?
    (?P<fraction>\s?/\s?[0-9])?""",
    re.VERBOSE,
)
_LATEX_SPACES = re.compile(r"\{,\}|\\[,!]|(?<=\d)\\ (?=\d)")
_BEFORE_UNIT = re.compile(r"\A[\s$~]*(?:\\(?:text|mathrm)\s?\{\s*)?")
_DIGITS = 100
"""Precision in which differences are computed."""


@dataclass(frozen=True)
class Numeric(Verifier):
    r"""The last number of the answer equals the target's as a number.

    Where the text marks its answer (:func:`caopd.reading.answers.stated_answer`: a tag, a box, ``####``), the last
    number there counts, else the last one of the text. ``1,692``, ``1692.0`` and ``1.692e3`` are equal. What stands
    around the number does not matter: ``47 * 36 = 1692.`` is 1692. A text without a number is MISSING; a fraction, such
    as ``432 / 8``, is not worked out and is MALFORMED.

    Args:
        relative_tolerance: Largest difference that is still right, as a share of the target.
        absolute_tolerance: Largest difference that is still right; the larger one of both counts.
        units: Unit -> how many of one common unit it is, as in ``{km: 1000, m: 1}``. A number with one of these behind
            it is converted, and one without is in the target's unit. Other words do not matter.

    Raises:
        ConfigError: A tolerance is below 0, a unit not above it, or one of them not finite.

    Examples:
        >>> Numeric().verify("47 * 36 = 1,692", target="1692")
        Verdict(correct=True, answer='1692', outcome=<AnswerOutcome.PARSED: 'parsed'>, feedback=None)
        >>> Numeric(relative_tolerance=0.01, units={"km": 1000, "m": 1}).verify("about 1.5 km", target="1495 m").correct
        True
    """

    relative_tolerance: float = 0.0
    absolute_tolerance: float = 0.0
    units: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        values = {f"units.{unit}": factor for unit, factor in self.units.items()}
        tolerances = {name: getattr(self, name) for name in ("relative_tolerance", "absolute_tolerance")}
        for name, value in (values | tolerances).items():
            if not isfinite(value) or value < 0 or (value == 0 and name in values):
                least = "above 0" if name in values else "of at least 0"
                raise ConfigError(f"Expected `{name}` of Numeric to be a finite number {least}, but got {value}.")

    def verify(self, text: str, target: str) -> Verdict:
        """Compare the last number of the answer with ``target``.

        Raises:
            DataError: ``target`` is not one number, with one of the units or none.
        """
        wanted, unit = self._wanted(target)
        marked, outcome, _ = stated_answer(text)
        if outcome is AnswerOutcome.MALFORMED:
            return Verdict(correct=False, answer=None, outcome=outcome)
        answer = _LATEX_SPACES.sub("", said(text) if marked is None else marked)
        found = next(iter(deque(_NUMBER.finditer(answer), maxlen=1)), None)
        if found is None or found["fraction"]:
            outcome = AnswerOutcome.MISSING if found is None else AnswerOutcome.MALFORMED
            return Verdict(correct=False, answer=None, outcome=outcome)
        factor = self._factor(answer[found.end() :])
        value = _product(_value(found), unit if factor is None else factor)
        return Verdict(self._is_close(value, wanted), _written(value), AnswerOutcome.PARSED)

    def _wanted(self, target: str) -> tuple[Decimal, float]:
        """Return the target's value in the common unit, and its unit."""
        found = _NUMBER.match(target.strip())
        rest = "" if found is None else target.strip()[found.end() :]
        factor = self._factor(rest, whole=True) if rest else 1.0
        if found is None or found["fraction"] or factor is None:
            known = f" and one of the units {', '.join(self.units)}" if self.units else ""
            raise DataError(
                f"Expected the target of a question for a number to be one{known}, but got {target[:80]!r}. Correct "
                "the row's answer, name its unit in `units` of Numeric, or take another verifier."
            )
        return _product(_value(found), factor), factor

    def _factor(self, rest: str, whole: bool = False) -> float | None:
        """Return the factor of the unit that follows a number; None where there is none that is known."""
        rest = _BEFORE_UNIT.sub("", rest, count=1)
        for unit in sorted(self.units, key=len, reverse=True):
            behind = rest.removeprefix(unit)
            if behind != rest and not (behind[:1].isalpha() or (whole and behind.strip())):
                return self.units[unit]
        return None

    def _is_close(self, value: Decimal, wanted: Decimal) -> bool:
        if value == wanted or not (self.relative_tolerance or self.absolute_tolerance):
            return value == wanted
        with localcontext(prec=_DIGITS):
            allowed = max(Decimal(str(self.relative_tolerance)) * abs(wanted), Decimal(str(self.absolute_tolerance)))
            return abs(value - wanted) <= allowed


def _value(found: re.Match[str]) -> Decimal:
    exponent = found["exponent"] or found["power"] or "0"
    sign = "-" if found["sign"] not in (None, "+") else ""
    digits = str(found["number"]).replace(",", "")
    return Decimal(f"{sign}{digits}e{exponent.replace(chr(0x2212), '-')}")


def _product(value: Decimal, factor: float) -> Decimal:
    if factor == 1:
        return value
    with localcontext(prec=_DIGITS):
        return value * Decimal(str(factor))


def _written(value: Decimal) -> str:
    """Return the number as text; equal numbers are equal texts."""
    text = format(value, "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in ("-0", "") else text
