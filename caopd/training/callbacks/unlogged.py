"""A logger for runs without one: nothing is logged, but the run still has a directory of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger


class Unlogged(Logger):
    """Names the directory that a run has with the default logger, and logs nothing.

    Without it, all runs would write their checkpoints and other files into ``default_root_dir`` itself.

    Args:
        directory: The run directory.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self._directory = directory

    @property
    def save_dir(self) -> str:
        """The folder above that of all runs, as Lightning's loggers have one."""
        return str(self._directory.parents[1])

    @property
    def name(self) -> str:
        """The name of the folder within it that holds the runs."""
        return self._directory.parent.name

    @property
    def version(self) -> str:
        """The name of the run's folder."""
        return self._directory.name

    def log_metrics(self, *arguments: Any, **keywords: Any) -> None:  # noqa: ANN401 (Lightning's own signature)
        """Do nothing."""

    def log_hyperparams(self, *arguments: Any, **keywords: Any) -> None:  # noqa: ANN401 (Lightning's own signature)
        """Do nothing."""
