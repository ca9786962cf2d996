"""Finds the run that ``ckpt_path`` stands for: for ``last`` the same settings, and the newest sound checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn

from caopd.errors import ConfigError
from caopd.models.shards import META
from caopd.run_directory import CONFIG, differences, read_config, run_of_checkpoint, run_settings
from caopd.texts import escaped_lines
from caopd.training.checkpoints import UnsoundCheckpointError, check_checkpoint, newest_first

RUN = "caopd_run"
"""Key of a checkpoint under which it says whose it is."""
_MAX_NAMED = 4


@dataclass(frozen=True)
class ContinuedRun:
    """A run that goes on, or is judged.

    Attributes:
        checkpoint: The checkpoint that it goes on from; None where it ended before the first, and begins anew.
        directory: The run directory, in which it goes on.
        step: Number of optimizer steps of the checkpoint.
        versions: What each of its loggers called it.
    """

    checkpoint: Path | None
    directory: Path
    step: int
    versions: Sequence[str | int | None]


def run_record(directory: Path, settings: Mapping[str, Any], versions: Sequence[str | int | None]) -> dict[str, Any]:
    """Return what a checkpoint says of its run.

    Args:
        directory: The run directory.
        settings: The settings that make it this run.
        versions: What each of its loggers calls it.
    """
    return {"directory": str(directory.absolute()), "settings": dict(settings), "versions": list(versions)}


def run_folders(trainer: Mapping[str, Any]) -> list[Path]:
    """Return the folders below which loggers and checkpoints keep their runs.

    Args:
        trainer: Settings of the trainer, as plain data.
    """
    loggers, callbacks = (_arguments(trainer.get(key)) for key in ("logger", "callbacks"))
    given = [*(each.get("save_dir") for each in loggers), *(each.get("dirpath") for each in callbacks)]
    return [Path(folder) for folder in dict.fromkeys([trainer.get("default_root_dir") or ".", *filter(None, given)])]


def _arguments(classes: Any) -> list[Mapping[str, Any]]:  # noqa: ANN401 (one of many shapes of a setting)
    """Return the constructor's arguments of every class that a setting names."""
    every = classes if isinstance(classes, list) else [classes]
    return [each.get("init_args") or {} for each in every if isinstance(each, Mapping)]


def find_run(folders: Sequence[Path], settings: Mapping[str, Any]) -> ContinuedRun | None:
    """Return the run with these settings whose sound checkpoint is the newest; None if there is no such run.

    Args:
        folders: Folders below which runs and checkpoints are kept.
        settings: The settings that make a run this one.

    Raises:
        ConfigError: There are checkpoints, but all are damaged or of other runs; the message names how they differ.
    """
    damaged: list[ConfigError] = []
    others: list[tuple[Path, dict[str, tuple[Any, Any]] | None]] = []
    for path in newest_first(folders):
        try:
            content = _content(path)
            record = _record(path, content)
            differ = None if record is None else differences(record["settings"], settings)
            if record is None or differ:
                others.append((path, differ))
                continue
            check_checkpoint(path, training=True, everywhere=True)
            directory = _directory_of(path, record, folders)
            if directory is None:
                raise UnsoundCheckpointError(path, f"the directory of its run, {record['directory']}, is none of these")
        except ConfigError as error:
            damaged.append(error)
            continue
        for each in damaged:
            rank_zero_warn(escaped_lines(f"A newer checkpoint is left out. {each}"))
        return ContinuedRun(path, directory, int(content["global_step"]), record["versions"])
    if damaged:
        raise ConfigError(f"{damaged[0]} There is no sound one of this run: remove what is damaged to start anew.")
    if others:
        raise _other_run(*others[0])
    return _begun(folders, settings)


def _begun(folders: Iterable[Path], settings: Mapping[str, Any]) -> ContinuedRun | None:
    """Return the run with these settings that was begun last and has no checkpoint; None if there is none."""
    files = {file.resolve() for folder in folders if folder.is_dir() for file in folder.rglob(CONFIG)}
    for file in sorted(files, key=lambda file: file.stat().st_mtime_ns, reverse=True):
        with suppress(ConfigError, OSError):  # it is of another program, such as W&B's
            if not differences(run_settings(read_config(file)), settings):
                return ContinuedRun(None, file.parent, 0, [])
    return None


def judged_run(checkpoint: Path, folders: Sequence[Path]) -> ContinuedRun | None:
    """Return the run that a checkpoint is of; None where its directory is not known, as for one that a script wrote.

    Args:
        checkpoint: A sound checkpoint.
        folders: Folders below which the run's directory must be, if it is not around the checkpoint.
    """
    content = _content(checkpoint)
    record = _record(checkpoint, content)
    directory = None if record is None else _directory_of(checkpoint, record, folders)
    if record is None or directory is None or not (directory / CONFIG).is_file():
        return None
    return ContinuedRun(checkpoint, directory, int(content["global_step"]), record["versions"])


def begun_from(run: ContinuedRun) -> str | None:
    """Return the checkpoint of an earlier run that the run began with, None if it began with none."""
    config = run.directory / CONFIG
    return read_config(config).get("ckpt_path") if config.is_file() else None


def step_of(checkpoint: Path) -> int:
    """Return the number of optimizer steps that a checkpoint's weights have had."""
    return int(_content(checkpoint)["global_step"])


def newest_sound(folders: Iterable[Path]) -> Path:
    """Return the newest checkpoint of any run below the folders that is sound, with a warning of those that are not.

    Args:
        folders: Folders below which runs and checkpoints are kept.

    Raises:
        ConfigError: There is none.
    """
    every, damaged = list(folders), ""
    for path in newest_first(every):
        try:
            check_checkpoint(path, training=False, everywhere=True)
        except ConfigError as error:
            damaged = damaged or f" {error}"
            continue
        if damaged:
            rank_zero_warn(escaped_lines(f"A newer checkpoint is left out.{damaged}"))
        return path
    raise ConfigError(
        f"Expected `ckpt_path=last` to find a checkpoint below {', '.join(map(str, every))}, but there is none that "
        f"can be used: give its file, or `trainer.default_root_dir` of the run.{damaged}"
    )


def _content(path: Path) -> dict[str, Any]:
    """Read a checkpoint without the data of its tensors.

    Raises:
        ConfigError: It cannot be read; the message says why.
    """
    file = path / META if path.is_dir() else path
    try:
        content = torch.load(file, map_location="cpu", mmap=True, weights_only=True)
    except Exception:  # whatever a damaged file makes of its reader: the check says what it is
        check_checkpoint(path, training=True)
        raise
    return content if isinstance(content, dict) else {}


def _record(path: Path, content: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return what a checkpoint says of its run, None if it says nothing.

    Versions become names of folders, so each must be one name: a path would lead the loggers elsewhere.

    Raises:
        UnsoundCheckpointError: It is not what :func:`run_record` returns.
    """
    record = content.get(RUN)
    if record is None:
        return None
    kinds = {"directory": str, "settings": dict, "versions": list}
    if not isinstance(record, dict) or any(not isinstance(record.get(key), kind) for key, kind in kinds.items()):
        raise UnsoundCheckpointError(path, f"what it says of its run, {RUN}, is damaged")
    for version in record["versions"]:
        is_name = isinstance(version, str) and version not in ("", "..") and Path(version).name == version
        if not (version is None or isinstance(version, int) or is_name):
            raise UnsoundCheckpointError(path, f"it gives its run the name {version!r}, which is none of a folder")
    if not isinstance(content.get("global_step"), int):
        raise UnsoundCheckpointError(path, f"its number of steps is {content.get('global_step')!r}")
    return record


def _directory_of(checkpoint: Path, record: Mapping[str, Any], folders: Sequence[Path]) -> Path | None:
    """Return the run directory: the one around the checkpoint, wherever it was moved, or else the one recorded.

    It is None where the recorded one is below none of the folders: a checkpoint does not choose where one writes.
    """
    around, recorded = run_of_checkpoint(checkpoint), Path(record["directory"])
    if (around / CONFIG).is_file():
        return around
    is_below = any(recorded.resolve().is_relative_to(folder.resolve()) for folder in folders)
    return recorded if is_below else None


def _other_run(path: Path, differ: Mapping[str, tuple[Any, Any]] | None) -> ConfigError:
    if differ is None:
        said = "does not say which run it is of"
    else:
        named = [f"{name} {before!r} (now {now!r})" for name, (before, now) in list(differ.items())[:_MAX_NAMED]]
        more = f" and {len(differ) - _MAX_NAMED} more" if len(differ) > _MAX_NAMED else ""
        said = f"is of a run with {', '.join(named)}{more}"
    return ConfigError(
        f"Expected `ckpt_path=last` to find a checkpoint of this run, but the newest one there, {path}, {said}. Set "
        f"its settings to go on with that run; `--ckpt_path={path}` to begin a new run from it; or another "
        "`trainer.default_root_dir`, or no `ckpt_path`, to start from the beginning."
    )
