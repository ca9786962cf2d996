"""Lets the loggers of a run that goes on write into the run's own logs, behind what they hold already."""

from __future__ import annotations

import csv
from pathlib import Path

from lightning import Trainer
from lightning.pytorch.loggers import CSVLogger

from caopd.run_directory import CSV_LOG

_KEPT = "metrics.before.csv"
"""Rows of a CSV log while Lightning's logger, which begins by deleting its file, makes a new one."""


def keep_rows(trainer: Trainer, step: float) -> None:
    """Let every CSV logger go on behind the rows of its file that the checkpoint knows; for process 0.

    Args:
        trainer: A trainer whose loggers have not begun.
        step: Number of optimizer steps of the checkpoint; rows of later steps are left out, since they come again.
    """
    for logger in trainer.loggers:
        if isinstance(logger, CSVLogger):
            _keep_rows(logger, step)


def _keep_rows(logger: CSVLogger, step: float) -> None:
    file, kept = Path(logger.log_dir) / CSV_LOG, Path(logger.log_dir) / _KEPT
    if file.is_file() and not kept.is_file():  # if both are there, a kill came in between, and `file` is incomplete
        file.replace(kept)
    if not kept.is_file():
        return
    with kept.open(encoding="utf-8", newline="") as lines:
        rows = [{name: value for name, value in row.items() if value} for row in csv.DictReader(lines)]
    logger.experiment.metrics = [row for row in rows if int(row["step"]) < step]
    logger.save()
    kept.unlink()
