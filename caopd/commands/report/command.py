"""The command line of ``caopd report``. Nothing heavy is imported before the arguments are parsed."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from caopd.commands.command_line import run_command
from caopd.commands.outputs import tell

DESCRIPTION = """Compare runs in one page, as Markdown and as self-contained HTML, with its tables as CSV and LaTeX and
its figures as SVG, PDF and PNG. RUN is a run directory, or a folder with run directories somewhere below. Runs that
differ in their seed alone are compared by their mean, and a run that went on in another directory is one run."""


def run(arguments: Sequence[str]) -> int:
    """Write a report and return the exit status.

    Args:
        arguments: Command line after ``caopd report``.
    """
    return run_command(parser(), _report, arguments)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command's options."""
    parser = argparse.ArgumentParser(prog="caopd report", description=DESCRIPTION, allow_abbrev=False)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run directory with a metrics.json")
    parser.add_argument(
        "--names",
        nargs="+",
        metavar="NAME",
        help="of the runs, in their order, one for all seeds (default: the methods)",
    )
    parser.add_argument("--output", type=Path, default=Path("report"), metavar="DIR", help="(default: report)")
    parser.add_argument("--title", default="Comparison of runs", help="of the page")
    return parser


def _report(options: argparse.Namespace) -> None:
    from caopd.commands.report.collect import collect
    from caopd.commands.report.pages import write_report
    from caopd.commands.report.sets import sets_of

    sets = sets_of(collect(options.runs), options.names)
    tell([("written", path) for path in write_report(sets, options.output, options.title)])
