"""Follows a run back through the directories that it went on from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from caopd.run_directory import CONFIG, differences, read_config, run_of_checkpoint, run_settings, setting


@dataclass(frozen=True)
class History:
    """The directories in which a run was trained, in the order of time.

    Attributes:
        before: Those of other runs, with other settings, whose weights it began with.
        parts: Its own: the same settings, whose last is the directory that is followed back.
        lost: The checkpoint that the earliest of all began with, if its run is not there; None if there is none.
    """

    before: tuple[Path, ...]
    parts: tuple[Path, ...]
    lost: str | None

    @property
    def directories(self) -> tuple[Path, ...]:
        """All directories, in the order of time."""
        return (*self.before, *self.parts)


def config_of(directory: Path) -> dict[str, Any]:
    """Read the configuration of a run; empty where there is none, as of a run that a script began.

    Args:
        directory: The run directory.

    Raises:
        ConfigError: The file holds no settings.
    """
    path = directory / CONFIG
    return read_config(path) if path.is_file() else {}


def history(directory: Path) -> History:
    """Follow a run back: from the checkpoint that it began with to that checkpoint's run, and so on.

    Args:
        directory: The run directory.

    Raises:
        ConfigError: The ``config.yaml`` of one of the runs holds no settings.
    """
    config = config_of(directory)
    own, before, parts = run_settings(config), list[Path](), [directory]
    seen, earliest, lost = {directory.resolve()}, directory, None
    while isinstance(checkpoint := setting(config, "ckpt_path"), str):
        found = _run_of(checkpoint, earliest)
        if found is None or found.resolve() in seen:  # a run that is said to begin with itself is followed once
            lost = checkpoint if found is None else None
            break
        config, earliest = config_of(found), found
        seen.add(found.resolve())
        is_part = not before and not differences(run_settings(config), own)
        (parts if is_part else before).insert(0, found)
    return History(tuple(before), tuple(parts), lost)


def _run_of(checkpoint: str, later: Path) -> Path | None:
    """Return the directory of a checkpoint's run, also where it was moved together with the one that began with it."""
    try:
        recorded = run_of_checkpoint(Path(checkpoint))
        places = (recorded, later.parent / recorded.name)
        return next((place for place in places if (place / CONFIG).is_file()), None)
    except (OSError, ValueError):  # no path at all: too long, or with characters that none has
        return None


def newest_of_each(histories: Mapping[Path, History]) -> list[Path]:
    """Return the directories that are no earlier part of another one.

    Args:
        histories: Run directory -> its history.
    """
    earlier = {part.resolve() for each in histories.values() for part in each.parts[:-1]}
    return [directory for directory in histories if directory.resolve() not in earlier]
