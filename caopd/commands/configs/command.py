"""The command line of ``caopd configs``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from caopd.commands.command_line import run_command
from caopd.commands.configs.shipped import about, config_named, shipped
from caopd.commands.outputs import tell
from caopd.errors import ConfigError
from caopd.files import write_text

DESCRIPTION = """List the configs that come with caopd, each with what it trains; with NAMEs, copy these, to be changed.
`caopd fit --config NAME` takes them as they are."""


def run(arguments: Sequence[str]) -> int:
    """List or copy configs and return the exit status.

    Args:
        arguments: Command line after ``caopd configs``.
    """
    return run_command(parser(), _configs, arguments)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command's options."""
    parser = argparse.ArgumentParser(prog="caopd configs", description=DESCRIPTION, allow_abbrev=False)
    parser.add_argument("names", nargs="*", metavar="NAME", help="copy this config, such as quickstart or data/gsm8k")
    parser.add_argument("--output", type=Path, default=Path(), metavar="DIR", help="where to (default: this folder)")
    return parser


def _configs(options: argparse.Namespace) -> None:
    if options.names:
        _copy(options.names, options.output)
        return
    width = max(map(len, shipped()))
    for name, file in shipped().items():
        sys.stdout.write(f"{name:{width}}  {about(file)}\n")
    sys.stdout.write("\nuse one:   caopd fit --config NAME\ncopy one:  caopd configs NAME\n")


def _copy(names: Sequence[str], folder: Path) -> None:
    copies = {folder / f"{config_named(name).stem}.yaml": config_named(name) for name in names}
    for copy in copies:
        if copy.exists():
            raise ConfigError(f"Expected no file at {copy}, but there is one: move it, or name another --output.")
    for copy, file in copies.items():
        folder.mkdir(parents=True, exist_ok=True)
        write_text(copy, file.read_text(encoding="utf-8"))
    fit: list[str | Path] = ["caopd", "fit", *(word for copy in copies for word in ("--config", copy))]
    tell([("written", copy) for copy in copies], [[*fit, "--dry_run"], fit])
