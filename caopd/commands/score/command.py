"""The command line of ``caopd score``. Nothing heavy is imported before a file is read."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from caopd.commands.command_line import run_command
from caopd.errors import ConfigError
from caopd.verifiers.time_limit import DEFAULT_SECONDS, TimeLimit

DESCRIPTION = """Every metric of saved predictions, overall and per category, with 95 % bootstrap intervals clustered by
prompt. A line of FILE is a JSON object with `confidence` (number from 0 to 1, or null) and `correct` (0 or 1), or with
`response` and `target`, which --task reads and verifies; `prompt_id` and `category` may stand beside them. `caopd
predict` writes such files."""


def run(arguments: Sequence[str]) -> int:
    """Score a file and return the exit status.

    Args:
        arguments: Command line after ``caopd score``.
    """
    return run_command(_parser(), _score, arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="caopd score", description=DESCRIPTION, allow_abbrev=False)
    parser.add_argument("file", type=Path, metavar="FILE", help="predictions as JSON lines")
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

    from caopd.commands.score.bootstrap import LEVEL, score
    from caopd.commands.score.judge import Judge
    from caopd.commands.score.output import as_json, tables
    from caopd.commands.score.predictions import read_predictions
    from caopd.files import write_text
    from caopd.texts import in_terminal

    if options.task is None and (options.confidence_format is not None or options.percent_without_sign):
        given = "--percent_without_sign" if options.percent_without_sign else "--confidence_format"
        raise ConfigError(f"Expected `{given}` beside `--task`, which reads responses, but got no `--task`.")
    limit = TimeLimit(options.verifier_timeout_seconds)
    form = options.confidence_format or "inline"
    judge = None if options.task is None else Judge.named(options.task, form, limit, options.percent_without_sign)
    if options.output is not None:
        options.output.parent.mkdir(parents=True, exist_ok=True)
    try:
        predictions = read_predictions(options.file, judge)
    finally:
        limit.close()
    overall, categories = score(predictions, options.resamples, options.seed)
    console = Console()
    for table in tables(overall, categories, console.width, predictions.event):
        console.print(table)
    if predictions.unjudged:
        console.print(f"without a verdict, and left out: {len(predictions.unjudged):,}")
    if options.output is not None:
        settings = {
            "file": str(options.file),
            "task": options.task,
            "event": predictions.event,
            "n_no_verdict": len(predictions.unjudged),
            "level": LEVEL,
            "resamples": options.resamples,
            "seed": options.seed,
        }
        text = json.dumps({**settings, **as_json(overall, categories)}, indent=2, allow_nan=False, ensure_ascii=False)
        write_text(options.output, text + "\n")
        console.print(in_terminal(f"metrics: {options.output}"), soft_wrap=True)
