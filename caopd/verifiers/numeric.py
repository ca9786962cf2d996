"""Verifier of answers that are numbers."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from decimal import Decimal, localcontext
from math import isfinite

from caopd.errors import ConfigError, DataError
from caopd.reading.answers import stated_answer
from caopd.reading.numbers import last_number
from caopd.reading.thinking import said
from caopd.types import AnswerOutcome, Verdict
from caopd.verifiers.base import Verifier

_BEFORE_UNIT = re.compile(r"\A[\s$~]*(?:\\[ ,;!]\s*)?(?:\\(?:text|mathrm)\s?\{\s*)?")
_OF_ANOTHER_UNIT = ("/", "^", "\u00b2", "\u00b3")
"""What makes another unit of one: ``km/h``, ``m^2``."""
_DIGITS = 100
"""Precision in which differences are computed."""


@dataclass(frozen=True)
class Numeric(Verifier):
    r"""The last number of the answer equals the target's as a number.

    Where the text marks its answer (:func:`caopd.reading.answers.stated_answer`: a tag, a box, ``####``), the last
    number there counts, else the last one of the text. ``1,692``, ``1692.0`` and ``1.692e3`` are equal. What stands
    around the number does not matter: ``47 * 36 = 1692.`` is 1692. A text without a number is MISSING; one whose last
    number does not stand for itself (:class:`caopd.reading.numbers.Number`: ``432 / 8``, ``18 or 20``) is MALFORMED.

    Args:
        relative_tolerance: Largest difference that is still right, as a share of the target.
        absolute_tolerance: Largest difference that is still right; the larger one of both counts.
        units: Unit -> how many of one common unit it is, as in ``{km: 1000, m: 1}``. A number with one of these behind
            it is converted, and one without is in the target's unit. Other words do not matter; a unit made of one of
            these (``m^2``, ``km/h``) is MALFORMED.

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
        found = last_number(said(text) if marked is None else marked)
        if found is None:
            return Verdict(correct=False, answer=None, outcome=AnswerOutcome.MISSING)
        factor, is_known = self._factor(found.behind)
        if not found.is_alone or not is_known:
            return Verdict(correct=False, answer=None, outcome=AnswerOutcome.MALFORMED)
        value = _product(found.value, unit if factor is None else factor)
        return Verdict(self._is_close(value, wanted), _written(value), AnswerOutcome.PARSED)

    def _wanted(self, target: str) -> tuple[Decimal, float]:
        """Return the target's value in the common unit, and its unit."""
        found = last_number(target.strip())
        behind = "" if found is None else found.behind
        factor, is_known = self._factor(behind, whole=True) if behind else (1.0, True)
        if found is None or found.before or not found.is_alone or factor is None or not is_known:
            known = f" and one of the units {', '.join(self.units)}" if self.units else ""
            raise DataError(
                f"Expected the target of a question for a number to be one{known}, but got {target[:80]!r}. Correct "
                "the row's answer, name its unit in `units` of Numeric, or take another verifier."
            )
        return _product(found.value, factor), factor

    def _factor(self, rest: str, whole: bool = False) -> tuple[float | None, bool]:
        """Return the factor of the unit that follows a number, None where none is known, and whether it is that unit.

        A known unit to a power, or by another one, is a unit that is not known.
        """
        rest = _BEFORE_UNIT.sub("", rest, count=1)
        for unit in sorted(self.units, key=len, reverse=True):
            behind = rest.removeprefix(unit)
            if behind != rest and not (behind[:1].isalpha() or (whole and behind.strip())):
                return self.units[unit], not behind.lstrip("}").startswith(_OF_ANOTHER_UNIT)
        return None, True

    def _is_close(self, value: Decimal, wanted: Decimal) -> bool:
        if value == wanted or not (self.relative_tolerance or self.absolute_tolerance):
            return value == wanted
        with localcontext(prec=_DIGITS):
            allowed = max(Decimal(str(self.relative_tolerance)) * abs(wanted), Decimal(str(self.absolute_tolerance)))
            return abs(value - wanted) <= allowed


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
