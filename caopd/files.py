"""Writes files so that a name holds a whole file or none: beside their place first, then renamed."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from caopd.errors import DiskFullError

PART = ".part"
"""End of the name of a file that is being written."""
_FULL = {
    errno.ENOSPC: "the file system has no space left",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would be larger than its file system or the limit of the shell (`ulimit -f`) allows",
}


@contextmanager
def written(path: Path) -> Iterator[IO[bytes]]:
    """Yield a file that takes its place under the path when the ``with`` block ends, and vanishes after an error.

    It is ``NAME.part`` until then, in the same folder, where renaming is one step on any file system; and its content
    has reached the disk before it is renamed. A kill or a full disk leaves what the name held before. What is no
    regular file, such as ``/dev/stdout`` or a link, is written to directly.

    Args:
        path: The file; missing folders are made.

    Raises:
        DiskFullError: There is no room for the file.
        OSError: The file cannot be written for another reason.
    """
    is_special = path.is_symlink() or (path.exists() and not path.is_file())
    part = path if is_special else path.with_name(path.name + PART)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            yield file
            if not is_special:
                file.flush()
                os.fsync(file.fileno())
        if not is_special:
            part.replace(path)
            _settle(path.parent)
    except BaseException as error:
        if not is_special:
            part.unlink(missing_ok=True)
        full = disk_full(error, path)
        if full is not None:
            raise full from error
        raise


def write_text(path: Path, text: str) -> None:
    r"""Write a file in UTF-8; what UTF-8 does not have becomes ``\udce9``, which JSON reads back as it was.

    Args:
        path: The file, as in :func:`written`.
        text: Any text.
    """
    with written(path) as file:
        file.write(text.encode("utf-8", "backslashreplace"))


def remove_unfinished(directory: Path) -> None:
    """Remove what a killed process was writing.

    Args:
        directory: A run directory, in which nobody else writes; it and the folders right within it are looked through.
    """
    for part in (*directory.glob(f"*{PART}"), *directory.glob(f"*/*{PART}")):
        if part.is_dir():
            shutil.rmtree(part)
        else:
            part.unlink(missing_ok=True)


def disk_full(error: BaseException, path: Path | str | None) -> DiskFullError | None:
    """Return the error that says what is full and what to do, if that is behind an exception; None if it is not.

    Args:
        error: Any exception. Libraries raise others than the one that the system gave them, with it as their cause.
        path: The file that was written; None if it is not known.
    """
    behind: BaseException | None = error
    while behind is not None:
        if isinstance(behind, OSError) and behind.errno in _FULL:
            what = path or behind.filename or "a file, such as a log's,"
            return DiskFullError(
                f"Expected room for {what}, but {_FULL[behind.errno]}. Nothing of it was "
                "kept, and what was finished before is as it was, checkpoints among it. Make room, or name another "
                "folder; a run goes on from its last checkpoint (`--ckpt_path`)."
            )
        behind = behind.__cause__ or behind.__context__
    return None


@contextmanager
def full_disks_told_once() -> Iterator[None]:
    """Within the body, let no thread print the traceback of a full disk: who waits for the thread raises it again.

    TensorBoard writes in a thread of its own, and raises in the main thread what that one met.
    """
    before = threading.excepthook

    def unless_full(arguments: threading.ExceptHookArgs) -> None:
        if arguments.exc_value is None or disk_full(arguments.exc_value, None) is None:
            before(arguments)

    threading.excepthook = unless_full
    try:
        yield
    finally:
        threading.excepthook = before


def _settle(folder: Path) -> None:
    """Let a renaming reach the disk, where the file system can be told to."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
