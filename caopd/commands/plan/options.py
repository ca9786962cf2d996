"""The command line of ``caopd plan``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from caopd.commands.plan.devices import DEVICES

DESCRIPTION = """Tell what a round of `caopd fit` will need: tokens, optimizer steps, the memory of a device part by
part, and an estimate of its time. Only the models' configs are read, no weights. Every other option is one of
`caopd fit`: --config FILE and whatever overrides it. docs/plan.md has the formulas."""


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return the command's own options, and those that belong to ``caopd fit``.

    Args:
        arguments: Command line after ``caopd plan``.
    """
    return parser().parse_known_args(arguments)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command's options."""
    parser = argparse.ArgumentParser(prog="caopd plan", description=DESCRIPTION, allow_abbrev=False)
    parser.add_argument(
        "--device",
        choices=DEVICES,
        help="what every process has (default: h100-80g where the config's accelerator is a GPU, else this machine)",
    )
    parser.add_argument("--probe", action="store_true", help="measure this machine's rates for seconds (cpu alone)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    lengths = parser.add_argument_group("lengths in tokens, instead of those of the task's rows")
    lengths.add_argument("--prompt_tokens", type=_positive, metavar="N", help="of the student's prompts")
    lengths.add_argument(
        "--teacher_prompt_tokens",
        type=_positive,
        metavar="N",
        help="of the teacher's prompts (default: the student's, and a completion)",
    )
    lengths.add_argument(
        "--completion_tokens",
        type=_positive,
        metavar="N",
        help="mean of the completions, for tokens and time (default: the longest, max_new_tokens)",
    )
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, but got {text}")
    return value
