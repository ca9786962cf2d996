"""Writes several files so that they appear together or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from caopd.files import PART, disk_full


@contextmanager
def together(directory: Path) -> Iterator[Path]:
    """Yield an empty folder; its files move into the directory when the ``with`` block ends, and none after an error.

    Args:
        directory: Where the files go; it is made if it is missing. Files of the same names are replaced, others stay.

    Raises:
        DiskFullError: There is no room for the files.
        OSError: A folder cannot be made, or a file cannot be moved.
    """
    is_new = not directory.exists()
    beside = directory.parent if is_new else directory  # on the same file system, where moving is renaming
    made = beside / f".{directory.resolve().name}{PART}"
    try:
        if made.exists():
            shutil.rmtree(made)  # of a process that was killed
        made.mkdir(parents=True)
        yield made
        if is_new:
            made.rename(directory)
        else:
            _move_into(made, directory)
    except Exception as error:
        full = disk_full(error, directory)
        if full is not None:
            raise full from error
        raise
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _move_into(made: Path, directory: Path) -> None:
    for file in sorted(path for path in made.rglob("*") if path.is_file()):
        target = directory / file.relative_to(made)
        target.parent.mkdir(parents=True, exist_ok=True)
        file.replace(target)
