"""A logger for runs without one: nothing is logged, but the run still has a directory of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger

from caopd.run_directory import RUNS, next_number


class Unlogged(Logger):
    """Names the directory that a run would have with Lightning's default logger, and logs nothing.

    Without it, all runs would write their checkpoints and other files into ``default_root_dir`` itself.

    Args:
        save_dir: Folder of all runs, the trainer's ``default_root_dir``.
        version: Name of the run's folder, if it goes on in one; None takes the next free number.
    """

    def __init__(self, save_dir: Path, version: str | None = None) -> None:
        super().__init__()
        self._save_dir = save_dir
        self._version = next_number(save_dir / RUNS) if version is None else version

    @property
    def save_dir(self) -> str:
        """The folder of all runs."""
        return str(self._save_dir)

    @property
    def name(self) -> str:
        """The name of the folder within it that holds the runs."""
        return RUNS

    @property
    def version(self) -> int | str:
        """The number of the run, or the name of its folder."""
        return self._version

    def log_metrics(self, *arguments: Any, **keywords: Any) -> None:  # noqa: ANN401 (Lightning's own signature)
        """Do nothing."""

    def log_hyperparams(self, *arguments: Any, **keywords: Any) -> None:  # noqa: ANN401 (Lightning's own signature)
        """Do nothing."""
