"""Keeps a second process from going on with a run that is still running."""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path
from typing import IO

from caopd.errors import ConfigError

_FILE = ".lock"


class RunLock:
    """A lock on a run directory. It ends with its process, however that happens."""

    def __init__(self) -> None:
        self._file: IO[str] | None = None

    def acquire(self, directory: Path) -> None:
        """Lock the directory, unless this object has locked it; where the file system has no locks, do nothing.

        Args:
            directory: The run directory.

        Raises:
            ConfigError: Another process has locked it; the message says which.
        """
        if self._file is not None:
            return
        directory.mkdir(parents=True, exist_ok=True)
        file = (directory / _FILE).open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            owner = file.read().strip() or "unknown"
            file.close()
            raise ConfigError(
                f"Expected no other process to be training in {directory}, but there is one ({owner}): wait for its "
                "end or end it, or start a run of its own without `ckpt_path`."
            ) from error
        except OSError:  # the file system has no locks
            file.close()
            return
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        self._file = file

    def release(self) -> None:
        """Give the lock up, and remove its file."""
        if self._file is not None:
            Path(self._file.name).unlink(missing_ok=True)
            self._file.close()
            self._file = None
