"""The protocol of tasks: a source of examples, and the verifier of answers to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from caopd.errors import ConfigError, DataError, name_of, user_code
from caopd.types import Example
from caopd.verifiers import Verifier

SPLITS = ("train", "validation", "test")
"""The splits of every task."""


class Task(Protocol):
    """A source of examples with one verifier.

    A task of your own is one small class: its constructor's typed arguments become its configuration. One that inherits
    this class may be named without its module in a config.

    Examples:
        >>> from caopd.verifiers import ExactMatch
        >>> class Sums:
        ...     verifier = ExactMatch()
        ...
        ...     def examples(self, split: str) -> Sequence[Example]:
        ...         check_split(split)
        ...         return [Example(id="1", question="1 + 1 = ?", target="2", demonstration="2")]
        >>> Sums().examples("train")[0].target
        '2'
    """

    if TYPE_CHECKING:  # at run time it would be the default of a dataclass's field of this name

        @property
        def verifier(self) -> Verifier:
            """Judges the completions of this task, in training and in evaluation."""
            ...

    def examples(self, split: str) -> Sequence[Example]:
        """Return the examples of a split, in a fixed order, with unique ids.

        Args:
            split: One of :data:`SPLITS`.

        Raises:
            ConfigError: ``split`` is not one of them.
            DataError: The data cannot be used as it is.
        """
        ...


def check_split(split: str) -> None:
    """Raise ``ConfigError`` unless ``split`` is one of :data:`SPLITS`."""
    if split not in SPLITS:
        raise ConfigError(f"Expected `split` to be one of {', '.join(SPLITS)}, but got {split!r}.")


def verifier_of(task: Task) -> Verifier:
    """Return a task's verifier.

    Args:
        task: The task, which may be a class of the user's own.

    Raises:
        UserCodeError: The task raised.
        ConfigError: What it returned cannot verify.
    """
    with user_code(task, "the question for its verifier"):
        verifier = task.verifier
        if hasattr(verifier, "verify"):
            return verifier
    raise ConfigError(
        f"Expected the `verifier` of {name_of(task)} to have a method `verify`, but got {verifier!r:.200}: give it an "
        "object such as caopd.verifiers.ExactMatch()."
    )


def examples_of(task: Task, split: str) -> Sequence[Example]:
    """Return the examples of a task's split.

    Args:
        task: The task, which may be a class of the user's own.
        split: One of :data:`SPLITS`.

    Raises:
        UserCodeError: The task raised.
        DataError: It returned something else than examples.
    """
    with user_code(task, f"the split {split!r}"):
        examples = task.examples(split)
        strange = next((each for each in examples if not isinstance(each, Example)), None)
    if strange is not None:
        raise DataError(
            f"Expected {name_of(task)} to return Examples for the split {split!r}, but got {strange!r:.200}. Correct "
            "its `examples`."
        )
    return examples
