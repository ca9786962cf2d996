"""Saves a run's configuration as ``config.yaml`` in its directory, and checks that no other run is there."""

from __future__ import annotations

from pathlib import Path

from lightning import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback

from caopd.distributed import on_first_process
from caopd.errors import ConfigError
from caopd.files import write_text
from caopd.run_directory import CONFIG, CSV_LOG, run_directory, run_of_checkpoint

_OF_THE_RUN_ITSELF = ("last", "hpc")
"""Values of ``ckpt_path`` that are no path, but stand for a checkpoint of the same run."""


class RunConfig(SaveConfigCallback):
    """Lightning's callback, which here writes into the run directory, and never over another run's file.

    A run that goes on from a checkpoint in its own directory is the same run: ``fit`` replaces the file, and what is
    measured of such a checkpoint leaves it as it is.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Save the file; a collective operation.

        Args:
            trainer: The trainer of the run.
            pl_module: Not used.
            stage: ``fit``, ``validate``, ``test`` or ``predict``.

        Raises:
            ConfigError: Raised in every process, if the directory holds another run.
        """
        if self.already_saved:
            return
        directory = run_directory(trainer)
        on_first_process(lambda: self._save(directory, stage))
        self.already_saved = True

    def _save(self, directory: Path, stage: str) -> None:
        check_alone(directory, self.config.get("ckpt_path"))
        path = directory / CONFIG
        if stage == "fit" or not path.exists():
            write_text(path, self.parser.dump(self.config, skip_none=False))


def check_alone(directory: Path, checkpoint: str | None) -> None:
    """Raise where a run would write over the files of another run, or Lightning would delete them.

    Args:
        directory: Directory of the run.
        checkpoint: The checkpoint that the run goes on from; if it is in the same directory, this is the same run. With
            the CSV logger no run can go on in its directory, since that logger begins by deleting its file.

    Raises:
        ConfigError: The directory holds another run.
    """
    if not (directory / CONFIG).exists():
        return
    if (directory / CSV_LOG).exists() or not _goes_on(directory, checkpoint):
        raise ConfigError(
            f"Expected {directory} to be this run's alone, but it holds the {CONFIG} of an earlier one, and the logger "
            "gives both the same name and version: set another `version` of the logger (W&B: `id`) or none, or move "
            "the earlier run."
        )


def _goes_on(directory: Path, checkpoint: str | None) -> bool:
    if checkpoint is None or checkpoint in _OF_THE_RUN_ITSELF:
        return checkpoint is not None
    return run_of_checkpoint(Path(checkpoint)) == directory.resolve()
