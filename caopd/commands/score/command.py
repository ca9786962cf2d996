"""The command line of ``caopd score``. Nothing heavy is imported before a file is read."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from caopd.commands.command_line import run_command
from caopd.errors import ConfigError
from caopd.verifiers.time_limit import DEFAULT_SECONDS, TimeLimit

if TYPE_CHECKING:
    from caopd.commands.score.predictions import Predictions

Shown = tuple[list[object], dict[str, object], dict[str, object]]
"""What is printed, what was asked for, and what was found."""

DESCRIPTION = """Every metric of saved predictions, overall and per category, with 95 % intervals clustered by prompt;
with --paired, how two files differ. A line of FILE is a JSON object with `confidence` (number from 0 to 1, or null) and
`correct` (0 or 1), or with `response` and `target`, which --task reads and verifies; `prompt_id` and `category` may
stand beside them. `caopd predict` writes such files."""


def run(arguments: Sequence[str]) -> int:
    """Score a file and return the exit status.

    Args:
        arguments: Command line after ``caopd score``.
    """
    return run_command(parser(), _score, arguments)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command's options."""
    parser = argparse.ArgumentParser(prog="caopd score", description=DESCRIPTION, allow_abbrev=False)
    parser.add_argument("files", type=Path, metavar="FILE", nargs="+", help="predictions as JSON lines")
    parser.add_argument(
        "--paired",
        action="store_true",
        help="compare two files for the same prompts, joined on `prompt_id`: second minus first",
    )
    parser.add_argument("--output", type=Path, metavar="metrics.json", help="write the metrics here")
    parser.add_argument(
        "--task",
        metavar="CLASS_OR_NAME",
        help="read and verify `response`: science_qa, tool_use, draw, or the path of a task or verifier class",
    )
    parser.add_argument(
        "--confidence_format",
        metavar="CLASS_OR_NAME",
        help="with --task: how `response` states its confidence: inline (default), tag, or the path of a class",
    )
    parser.add_argument(
        "--percent_without_sign",
        action="store_true",
        help="with --task: read a stated number above 1 without a sign as a percentage, 95 as 0.95",
    )
    parser.add_argument(
        "--verifier_timeout_seconds",
        type=_seconds,
        default=DEFAULT_SECONDS,
        metavar="SECONDS",
        help="with --task: how long the verifier may take for one line, null for no limit (default: 60)",
    )
    parser.add_argument("--resamples", type=int, default=1000, help="of the bootstrap, 0 for none (default: 1000)")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap (default: 0)")
    return parser


def _seconds(text: str) -> float | None:
    return None if text == "null" else float(text)


def _score(options: argparse.Namespace) -> None:
    from rich.console import Console

    from caopd.commands.outputs import tell
    from caopd.commands.score.judge import Judge
    from caopd.commands.score.predictions import read_predictions
    from caopd.files import write_text
    from caopd.metrics.functional.certainty import LEVEL

    if options.task is None and (options.confidence_format is not None or options.percent_without_sign):
        given = "--percent_without_sign" if options.percent_without_sign else "--confidence_format"
        raise ConfigError(f"Expected `{given}` beside `--task`, which reads responses, but got no `--task`.")
    limit = TimeLimit(options.verifier_timeout_seconds)
    form = options.confidence_format or "inline"
    judge = None if options.task is None else Judge.named(options.task, form, limit, options.percent_without_sign)
    _check_number(options.files, options.paired)
    if options.output is not None:
        options.output.parent.mkdir(parents=True, exist_ok=True)
    try:
        predictions = [read_predictions(file, judge) for file in options.files]
    finally:
        limit.close()
    console = Console()
    shown, settings, found = (_compared if options.paired else _scored)(predictions, options, console.width)
    for each in shown:
        console.print(each)
    if options.output is not None:
        record = {
            **settings,
            "task": options.task,
            "level": LEVEL,
            "resamples": options.resamples,
            "seed": options.seed,
        }
        text = json.dumps({**record, **found}, indent=2, allow_nan=False, ensure_ascii=False)
        write_text(options.output, text + "\n")
        tell([("metrics", options.output)])


def _check_number(files: Sequence[Path], paired: bool) -> None:
    if paired and len(files) != 2:
        raise ConfigError(f"Expected two files with `--paired`, but got {len(files)}.")
    if not paired and len(files) != 1:
        raise ConfigError(
            f"Expected one file, or two with `--paired`, which compares them, but got {len(files)} without it."
        )


def _scored(predictions: Sequence[Predictions], options: argparse.Namespace, width: int) -> Shown:
    from caopd.commands.score.bootstrap import score
    from caopd.commands.score.output import as_json, tables

    (only,) = predictions
    overall, categories = score(only, options.resamples, options.seed)
    shown: list[object] = list(tables(overall, categories, width, only.event))
    if only.unjudged:
        shown.append(f"without a verdict, and left out: {len(only.unjudged):,}")
    settings: dict[str, object] = {
        "file": str(options.files[0]),
        "event": only.event,
        "n_no_verdict": len(only.unjudged),
    }
    return shown, settings, as_json(overall, categories)


def _compared(predictions: Sequence[Predictions], options: argparse.Namespace, width: int) -> Shown:
    from caopd.commands.score.output import comparison_as_json, comparison_table
    from caopd.commands.score.paired import compare, matched

    first, second, left_out = matched(predictions, options.files)
    found = compare(first, second, options.resamples, options.seed)
    n_prompts = len(first.prompt_ids)
    shown: list[object] = [comparison_table(found, options.files, n_prompts, first.event)]
    if left_out:
        shown.append(f"prompts with a line without a verdict, left out of both: {left_out:,}")
    settings = {"first": str(options.files[0]), "second": str(options.files[1]), "event": first.event}
    numbers = {"n_prompts": n_prompts, "n_prompts_left_out": left_out}
    return shown, {**settings, **numbers}, comparison_as_json(found)
