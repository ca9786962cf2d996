"""Formats numbers for the tables and files of the callbacks."""

from __future__ import annotations

import math
from collections.abc import Mapping


def number(value: float | None, *, sign: bool = False) -> str:
    """Return a value for a table, ``-`` where it is undefined.

    Args:
        value: Value of a metric.
        sign: Whether to show a plus sign before positive values.

    Example:
        >>> number(0.12345), number(0.5, sign=True), number(math.nan), number(None)
        ('0.123', '+0.500', '-', '-')
    """
    if value is None or math.isnan(value):
        return "-"
    return f"{value:+.3f}" if sign else f"{value:.3f}"


def count(value: float | None) -> str:
    """Return a number of completions for a table, ``-`` where nothing was measured.

    Example:
        >>> count(2000.0), count(None)
        ('2000', '-')
    """
    return "-" if value is None else f"{value:.0f}"


def without_nan(values: Mapping[str, float]) -> dict[str, float | None]:
    """Return values for a JSON file, which has no NaN: null.

    Example:
        >>> without_nan({"ece": math.nan, "n": 2})
        {'ece': None, 'n': 2}
    """
    return {name: None if math.isnan(value) else value for name, value in values.items()}
