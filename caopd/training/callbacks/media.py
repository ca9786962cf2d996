"""Shows figures and tables of a validation in the loggers of a run, or writes files where a logger cannot show them."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lightning import Trainer
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.trainer.states import TrainerFn

from caopd.files import write_text
from caopd.plots import save_figure
from caopd.run_directory import step_folder
from caopd.texts import escaped_lines, in_markdown
from caopd.training.callbacks.run_curves import RunCurves
from caopd.training.callbacks.unlogged import Unlogged

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def log_figure(trainer: Trainer, directory: Path, name: str, plot: Callable[[], Figure]) -> None:
    """Show a figure in TensorBoard and W&B as ``val/NAME``; for other loggers write ``NAME/step_000008.png``.

    Args:
        trainer: Its loggers are used. Process 0 alone plots, once, and only where there is a logger.
        directory: The run directory.
        name: Name of the figure.
        plot: Makes the figure, which belongs to no pyplot state.
    """
    loggers = _loggers(trainer)
    if loggers:
        with _young_freed():
            _show(loggers, plot(), directory, name, trainer)


def log_table(
    trainer: Trainer, directory: Path, name: str, columns: Sequence[str], rows: Sequence[Sequence[str]]
) -> None:
    """Show a table of texts in TensorBoard and W&B as ``val/NAME``; for other loggers write ``NAME/step_000008.md``.

    Args:
        trainer: Its loggers are used. Process 0 alone writes.
        directory: The run directory.
        name: Name of the table.
        columns: Names of the columns.
        rows: Any texts, one for each column.
    """
    step = _step_of_numbers(trainer)
    for logger in _loggers(trainer):
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_text(f"val/{name}", _markdown(columns, rows), step)
        elif isinstance(logger, WandbLogger):
            logger.log_text(f"val/{name}", list(columns), [list(map(escaped_lines, row)) for row in rows], step=step)
        else:
            write_text(_stem(directory, name, trainer.global_step).with_suffix(".md"), _markdown(columns, rows) + "\n")


def _step_of_numbers(trainer: Trainer) -> int:
    """Return the step at which Lightning logs the validation's numbers: within a fit, that of the last batch.

    A run that goes on from a checkpoint logs anew from its number of steps on, where TensorBoard drops what was before.
    """
    in_fit = trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking
    return trainer.global_step - 1 if in_fit else trainer.global_step


def _loggers(trainer: Trainer) -> list[Logger]:
    """Return the loggers that keep or show something of their own, in process 0; none in other processes."""
    if not trainer.is_global_zero:
        return []
    return [logger for logger in trainer.loggers if not isinstance(logger, DummyLogger | RunCurves | Unlogged)]


@contextmanager
def _young_freed() -> Iterator[None]:
    """Free, at once, what the block has made and only cycles hold: a figure is such, and would stay for many rounds."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.collect(0)
        if enabled:
            gc.enable()


def _show(loggers: Sequence[Logger], figure: Figure, directory: Path, name: str, trainer: Trainer) -> None:
    step = _step_of_numbers(trainer)
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_figure(f"val/{name}", figure, step)
        elif isinstance(logger, WandbLogger):
            logger.log_image(f"val/{name}", [figure], step)
        else:
            save_figure(figure, _stem(directory, name, trainer.global_step), [".png"])


def _stem(directory: Path, name: str, step: int) -> Path:
    return directory / name / step_folder(step)


def _markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *([_cell(text) for text in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    return "<br>".join(map(in_markdown, text.split("\n")))
