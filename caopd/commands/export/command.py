"""The command line of ``caopd export``. Nothing heavy is imported before the arguments are parsed."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from caopd.commands.command_line import run_command

DESCRIPTION = """Write a checkpoint as a Hugging Face directory: weights, tokenizer, generation config and a model card
with the calibration that the run measured. transformers and vLLM load it. LoRA adapters are merged; a GGUF model
becomes plain safetensors."""


def run(arguments: Sequence[str]) -> int:
    """Export a checkpoint and return the exit status.

    Args:
        arguments: Command line after ``caopd export``.
    """
    return run_command(parser(), _export, arguments)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command's options."""
    parser = argparse.ArgumentParser(prog="caopd export", description=DESCRIPTION, allow_abbrev=False)
    parser.add_argument(
        "checkpoint", type=Path, metavar="CKPT", help="checkpoint of a run: a file, or the folder of a sharded one"
    )
    parser.add_argument("directory", type=Path, metavar="DIR", help="where the model is written")
    parser.add_argument(
        "--config", type=Path, help="config that the checkpoint was trained with (default: config.yaml of its run)"
    )
    parser.add_argument("--weights", choices=("student", "teacher"), default="student", help="(default: student)")
    parser.add_argument("--overwrite", action="store_true", help="write into a directory that is not empty")
    return parser


def _export(options: argparse.Namespace) -> None:
    from transformers.utils import logging as transformers_logging

    from caopd.commands.export.checkpoint import export
    from caopd.commands.outputs import tell

    transformers_logging.disable_progress_bar()
    export(options.checkpoint, options.directory, options.config, options.weights, options.overwrite)
    tell([("model", options.directory), ("how to use it", options.directory / "README.md")])
