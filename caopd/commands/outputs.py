"""Writes several files so that they appear together or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory


@contextmanager
def together(directory: Path) -> Iterator[Path]:
    """Yield an empty folder; its files move into the directory when the ``with`` block ends, and none after an error.

    Args:
        directory: Where the files go; it is made if it is missing. Files of the same names are replaced, others stay.

    Raises:
        OSError: A folder cannot be made, or a file cannot be moved.
    """
    is_new = not directory.exists()
    beside = directory.parent if is_new else directory  # on the same file system, where moving is renaming
    beside.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".unfinished-", dir=beside) as folder:
        made = Path(folder, "files")
        made.mkdir()
        yield made
        if is_new:
            made.rename(directory)
        else:
            _move_into(made, directory)


def _move_into(made: Path, directory: Path) -> None:
    for file in sorted(path for path in made.rglob("*") if path.is_file()):
        target = directory / file.relative_to(made)
        target.parent.mkdir(parents=True, exist_ok=True)
        file.replace(target)
