"""Finds the checkpoint that a command line asks for, and checks it before anything is loaded."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.utilities import rank_zero_only
from torch.distributed.checkpoint.filesystem import FileSystemReader

from caopd.errors import CaopdError, ConfigError
from caopd.run_directory import CONFIG, run_of_checkpoint

SHARDED = (".metadata", "meta.pt")
"""Files, beside the shards, by which a sharded checkpoint is recognised."""


LAST = "last"
"""Value of ``ckpt_path`` that stands for the newest sound checkpoint of a run with the same settings."""
OF_LIGHTNING = ("hpc", "registry")
"""Values of ``ckpt_path`` that Lightning itself understands: SLURM's checkpoint, and Lightning's registry."""


class UnsoundCheckpointError(ConfigError, CaopdError):
    """A checkpoint that cannot be used.

    Args:
        path: The checkpoint.
        reason: Why it cannot be used.
        sound: The newest one of the same run that can; None if there is none.

    Attributes:
        reason: Why it cannot be used.
    """

    def __init__(self, path: Path, reason: str, sound: Path | None = None) -> None:
        remedy = (
            "Take another one; checkpoints are under `checkpoints/` of a run directory."
            if sound is None
            else f"The newest sound checkpoint of the same run is `--ckpt_path={sound}`."
        )
        super().__init__(
            f"Expected `ckpt_path` to be a checkpoint that `caopd fit` wrote, but {path} is none that can be used: "
            f"{reason}. {remedy}"
        )
        self.reason = reason


def newest_first(folders: Iterable[Path]) -> list[Path]:
    """Return all checkpoints in any run below the folders, that which was written last first.

    Args:
        folders: Folders that runs are kept in.
    """
    found = {path.resolve() for folder in folders if folder.is_dir() for path in folder.rglob("*.ckpt")}
    return sorted(found, key=_written, reverse=True)


def sound_checkpoints(folder: Path, training: bool = True) -> Iterator[tuple[Path, str | None]]:
    """Yield a run's checkpoints, newest first, each with the reason why it cannot be used; None for a sound one.

    A checkpoint is read whole when it is asked for, so take no more than are needed.

    Args:
        folder: The run directory, or any folder above it.
        training: Whether a run is to go on from them; if not, only their weights are used.
    """
    for path in newest_first([folder]):
        try:
            _check(path, training)
        except UnsoundCheckpointError as error:
            yield path, error.reason
        else:
            yield path, None


def check_given(path: str, training: bool) -> None:
    """Raise unless a setting of ``ckpt_path`` is a checkpoint that can be used; arguments as for check_checkpoint.

    Raises:
        ConfigError: There is no such file.
        UnsoundCheckpointError: It cannot be used.
    """
    if not (path and Path(path).exists()):
        raise ConfigError(
            f"Expected `ckpt_path` to be a checkpoint file, `{LAST}`, or one of {', '.join(OF_LIGHTNING)}, but there "
            f"is no file {path!r} in {Path.cwd()}. Checkpoints are under `checkpoints/` of a run directory."
        )
    check_checkpoint(Path(path), training)


def check_checkpoint(path: Path, training: bool) -> None:
    """Raise unless the checkpoint is complete and holds what is needed.

    Args:
        path: A file, or the folder of a sharded checkpoint.
        training: Whether a run is to go on from it; if not, only its weights are used.

    Raises:
        UnsoundCheckpointError: The checkpoint cannot be used; the message says why, and names the newest checkpoint of
            the same run that can.
    """
    try:
        _check(path, training)
    except UnsoundCheckpointError as error:
        run = run_of_checkpoint(path)
        # What is in no run directory may be in a folder with any number of files.
        others = sound_checkpoints(run, training) if (run / CONFIG).is_file() else ()
        sound = next((other for other, reason in others if reason is None), None)
        raise UnsoundCheckpointError(path, error.reason, sound) from error


def _written(path: Path) -> tuple[int, str]:
    """Return when a checkpoint was finished, and its name, for those of the same moment."""
    last = path / SHARDED[-1]
    return (last if last.is_file() else path).stat().st_mtime_ns, path.name


def _check(path: Path, training: bool) -> None:
    if path.is_dir():
        missing = [name for name in SHARDED if not (path / name).is_file()]
        if missing:
            raise _error(path, f"it is a folder without {' and '.join(missing)}, so no whole sharded checkpoint")
        _check_shards(path)
        return
    content = _contents(path)
    missing = [key for key in ("state_dict", "pytorch-lightning_version") if key not in content]
    if missing:
        raise _error(path, f"it was not written by Lightning: it lacks {' and '.join(missing)}")
    if training and "optimizer_states" not in content:
        raise _error(path, "it holds weights alone (`save_weights_only`), from which no run can go on")


def check_sharding(path: Path, trainer: Trainer) -> None:
    """Raise if the checkpoint is sharded and the trainer's strategy cannot load such a one.

    Args:
        path: Folder of the checkpoint.
        trainer: The trainer that is to load it.

    Raises:
        ConfigError: The strategy cannot load it; the message names one that can.
    """
    if path.is_dir() and not isinstance(trainer.strategy, ModelParallelStrategy):
        raise ConfigError(
            f"Expected `trainer.strategy` to be ModelParallelStrategy, since {path} is a sharded checkpoint, but got "
            f"{type(trainer.strategy).__name__}: set it, on any number of devices, or write whole checkpoints with its "
            "`save_distributed_checkpoint: false`."
        )


def _check_shards(path: Path) -> None:
    """Raise unless every file of a sharded checkpoint is as long as its metadata says."""
    try:
        stored = FileSystemReader(path).read_metadata().storage_data.values()
    except (EOFError, OSError, UnpicklingError, ValueError) as error:
        raise _error(path, f"its {SHARDED[0]} is cut or damaged ({str(error)[:300]})") from error
    for part in stored:
        shard = path / part.relative_path
        if not shard.is_file() or shard.stat().st_size < part.offset + part.length:
            raise _error(path, f"its {shard.name} is missing or cut")


def _contents(path: Path) -> dict[str, Any]:
    """Read the checkpoint without the data of its tensors, which are only checked against their checksums."""
    if path.stat().st_size == 0:
        raise _error(path, "it is empty")
    try:
        with zipfile.ZipFile(path) as archive:
            is_first = rank_zero_only.rank == 0  # type: ignore[attr-defined]
            damaged = archive.testzip() if is_first else None  # this reads the whole file, which may be large
        if damaged is not None:
            raise _error(path, f"it is damaged at {damaged}")
        content = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except zipfile.BadZipFile as error:
        raise _error(path, f"it is cut or damaged, or another kind of file ({error})") from error
    except UnpicklingError as error:
        raise _error(path, f"it holds more than plain data, and could run code ({str(error)[:300]})") from error
    except (RuntimeError, EOFError) as error:
        raise _error(path, f"it is damaged ({str(error)[:300]})") from error
    if not isinstance(content, dict):
        raise _error(path, f"it holds a {type(content).__name__}")
    return content


def _error(path: Path, reason: str) -> UnsoundCheckpointError:
    return UnsoundCheckpointError(path, reason)
