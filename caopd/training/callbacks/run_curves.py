"""A log of a run's curves for loggers that keep none in its directory, such as W&B's."""

from __future__ import annotations

from lightning import Trainer
from lightning.pytorch.loggers import CSVLogger

from caopd.run_directory import own_run_directory


class RunCurves(CSVLogger):
    """Lightning's CSV logger in the run directory, where ``caopd report`` finds the curves.

    Args:
        trainer: The trainer, whose first logger says where the run directory is once it has begun.
    """

    def __init__(self, trainer: Trainer) -> None:
        super().__init__(trainer.default_root_dir)
        self._trainer = trainer

    @property
    def root_dir(self) -> str:
        """The run directory, too: no other folder is made."""
        return self.log_dir

    @property
    def log_dir(self) -> str:
        """The run directory."""
        return str(own_run_directory(self._trainer))
