"""``caopd data check``: what is wrong in which row of a file, before a run is set up."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence

from jsonargparse import ArgumentError, ArgumentParser

from caopd.commands.command_line import run_command
from caopd.errors import ConfigError
from caopd.tasks import Task, examples_of
from caopd.texts import escaped, escaped_lines
from caopd.training.error_messages import message_of
from caopd.types import Example

USAGE = "caopd data check FILE --task CLASS [--task.SETTING VALUE ...]"
DESCRIPTION = """Read a file as a task does and say what is wrong in which row, or else what the first question looks
like. Settings of the task follow its name: caopd data check questions.csv --task QuestionAnswering --task.verifier
ShortAnswer --task.source.columns '{question: Question, answer: Answer}'. `caopd fit --dry_run` checks lengths, too."""


def run(arguments: Sequence[str]) -> int:
    """Check a file and return the exit status: 2 where a row is wrong.

    Args:
        arguments: Command line after ``caopd data``; from the first ``--task.`` on it is about the task.
    """
    end = next((index for index, each in enumerate(arguments) if each.startswith("--task.")), len(arguments))
    return run_command(parser(), lambda options: _check(options, arguments[end:]), arguments[:end])


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command's options, those of the task left out."""
    parser = argparse.ArgumentParser(prog="caopd data", usage=USAGE, description=DESCRIPTION, allow_abbrev=False)
    parser.add_argument("action", choices=["check"])
    parser.add_argument("file", metavar="FILE", help="rows as .jsonl, .json, .csv or .parquet")
    parser.add_argument("--task", required=True, metavar="CLASS", help="QuestionAnswering, ScienceQA, ToolUse or yours")
    return parser


def _check(options: argparse.Namespace, settings: Sequence[str]) -> None:
    examples = examples_of(_task(options, settings), "train")
    kinds = Counter(example.category for example in examples)
    counted = ", ".join(f"{escaped(name)} ({number})" for name, number in kinds.most_common(10) if name)
    sys.stdout.write(f"{len(examples)} questions, and nothing wrong in {escaped(options.file)}\n")
    if counted:
        sys.stdout.write(f"categories: {counted}{', ...' if len(kinds) > 10 else ''}\n")
    sys.stdout.write(_shown(examples[0]) + "\n")


def _task(options: argparse.Namespace, settings: Sequence[str]) -> Task:
    """Return the task over the file.

    Raises:
        ConfigError: There is no such class, or a setting is wrong.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--task", type=Task)
    given = [f"--task={options.task}", f"--task.source.path={options.file}", *settings]
    try:
        made: Task = parser.instantiate_classes(parser.parse_args(given)).task
    except ArgumentError as error:
        raise ConfigError(message_of(error)) from error
    return made


def _shown(example: Example) -> str:
    fields = {
        "id": example.id,
        "system": example.system,
        "question": example.question,
        "target": example.target,
        "demonstration": example.demonstration,
    }
    return "".join(f"\n{name}:\n{escaped_lines(str(text))}\n" for name, text in fields.items() if text)
