"""What commands leave: files that appear together or not at all, and lines that say where they are and what is next."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from caopd.files import PART, disk_full
from caopd.texts import escaped


def tell(files: Iterable[tuple[str, Path]], then: Iterable[Sequence[str | Path]] = ()) -> None:
    """Print where files are and which commands can come next, each on a line of its own that can be copied.

    Args:
        files: What each is, in a word, and where; a path below the current folder is shown from there.
        then: The commands, as words.

    Example:
        >>> tell([("metrics", Path("runs/a/metrics.json"))], [["caopd", "report", Path("runs/a")], ["tensorboard"]])
        metrics: runs/a/metrics.json
        next:    caopd report runs/a
                 tensorboard
    """
    lines = [(f"{name}:", str(_from_here(path))) for name, path in files]
    for command in then:
        words = (str(_from_here(word)) if isinstance(word, Path) else word for word in command)
        lines.append(("" if lines and lines[-1][0] in ("next:", "") else "next:", shlex.join(words)))
    width = max((len(label) for label, _ in lines), default=0)
    sys.stdout.write("".join(f"{label:{width}} {escaped(text)}\n" for label, text in lines))


def _from_here(path: Path) -> Path:
    whole, here = Path(os.path.abspath(path)), Path.cwd()
    return whole.relative_to(here) if whole.is_relative_to(here) else whole


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
