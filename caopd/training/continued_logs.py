"""Lets the loggers of a run that goes on write into the run's own logs, behind what they hold already."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning import Trainer
from lightning.pytorch.loggers import CSVLogger

from caopd.run_directory import CSV_LOG
from caopd.training.continuing import ContinuedRun

_TENSORBOARD = "lightning.pytorch.loggers.TensorBoardLogger"
_KEPT = "metrics.before.csv"
"""Rows of a CSV log while Lightning's logger, which begins by deleting its file, makes a new one."""


def with_versions(logger: Any, run: ContinuedRun, root: str) -> Any:  # noqa: ANN401 (one of many shapes of the setting)
    """Return the setting of the loggers with the names that they gave the run before.

    TensorBoard also learns from which step on earlier events count no longer.

    Args:
        logger: ``trainer.logger`` of the config: nothing, one logger, or a list of them.
        run: The run that goes on.
        root: ``trainer.default_root_dir``, for the logger that Lightning takes by default.
    """
    if logger is False:
        return False
    if logger is None or logger is True:
        arguments = Namespace(save_dir=root, version=None)  # type: ignore[no-untyped-call]
        logger = Namespace(class_path=_TENSORBOARD, init_args=arguments)  # type: ignore[no-untyped-call]
    loggers = logger if isinstance(logger, list) else [logger]
    for each, version in zip(loggers, _versions(run, loggers), strict=True):
        arguments = each.init_args
        if "version" in arguments and arguments.version is None and arguments.get("id") is None:
            arguments.version = version
        if each.class_path == _TENSORBOARD:
            each.dict_kwargs = {**(each.get("dict_kwargs") or {}), "purge_step": run.step}
    return logger


def _versions(run: ContinuedRun, loggers: Sequence[Any]) -> Sequence[str | int | None]:
    """Return a name for every logger: the first one gives the run directory its name.

    Those of the others are recorded (W&B, for one, draws its own), unless there are more or fewer loggers now.
    """
    others = run.versions[1:] if len(run.versions) == len(loggers) else [run.directory.name] * (len(loggers) - 1)
    return [run.directory.name, *others]


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
