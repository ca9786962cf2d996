"""Formats numbers for the tables and files of the callbacks."""

from __future__ import annotations

import math
from collections.abc import Mapping

from rich.markup import escape

from caopd.metrics.catalogue import interval

TITLE = escape("held-out prompts [95 % interval]")
"""Title of tables of what a run measured."""


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


def with_interval(values: Mapping[str, float | None], name: str) -> str:
    """Return a value for a table, with its interval below it where it has one.

    Args:
        values: Name -> value.
        name: Name of the value.

    Example:
        >>> print(with_interval({"ece": 0.05, "ece_low": 0.02, "ece_high": 0.08}, "ece"))
        0.050
        [0.020, 0.080]
    """
    between = interval(values, name)
    text = number(values.get(name))
    return text if between is None else f"{text}\n{escape('[{:.3f}, {:.3f}]'.format(*between))}"


def p_value(value: float | None) -> str:
    """Return a p-value for a table, with as many decimals as it takes.

    Example:
        >>> p_value(0.0004998), p_value(0.25), p_value(None)
        ('0.0005', '0.25', '-')
    """
    return "-" if value is None or math.isnan(value) else f"{value:.3g}"


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
