"""In place of no logger: nothing is logged, and a run still has a directory of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger

from caopd.run_directory import RUNS, next_number


class Unlogged(Logger):
    """Names the directory that a run would have with Lightning's default logger, and logs nothing.

    Without it, all runs would put their checkpoints and all else into ``default_root_dir`` itself.

    Args:
        save_dir: Where runs are; the trainer's ``default_root_dir``.
    """

    def __init__(self, save_dir: Path) -> None:
        super().__init__()
        self._save_dir = save_dir
        self._version = next_number(save_dir / RUNS)

    @property
    def save_dir(self) -> str:
        """Where runs are."""
        return str(self._save_dir)

    @property
    def name(self) -> str:
        """The folder of the runs."""
        return RUNS

    @property
    def version(self) -> int:
        """The number of the run."""
        return self._version

    def log_metrics(self, *arguments: Any, **keywords: Any) -> None:  # noqa: ANN401 (Lightning's own signature)
        """Do nothing."""

    def log_hyperparams(self, *arguments: Any, **keywords: Any) -> None:  # noqa: ANN401 (Lightning's own signature)
        """Do nothing."""
