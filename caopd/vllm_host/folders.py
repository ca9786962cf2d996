"""Folders of a run in shared places, of which none stays for long: what a killed run has left, the next one removes.

Only the standard library is imported: the process that cleans up after a killed run is small, and starts at once.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

_LOCK = "owner.lock"
PRIVATE, FOR_GROUP = 0o700, 0o2750
"""Modes of folders: for this user alone, or readable by a group, which files in the folder inherit."""


class OwnedFolder:
    """A new folder, on which this process holds a lock until it removes it or ends, however that happens.

    Nobody but this user can read it. Where the folder above it passes its group on (its setgid bit is set), that group
    can read it, too. The process's umask does not matter.

    Args:
        parent: Where the folder is made.
        kind: Part of its name.

    Attributes:
        path: The folder.
    """

    def __init__(self, parent: str, kind: str) -> None:
        passes_on = Path(parent).stat().st_mode & stat.S_ISGID
        self._mode = FOR_GROUP if passes_on else PRIVATE
        self._lock: int | None = None
        while True:
            self.path = Path(tempfile.mkdtemp(prefix=f"{_prefix()}{kind}-", dir=parent))
            try:
                self.path.chmod(self._mode)
                self._lock = _lock(self.path, fcntl.LOCK_EX)
            except FileNotFoundError:  # another run took the new folder for one that was left
                continue
            except OSError:  # this file system has no locks: nobody removes the folder in our absence
                pass
            return

    def protect(self, file: Path) -> None:
        """Let the same users read a file in the folder as the folder itself.

        Args:
            file: Its path.
        """
        file.chmod(self._mode & 0o640)

    def remove(self) -> None:
        """Remove the folder. Never raises."""
        _remove(self.path, self._lock)
        self._lock = None


def clear_dead(*parents: str) -> int:
    """Remove the folders of this user whose owners have ended on this machine without removing them.

    Args:
        parents: Where to look; the folders of other machines, which may share the file system, are left alone.

    Returns:
        The number of folders that stay, because somebody holds their lock.
    """
    num_held = 0
    for folder in {folder for parent in parents for folder in Path(parent).glob(f"{_prefix()}*")}:
        try:
            found = folder.lstat()
            if stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid():
                _remove(folder, _lock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB))
        except FileNotFoundError:  # somebody else has removed it
            continue
        except OSError:
            num_held += 1
    return num_held


def _prefix() -> str:
    return f"caopd-{socket.gethostname()}_"


def _lock(folder: Path, operation: int) -> int:
    """Return an open file that holds a folder's lock.

    Raises:
        FileNotFoundError: The folder was removed meanwhile.
        BlockingIOError: Another process holds the lock, and the operation is not to wait.
        OSError: The file system has no locks.
    """
    lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, operation)
        if os.fstat(lock).st_nlink == 0:
            raise FileNotFoundError(folder)
    except OSError:
        os.close(lock)
        raise
    return lock


def _remove(folder: Path, lock: int | None) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    if lock is not None:
        os.close(lock)
    with suppress(OSError):  # on NFS an open file, such as the lock, keeps its folder
        folder.rmdir()
