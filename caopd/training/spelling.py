"""Explains a parser's errors about names that nothing has: settings, classes and choices, each with the nearest one."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from difflib import get_close_matches
from importlib import import_module

from lightning import Callback
from lightning.pytorch.accelerators import AcceleratorRegistry
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import StrategyRegistry
from torch.optim import Optimizer

from caopd.confidence import ConfidenceFormat
from caopd.losses import Divergence, TrainingLoss
from caopd.methods import Method
from caopd.methods.estimators import Estimator
from caopd.methods.rewards import Reward
from caopd.models import Teacher
from caopd.rollouts import RolloutEngine
from caopd.tasks import Task
from caopd.verifiers import JudgeModel, Verifier

_BASES: tuple[type, ...] = (
    *(Method, Reward, TrainingLoss, Divergence, Teacher, Estimator),
    *(Task, Verifier, JudgeModel, RolloutEngine, ConfidenceFormat),
)
_OF_LIBRARIES: tuple[type, ...] = (Optimizer, Callback, Logger)
_CLASS = re.compile(r"Expected a dot import path string: (?P<name>\w+)")
_KEY = re.compile(r"(?:unrecognized arguments: -+|does not accept option ')(?P<name>[\w.]+)")
_ARGUMENT = re.compile(r"Option '(?P<name>\w+)' is not accepted")
_CLASS_OF_ARGUMENT = re.compile(r"class_path[ =]'([\w.]+)'")
_ATTRIBUTE = re.compile(r"module '(?P<module>[\w.]+)' has no attribute '(?P<name>\w+)'")
_STRATEGY = re.compile(r"invalid strategy name: `strategy='(?P<name>\w+)'")
_ACCELERATOR = re.compile(r"invalid accelerator name: `accelerator='(?P<name>\w+)'")
_CHOICE = re.compile(r"(?:Got|Given) value: (?P<name>[\w-]+)\s*$")
_CHOICES = re.compile(r"- Expected a typing\.Literal\[(.*?)\]$|Expected a typing\.Literal\[(.*?)\]\. Got", re.MULTILINE)


def explained(reason: str, whole: str = "", keys: Collection[str] = ()) -> str:
    """Return why a parser refuses something; where a name is unknown, with the nearest known one, or with all of them.

    Args:
        reason: The parser's innermost message.
        whole: Its outermost message, which says more of what it tried.
        keys: Every setting of the command.

    Example:
        >>> explained("Expected a dot import path string: brir").partition("?")[0]
        "Expected the name of a class, but got 'brir'. Did you mean 'Brier'"
        >>> explained("unrecognized arguments: --trainer.max_epochz=3", keys=["trainer.max_epochs"])
        "unrecognized arguments: --trainer.max_epochz=3. Did you mean 'trainer.max_epochs'?"
        >>> explained("Expected a typing.Literal['all', 'matrices']. Got value: matrixes")
        "Expected one of all, matrices, but got 'matrixes'. Did you mean 'matrices'?"
        >>> explained("Not an int")
        'Not an int'
    """
    whole = whole or reason
    explanations: list[tuple[re.Pattern[str], str, Callable[[re.Match[str]], str]]] = [
        (_CLASS, reason, lambda found: _of_class(found["name"], _choices(whole))),
        (_KEY, reason, lambda found: reason.rstrip(".") + _guess(found["name"], keys, by_end=True)),
        (_ARGUMENT, reason, lambda found: reason.rstrip(".") + _guess(found["name"], _arguments(whole))),
        (_ATTRIBUTE, reason, lambda found: reason.rstrip(".") + _guess(found["name"], _classes(found["module"]))),
        (_STRATEGY, reason, lambda found: reason.rstrip(".") + _guess(found["name"], StrategyRegistry)),
        (_ACCELERATOR, reason, lambda found: reason.rstrip(".") + _guess(found["name"], ["gpu", *AcceleratorRegistry])),
        (_CHOICE, whole, lambda found: _of_choice(found["name"], _choices(whole), reason)),
    ]
    for pattern, text, explain in explanations:
        if found := pattern.search(text):
            return explain(found)
    return reason


def _of_class(name: str, choices: Collection[str]) -> str:
    known = sorted({each.__name__ for base in _BASES for each in concrete(base, "caopd")}, key=str.lower)
    others = {each.__name__ for base in _OF_LIBRARIES for each in concrete(base)}
    guess = _guess(name, [*choices, *known, *others]).removeprefix(".")
    listed = "" if guess else f" Of this package, {', '.join(known)} go by their short names."
    return (
        f"Expected the name of a class, but got {name!r}.{guess}{listed} A class of your own needs its full name, "
        "`package.module.Class`."
    )


def _of_choice(name: str, choices: Collection[str], reason: str) -> str:
    if not choices:
        return reason
    return f"Expected one of {', '.join(choices)}, but got {name!r}{_guess(name, choices) or '.'}"


def _choices(whole: str) -> list[str]:
    """Return the texts that a setting may be, from a message that names them all."""
    return [choice for found in _CHOICES.findall(whole) for choice in re.findall(r"'([^']*)'", "".join(found))]


def _arguments(whole: str) -> Iterable[str]:
    """Return the arguments of the class that a message is about."""
    path = _CLASS_OF_ARGUMENT.findall(whole)[-1:]
    if not path:
        return ()
    module, _, name = path[0].rpartition(".")
    return inspect.signature(getattr(import_module(module), name)).parameters


def _classes(module: str) -> Iterable[str]:
    return (name for name, each in vars(import_module(module)).items() if isinstance(each, type))


def _guess(name: str, known: Iterable[str], by_end: bool = False) -> str:
    """Return a question with the nearest of the known names, in whatever case; empty if none is near.

    Args:
        name: What was given.
        known: The names that there are.
        by_end: Whether to look at the last parts of dotted names where no whole one is near.
    """
    lower = {each.lower(): each for each in known}
    close = get_close_matches(name.lower(), lower, n=1)
    if not close and by_end:
        ends = {each.rpartition(".")[2]: each for each in lower}
        close = [ends[end] for end in get_close_matches(name.lower().rpartition(".")[2], ends, n=1)]
    return f". Did you mean {lower[close[0]]!r}?" if close else ""


def concrete(base: type, package: str = "") -> Iterator[type]:
    """Yield the classes that a setting can name in short, which are those that inherit from a base.

    Args:
        base: The base.
        package: First letters of the modules whose classes are wanted.
    """
    subclasses: list[type] = base.__subclasses__()
    for each in subclasses:
        if not getattr(each, "__abstractmethods__", None) and each.__module__.startswith(package):
            yield each
        yield from concrete(each, package)
