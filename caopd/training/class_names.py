"""Explains errors about class names in a config that no class has."""

from __future__ import annotations

import re
from collections.abc import Iterator
from difflib import get_close_matches

import caopd.confidence
import caopd.rollouts
import caopd.tasks
from caopd.losses import Divergence, TrainingLoss
from caopd.methods import Method
from caopd.methods.estimators import Estimator
from caopd.methods.rewards import Reward
from caopd.models import Teacher

_UNKNOWN = re.compile(r"Expected a dot import path string: (?P<name>\w+)$")
_BASES: tuple[type, ...] = (Method, Reward, TrainingLoss, Divergence, Teacher, Estimator)
_PROTOCOLS = (caopd.tasks, caopd.rollouts, caopd.confidence)
"""Modules with implementations of protocols; a config must name these by their full path."""


def explained(message: str) -> str:
    """Return a parser's message; if it is about an unknown class name, return one that says which names there are.

    Args:
        message: The parser's message.

    Example:
        >>> explained("Expected a dot import path string: brir").partition("?")[0]
        "Expected the name of a class, but got 'brir'. Did you mean 'Brier'"
        >>> explained("Expected a dot import path string: DrawTask")
        "Expected the full name of a class, but got 'DrawTask': write 'caopd.tasks.DrawTask'."
        >>> explained("Not an int")
        'Not an int'
    """
    found = _UNKNOWN.search(message)
    if found is None:
        return message
    name = found["name"]
    full = [f"{module.__name__}.{name}" for module in _PROTOCOLS if isinstance(getattr(module, name, None), type)]
    if full:
        return f"Expected the full name of a class, but got {name!r}: write {full[0]!r}."
    known = sorted({each.__name__ for base in _BASES for each in _concrete(base)}, key=str.lower)
    lower = {each.lower(): each for each in known}
    close = get_close_matches(name.lower(), lower, n=1)
    guess = f" Did you mean {lower[close[0]]!r}?" if close else ""
    return (
        f"Expected the name of a class, but got {name!r}.{guess} Of this package, {', '.join(known)} go by their short "
        "names; a class of your own needs its full name, `package.module.Class`."
    )


def _concrete(base: type) -> Iterator[type]:
    subclasses: list[type] = base.__subclasses__()
    for each in subclasses:
        if not getattr(each, "__abstractmethods__", None) and each.__module__.partition(".")[0] == "caopd":
            yield each
        yield from _concrete(each)
