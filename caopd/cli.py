"""The ``caopd`` command. This file imports nothing heavy, so that ``caopd --help`` answers at once."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from caopd import __version__
from caopd.texts import escape_what_streams_lack

HELP = f"""caopd {__version__}: calibration-aware on-policy distillation of language models

usage: caopd COMMAND [options]

commands:
  fit        train a model on its own rollouts       caopd fit --config configs/quickstart.yaml
  validate   metrics on the validation split         caopd validate --config ... --ckpt_path ...
  test       metrics on the test split               caopd test --config ... --ckpt_path ...
  predict    completions with confidences as JSONL   caopd predict --config ... --ckpt_path ...
  score      metrics of saved predictions            caopd score predictions.jsonl --output metrics.json
  report     a page that compares runs               caopd report runs/a runs/b --output report
  route      cost and accuracy of two models         caopd route small.jsonl large.jsonl --output route
  plan       memory and time that a fit will need    caopd plan --config configs/quickstart.yaml
  export     a checkpoint as a Hugging Face model    caopd export CKPT DIR

options:
  -h, --help   this page; `caopd COMMAND --help` lists every setting
  --version    the version

Any setting of a config can be overridden: caopd fit --config configs/quickstart.yaml --model.method=SDFT
"""
COMMANDS = ("fit", "validate", "test", "predict", "score", "report", "route", "plan", "export")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status.

    Args:
        arguments: Command line without the program's name; by default that of the process.
    """
    escape_what_streams_lack()
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help"):
        sys.stdout.write(HELP)
        return 0
    if given[0] == "--version":
        sys.stdout.write(f"caopd {__version__}\n")
        return 0
    if given[0] not in COMMANDS:
        sys.stderr.write(
            f"error: expected a command of {', '.join(COMMANDS)}, but got {given[0]!r}. See `caopd --help`.\n"
        )
        return 2
    sys.path.append(os.getcwd())  # a class_path in a config may name a file beside it, as with `python -m`
    if given[0] == "score":
        from caopd.commands.score.command import run as run_score

        return run_score(given[1:])
    if given[0] == "report":
        from caopd.commands.report.command import run as run_report

        return run_report(given[1:])
    if given[0] == "route":
        from caopd.commands.route.command import run as run_route

        return run_route(given[1:])
    if given[0] == "export":
        from caopd.commands.export.command import run as run_export

        return run_export(given[1:])
    if given[0] == "plan":
        from caopd.training.planning import run as run_plan

        return run_plan(given[1:])
    from caopd.training.lightning_cli import run

    return run(arguments)


if __name__ == "__main__":
    sys.exit(main())
