"""``caopd completion``: a script that lets the shell complete commands, settings, configs and names of classes."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from jsonargparse import capture_parser
from lightning.pytorch.cli import LightningCLI

from caopd.commands.command_line import run_command
from caopd.commands.configs import command as configs
from caopd.commands.configs.shipped import shipped
from caopd.commands.export import command as export
from caopd.commands.plan import options as plan
from caopd.commands.report import command as report
from caopd.commands.route import command as route
from caopd.commands.score import command as score
from caopd.confidence import ConfidenceFormat
from caopd.errors import ConfigError
from caopd.losses import TrainingLoss
from caopd.methods import Method
from caopd.methods.estimators import Estimator
from caopd.models import Teacher
from caopd.rollouts import RolloutEngine
from caopd.tasks import Task
from caopd.training import data_check
from caopd.training.lightning_cli import CaopdCLI, settings_of
from caopd.training.spelling import concrete

SHELLS = ("bash", "zsh")
DESCRIPTION = """Print a script for the shell, after which the Tab key completes commands, settings, configs and names
of classes. For bash: caopd completion bash > ~/.local/share/bash-completion/completions/caopd. For zsh: the same into a
file _caopd in a folder of $fpath. Write values after a space, as in --model.method SDFT. Needs pip install
'caopd[completion]'."""
_BASES: dict[str, type] = {
    "model.method": Method,
    "model.loss": TrainingLoss,
    "model.teacher": Teacher,
    "data.task": Task,
    "data.engine": RolloutEngine,
    "data.confidence": ConfidenceFormat,
    "data.estimator": Estimator,
}
_CHOICES = re.compile(r"\{(.*)\}")
_PATHS = ("ckpt_path", "trainer.default_root_dir", "predictions.output")
_FUNCTION = "_caopd_config"
_FUNCTIONS = {
    "bash": _FUNCTION + '() {{ compgen -W "{names}" -- "$1"; compgen -f -- "$1"; }}',
    "zsh": _FUNCTION + "() {{ _alternative 'names:config of caopd:({names})' 'files:file:_files' }}",
}
"""What completes a config: a name or a file."""


def run(arguments: Sequence[str]) -> int:
    """Print a shell's script and return the exit status.

    Args:
        arguments: Command line after ``caopd completion``.
    """
    return run_command(parser(), _print, arguments)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command's options."""
    parser = argparse.ArgumentParser(prog="caopd completion", description=DESCRIPTION, allow_abbrev=False)
    parser.add_argument("shell", choices=SHELLS)
    return parser


def _print(options: argparse.Namespace) -> None:
    if find_spec("shtab") is None:
        raise ConfigError("`caopd completion` needs shtab, which is not installed: pip install 'caopd[completion]'.")
    from shtab import complete

    function = _FUNCTIONS[options.shell].format(names=" ".join(shipped()))
    sys.stdout.write(complete(_all_commands(), options.shell, preamble=function) + "\n")


def _all_commands() -> argparse.ArgumentParser:
    """Return one plain parser of everything; jsonargparse's own script would list every class inside of every other."""
    whole = argparse.ArgumentParser(prog="caopd")
    commands = whole.add_subparsers()
    for name in LightningCLI.subcommands():
        own = commands.add_parser(name, help=name, add_help=False)
        _add_settings(own, capture_parser(lambda name=name: CaopdCLI(name, args=[name], **settings_of(name))), name)
    for name, each in {"score": score, "report": report, "route": route, "export": export, "configs": configs}.items():
        commands.add_parser(name, help=name, parents=[each.parser()], add_help=False)
    planned = commands.add_parser("plan", help="plan", parents=[plan.parser()], add_help=False)
    _add_settings(planned, capture_parser(lambda: CaopdCLI("fit", args=["fit"], **settings_of("fit"))), "fit")
    commands.add_parser("data", help="data", parents=[data_check.parser()], add_help=False)
    commands.add_parser("completion", help="completion", parents=[parser()], add_help=False)
    return whole


def _add_settings(own: argparse.ArgumentParser, parser: argparse.ArgumentParser, command: str) -> None:
    """Add a Lightning command's settings, each with what it may be, where that is a list, a path or a config."""
    (subcommands,) = (action.choices for action in parser._actions if isinstance(action.choices, dict))
    for action in subcommands[command]._actions:
        key = action.option_strings[-1].removeprefix("--")
        if action.option_strings[0] in own._option_string_actions or action.help == argparse.SUPPRESS:
            continue
        kind: dict[str, Any] = {"action": "store_true"} if action.nargs == 0 else {"choices": _choices(action, key)}
        about = (action.help or key).partition("\n")[0].replace("%", "%%")
        added = own.add_argument(*action.option_strings, help=about, **kind)
        if key == "config":
            added.complete = dict.fromkeys(SHELLS, _FUNCTION)  # type: ignore[attr-defined]
        elif key in _PATHS:
            added.complete = dict(bash="_shtab_compgen_files", zsh="_files")  # type: ignore[attr-defined]


def _choices(action: argparse.Action, key: str) -> list[str] | None:
    if key in _BASES:
        return sorted({each.__name__ for each in concrete(_BASES[key], "caopd")})
    listed = _CHOICES.fullmatch(str(action.metavar))
    return listed[1].split(",") if listed else None
