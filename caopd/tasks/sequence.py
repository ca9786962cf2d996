"""Sequences of tasks, for continual learning: training on task A, then on task B."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from caopd.errors import ConfigError
from caopd.tasks.base import Task
from caopd.types import GREEDY, SAMPLED, Example
from caopd.verifiers import Verifier

RESERVED_NAMES = ("in_domain", GREEDY, SAMPLED, "vote", "vote_stated", "before", "mean")
"""Names in logs and files that no task may have."""
_NAME = re.compile(r"[A-Za-z0-9_-]{1,100}")


@dataclass(frozen=True)
class Stage:
    """A part of training: consecutive rounds on one task.

    Attributes:
        name: Name of the task in logs and files.
        task: The task: rows, prompts and verifier.
        num_rounds: Number of rounds (epochs) that train on it.
    """

    name: str
    task: Task
    num_rounds: int


class TaskSequence(Task):
    """Tasks that are trained on one after the other; every validation and test evaluates them all.

    A config names it in place of a task, and the data module takes its stages (:func:`stages_of`). The number of
    the round decides the stage, so a resumed run goes on in the right one.

    Args:
        stages: The stages in their order; the sum of their rounds is the trainer's ``max_epochs``.

    Raises:
        ConfigError: There is no stage, a stage has no rounds, or two stages have the same name.
    """

    def __init__(self, stages: list[Stage]) -> None:
        self.stages = stages
        if not stages:
            raise ConfigError("Expected at least one stage in `data.task.stages`, but got none: name what to train on.")
        for stage in stages:
            check_task_name(stage.name, "data.task.stages")
            if stage.num_rounds < 1:
                raise ConfigError(
                    f"Expected `num_rounds` of the stage {stage.name!r} to be at least 1, but got {stage.num_rounds}: "
                    "leave the stage out, or name its task in `data.evaluation.tasks` to evaluate it only."
                )
        check_unique([stage.name for stage in stages])

    def examples(self, split: str) -> Sequence[Example]:
        """Return the rows of all stages, stage by stage; ids are unique within a stage."""
        return [example for stage in self.stages for example in stage.task.examples(split)]

    @property
    def verifier(self) -> Verifier:
        """There is no common verifier: every row is judged by that of its own task.

        Raises:
            ConfigError: Always raised.
        """
        names = ", ".join(stage.name for stage in self.stages)
        raise ConfigError(
            f"Expected one task where rows are verified, but got a sequence ({names}): take a stage's task."
        )


def stages_of(task: Task) -> list[Stage]:
    """Return the stages of a sequence; a task that stands alone is one stage without a name, which never ends."""
    return task.stages if isinstance(task, TaskSequence) else [Stage("", task, sys.maxsize)]


def check_task_name(name: str, where: str) -> None:
    """Raise ``ConfigError`` unless the name can be used in logs and in names of files.

    Args:
        name: Name of a task.
        where: The setting that gives the name.

    Example:
        >>> check_task_name("material-science_2", "data.evaluation.tasks")
    """
    if not _NAME.fullmatch(name) or name in RESERVED_NAMES:
        raise ConfigError(
            f"Expected the name of a task in `{where}` to be of at most 100 letters, digits, `_`, `-`, and none of "
            f"{', '.join(RESERVED_NAMES)}, but got {name!r}: it names metrics (`test/NAME/ece`) and files."
        )


def check_unique(names: Sequence[str]) -> None:
    """Raise ``ConfigError`` if two tasks share a name."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(
            f"Expected every task in `data.task.stages` and `data.evaluation.tasks` to have a name of its own, but got "
            f"{', '.join(twice)} more than once: rename one of them."
        )
