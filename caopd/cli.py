"""The ``caopd`` command. This file imports nothing heavy, so that ``caopd --help`` answers at once."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches

from caopd import __version__
from caopd.texts import escape_what_streams_lack

HELP = f"""caopd {__version__}: calibration-aware on-policy distillation of language models

usage: caopd COMMAND [options]

commands, each with options as an example:
  fit         train a model on its own rollouts   --config quickstart
  validate    metrics on the validation split     --config NAME --ckpt_path last
  test        metrics on the test split           --config NAME --ckpt_path last
  predict     completions with confidences        --config NAME --ckpt_path last
  score       metrics of saved predictions        FILE.jsonl --output FILE.json
  report      a page that compares runs           runs/a runs/b --output report
  route       cost and accuracy of two models     small.jsonl large.jsonl
  plan        memory and time of a fit            --config quickstart
  export      a Hugging Face model                CKPT DIR
  configs     list the shipped configs, copy one  one_gpu
  data        which rows of a file are wrong      check FILE --task ScienceQA
  completion  what the Tab key needs              bash

options:
  -h, --help  this page; `caopd COMMAND --help` lists every setting
  --version   the version

Start with:                caopd fit --config quickstart
Any setting can be given:  caopd fit --config quickstart --model.method=SDFT
Look before training:      caopd fit --config quickstart --dry_run
"""
_OF_LIGHTNING = ("fit", "validate", "test", "predict")
COMMANDS = (*_OF_LIGHTNING, "score", "report", "route", "plan", "export", "configs", "data", "completion")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status.

    Args:
        arguments: Command line without the program's name; by default that of the process.
    """
    escape_what_streams_lack()
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")  # asked when tqdm is imported: bars of libraries are for terminals
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help"):
        sys.stdout.write(HELP)
        return 0
    if given[0] == "--version":
        sys.stdout.write(f"caopd {__version__}\n")
        return 0
    if given[0] not in COMMANDS:
        close = get_close_matches(given[0], COMMANDS, n=1)
        guess = f" Did you mean {close[0]!r}?" if close else ""
        sys.stderr.write(
            f"error: expected a command of {', '.join(COMMANDS)}, but got {given[0]!r}.{guess} See `caopd --help`.\n"
        )
        return 2
    sys.path.append(os.getcwd())  # a class_path in a config may name a file beside it, as with `python -m`
    if given[0] == "fit" and "--dry_run" in given:
        from caopd.training.dry_run import run as run_dry

        return run_dry(given)
    if given[0] in _OF_LIGHTNING:
        from caopd.training.subcommands import run

        return run(arguments)
    return _run_other(given[0], given[1:])


def _run_other(command: str, arguments: Sequence[str]) -> int:
    """Run a command that is none of Lightning's; each imports what it needs, and no other."""
    if command == "score":
        from caopd.commands.score.command import run
    elif command == "report":
        from caopd.commands.report.command import run
    elif command == "route":
        from caopd.commands.route.command import run
    elif command == "export":
        from caopd.commands.export.command import run
    elif command == "configs":
        from caopd.commands.configs.command import run
    elif command == "plan":
        from caopd.training.planning import run
    elif command == "data":
        from caopd.training.data_check import run
    else:
        from caopd.training.completion import run
    return run(arguments)


if __name__ == "__main__":
    sys.exit(main())
