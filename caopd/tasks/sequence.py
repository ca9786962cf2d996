"""Tasks one after the other, for continual learning: train on A, then on B."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from caopd.errors import ConfigError
from caopd.tasks.base import Task
from caopd.types import Example
from caopd.verifiers import Verifier

RESERVED_NAMES = ("in_domain", "greedy", "sampled", "vote", "vote_stated", "before", "mean")
"""Names in logs and files that no task may have."""
_NAME = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class Stage:
    """A part of training that is on one task.

    Attributes:
        name: Names the task in logs and files.
        task: Its rows, prompts and verifier.
        num_rounds: Rounds (epochs) that train on it.
    """

    name: str
    task: Task
    num_rounds: int


class TaskSequence:
    """Tasks that are trained on one after the other; every validation and test evaluates them all.

    It stands where a task stands in the config, and the data module takes it apart (:func:`stages_of`). The number of
    the round decides the stage, so a resumed run goes on in the right one.

    Args:
        stages: In their order; the rounds of all are the trainer's ``max_epochs``.

    Raises:
        ConfigError: No stage, a stage without rounds, or two of one name.
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
        """There is none: every row is judged by its own task's.

        Raises:
            ConfigError: Always.
        """
        names = ", ".join(stage.name for stage in self.stages)
        raise ConfigError(
            f"Expected one task where rows are verified, but got a sequence ({names}): take a stage's task."
        )


def stages_of(task: Task) -> list[Stage]:
    """Return the stages of a sequence; a task that stands alone is one without a name, which never ends."""
    return task.stages if isinstance(task, TaskSequence) else [Stage("", task, sys.maxsize)]


def check_task_name(name: str, where: str) -> None:
    """Raise ``ConfigError`` unless logs and files can carry the name.

    Args:
        name: Of a task.
        where: The setting that gives it.

    Example:
        >>> check_task_name("material-science_2", "data.evaluation.tasks")
    """
    if not _NAME.fullmatch(name) or name in RESERVED_NAMES:
        raise ConfigError(
            f"Expected the name of a task in `{where}` to be of letters, digits, `_` and `-`, and none of "
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
