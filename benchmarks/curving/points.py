"""The points that are measured: a base, and one setting at a time varied around it."""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from caopd.cli import main
from curving.works import ADDED_TOKENS, write_model, write_rows
from fits import Run

NUM_LAYERS, NUM_PROMPTS, NUM_ROUNDS = 4, 2, 3
OPTIONS = (
    *("--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.enable_checkpointing=false"),
    *("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--trainer.limit_val_batches=0"),
    *("--trainer.num_sanity_val_steps=0", f"--trainer.max_epochs={NUM_ROUNDS}", "--model.method=SDFT"),
    *("--data.task=caopd.tasks.ScienceQA", "--data.engine=caopd.rollouts.TransformersEngine"),
    f"--data.round.num_prompts_per_round={NUM_PROMPTS}",
)
"""Of every point; a round is one optimizer step and one micro-batch, and the first is not counted."""


@dataclass(frozen=True)
class Point:
    """A setting of all that is varied.

    Attributes:
        rollouts: G.
        prompt: Length of the student's prompts in tokens.
        completion: Length of the completions in tokens.
        vocabulary: Number of the vocabulary's tokens.
        width: Of the model's residual stream.
    """

    rollouts: int = 4
    prompt: int = 256
    completion: int = 32
    vocabulary: int = 8192
    width: int = 256

    @property
    def name(self) -> str:
        """Name of its run."""
        return "-".join(f"{key}{value}" for key, value in asdict(self).items())


BASE = Point()
AXES = {
    "rollouts": (1, 4, 8, 16),
    "prompt": (64, 256, 512, 1024),
    "completion": (8, 32, 128, 256),
    "vocabulary": (2048, 8192, 32_768, 131_072),
    "width": (128, 256, 384, 512),
}
"""Setting -> the values it is given while all others are the base point's."""


def along(axis: str) -> list[Point]:
    """Return the points of one axis, in the order of its values."""
    return [replace(BASE, **{axis: value}) for value in AXES[axis]]


POINTS = list(dict.fromkeys(point for axis in AXES for point in along(axis)))


def options_of(point: Point, directory: Path) -> list[str]:
    """Return the options of ``caopd fit`` for a point, and write the model and the rows that they name."""
    model, rows = f"model-{point.width}-{point.vocabulary}", directory / f"rows-{point.prompt}.jsonl"
    return [
        *OPTIONS,
        write_model(directory / model, point.width, NUM_LAYERS, point.vocabulary),
        *write_rows(rows, [point.prompt - ADDED_TOKENS] * NUM_PROMPTS),
        f"--data.round.num_rollouts={point.rollouts}",
        f"--data.batch_size={NUM_PROMPTS * point.rollouts}",
        f"--data.sampling.max_new_tokens={point.completion}",
    ]


def run_of(point: Point, directory: Path) -> Run:
    """Return the run of a point."""
    directory.mkdir(parents=True, exist_ok=True)
    options = [option.replace(str(directory), "{directory}") for option in options_of(point, directory)]
    return Run(point.name, ("benchmarks/curves_fit.py", "{run}", *options))


def planned(point: Point, directory: Path) -> dict:
    """Return what ``caopd plan`` says of a point."""
    with contextlib.redirect_stdout(io.StringIO()) as said:
        status = main(["plan", *options_of(point, directory), "--json"])
    if status != 0:
        raise RuntimeError(f"caopd plan ended with status {status} for {point}")
    return json.loads(said.getvalue())
