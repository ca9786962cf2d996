"""The command line of ``caopd route``. Nothing heavy is imported before a file is read."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from caopd.commands.command_line import run_command

DESCRIPTION = """Cost and accuracy of a cascade: prompts go to a small model, and on to a large one where the small
model's stated confidence is missing or below a threshold. SMALL and LARGE are predictions as `caopd predict` writes
them, one line per prompt, joined on `prompt_id`; the confidence is read from SMALL."""


def run(arguments: Sequence[str]) -> int:
    """Plot a cascade's curve and return the exit status.

    Args:
        arguments: Command line after ``caopd route``.
    """
    return run_command(parser(), _route, arguments)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command's options."""
    parser = argparse.ArgumentParser(prog="caopd route", description=DESCRIPTION, allow_abbrev=False)
    parser.add_argument("small", type=Path, metavar="SMALL", help="predictions of the small model")
    parser.add_argument("large", type=Path, metavar="LARGE", help="predictions of the large model")
    parser.add_argument("--small_cost", type=float, default=1.0, help="of a call, always paid (default: 1)")
    parser.add_argument("--large_cost", type=float, default=10.0, help="of a call (default: 10)")
    parser.add_argument("--target_accuracy", type=float, help="find the cheapest threshold that is as accurate")
    parser.add_argument("--budget", type=float, help="find the most accurate threshold of at most this cost per prompt")
    parser.add_argument("--output", type=Path, metavar="DIR", help="write route.json, .svg, .pdf and .png here")
    return parser


def _route(options: argparse.Namespace) -> None:
    from rich.console import Console

    from caopd.commands.outputs import tell
    from caopd.commands.route.choices import Choices, read_cascade
    from caopd.commands.route.output import as_json, table, written

    curve, event = read_cascade(options.small, options.large, options.small_cost, options.large_cost)
    choices = Choices.of(curve, options.target_accuracy, options.budget)
    Console().print(table(curve, choices, event))
    if options.output is not None:
        files = {"small": str(options.small), "large": str(options.large), "event": event}
        paths = written(options.output, {**files, **as_json(curve, choices)}, curve, choices)
        tell([("written", path) for path in paths])
    else:
        tell([], [["caopd", "route", options.small, options.large, "--output", "route"]])
