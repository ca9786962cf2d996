"""The commands that can follow a run, which its last lines name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lightning import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger

from caopd.run_directory import CONFIG, METRICS

Command = list[str | Path]


def kept_checkpoint(trainer: Trainer) -> Path | None:
    """Return the checkpoint that a fit has kept: the best one by what its ``ModelCheckpoint`` monitors, else the last.

    Args:
        trainer: The trainer, at the end of a fit.
    """
    callback = trainer.checkpoint_callback
    path = callback.best_model_path if isinstance(callback, ModelCheckpoint) else ""
    return Path(path) if path else None


def after_fit(trainer: Trainer, run: Path) -> list[Command]:
    """Return what measures, compares, shows and exports what a fit has trained.

    Args:
        trainer: The trainer, at the end of a fit.
        run: The run directory; a script's has no ``config.yaml``, which some of these commands need.
    """
    checkpoint = kept_checkpoint(trainer)
    commands = [*measuring(("test", "predict"), run, checkpoint), *reporting(run)]
    if checkpoint is not None and (run / CONFIG).is_file():
        commands.append(["caopd", "export", checkpoint, "my-model"])
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            commands.append(["tensorboard", "--logdir", Path(logger.save_dir)])
    return commands


def measuring(names: Sequence[str], run: Path, checkpoint: str | Path | None) -> list[Command]:
    """Return commands that measure a checkpoint with its run's own config; none where either is missing.

    Args:
        names: Of the commands.
        run: The run directory.
        checkpoint: The checkpoint.
    """
    config = run / CONFIG
    if checkpoint is None or not config.is_file():
        return []
    return [["caopd", name, "--config", config, "--ckpt_path", Path(checkpoint)] for name in names]


def reporting(run: Path) -> list[Command]:
    """Return the command that shows a run on a page; none where nothing has been trained.

    Args:
        run: The run directory.
    """
    return [["caopd", "report", run]] if (run / METRICS).is_file() else []
