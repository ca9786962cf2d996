"""Finds the checkpoint that a command line asks for, and checks it before anything is loaded."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from os.path import normpath
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NoReturn

import torch
from lightning import Trainer
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.utilities import rank_zero_only

from caopd.errors import CaopdError, ConfigError
from caopd.models.shards import META, SHARDED, check_shards
from caopd.run_directory import CONFIG, run_of_checkpoint
from caopd.training.checkpoint_io import AtomicCheckpointIO
from caopd.training.sharded import check_chunks, check_sums, damaged_entry

PACKAGE, FORMAT = "caopd", 2
"""Key in a checkpoint of what belongs to this package as a whole, and the version of its content, ``format``.

The version rises when a reader of the version before could not go on from such a checkpoint as before.
"""


_NAMED_FILES = ("best_model_path", "last_model_path", "kth_best_model_path")
"""Files that Lightning's ``ModelCheckpoint`` restores, and deletes when others take their place."""
LAST = "last"
"""Value of ``ckpt_path`` that stands for the newest sound checkpoint of a run with the same settings."""


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


def check_format(path: Path, content: Mapping[str, Any]) -> None:
    """Raise unless this version of the package reads what it has written into a checkpoint.

    Args:
        path: The checkpoint, for the error.
        content: Its content.

    Raises:
        UnsoundCheckpointError: It has no format, an older or a newer one.
    """
    found = content.get(PACKAGE)
    version = found.get("format") if isinstance(found, dict) else None
    if version is None:
        raise _error(path, "it has no format: another program wrote it, or caopd before formats were numbered")
    if version != FORMAT:
        wrote = "an older" if isinstance(version, int) and version < FORMAT else "a newer"
        raise _error(
            path,
            f"it is of format {version!r}, and this version of caopd reads format {FORMAT}: {wrote} version wrote it, "
            "with which it can be read",
        )


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
            f"Expected `ckpt_path` to be a checkpoint file or `{LAST}`, but there is no file {path!r} in {Path.cwd()}. "
            "Checkpoints are under `checkpoints/` of a run directory; the last lines of a fit name its best."
        )
    check_checkpoint(Path(path), training)


def check_none_is_taken(root: Path) -> None:
    """Raise if Lightning would go on, under SLURM and without being asked to, from a checkpoint of another run.

    Args:
        root: The trainer's ``default_root_dir``.

    Raises:
        ConfigError: There is such a checkpoint.
    """
    found = sorted(root.glob("hpc_ckpt_*.ckpt"))
    if found:
        raise ConfigError(
            f"Expected no checkpoint of another run in {root}, but Lightning would go on from {found[-1]} under SLURM: "
            f"`--ckpt_path={found[-1]}` does so on purpose; else move it, or set another `trainer.default_root_dir`."
        )


def check_checkpoint(path: Path, training: bool, everywhere: bool = False) -> None:
    """Raise unless the checkpoint is complete and holds what is needed.

    Args:
        path: A file, or the folder of a sharded checkpoint.
        training: Whether a run is to go on from it; if not, only its weights are used.
        everywhere: Whether every process reads all of it, and not process 0 alone: where another one is taken in its
            place, all must find the same.

    Raises:
        UnsoundCheckpointError: The checkpoint cannot be used; the message says why, and names the newest checkpoint of
            the same run that can.
    """
    try:
        _check(path, training, everywhere)
    except UnsoundCheckpointError as error:
        others = _of_same_run(path, training)
        sound = next((other for other, reason in others if reason is None), None)
        raise UnsoundCheckpointError(path, error.reason, sound) from None  # the inner one says less


def newest_of_a_rounds_end(checkpoint: Path) -> Path | None:
    """Return the newest sound checkpoint of the same run that needs no rollouts; None if there is none.

    Args:
        checkpoint: One of the run's checkpoints.
    """
    for path, reason in _of_same_run(checkpoint, training=True):
        if reason is None and not _is_within_a_round(path):
            return path
    return None


def _is_within_a_round(path: Path) -> bool:
    content = torch.load(path / META if path.is_dir() else path, map_location="cpu", mmap=True, weights_only=True)
    rounds = [value.get("round") for key, value in content.items() if key.endswith("DataModule")]
    return any(each is not None and each["num_batches_done"] < each["num_batches"] for each in rounds)


def _of_same_run(checkpoint: Path, training: bool) -> Iterable[tuple[Path, str | None]]:
    """Yield as :func:`sound_checkpoints` does, in run directories alone: other folders may hold any number of files."""
    run = run_of_checkpoint(checkpoint)
    return sound_checkpoints(run, training) if (run / CONFIG).is_file() else ()


def _written(path: Path) -> tuple[int, str]:
    """Return when a checkpoint was finished, and its name, for those of the same moment."""
    last = path / META
    return (last if last.is_file() else path).stat().st_mtime_ns, path.name


def _check(path: Path, training: bool, everywhere: bool = False) -> None:
    whole = everywhere or rank_zero_only.rank == 0  # type: ignore[attr-defined]
    if path.is_dir():
        missing = [name for name in SHARDED if not (path / name).is_file()]
        if missing:
            raise _error(path, f"it is a folder without {' and '.join(missing)}, so no whole sharded checkpoint")
        try:
            check_sums(path)  # before anything is unpickled
            _check_shards(path)
            if whole:
                check_chunks(path)
        except UnsoundCheckpointError:
            raise
        except ValueError as error:
            raise _error(path, str(error)) from error
        _check_content(path, _contents(path / META, path, whole), training, ())
        return
    _check_content(path, _contents(path, path, whole), training, ("state_dict",))


def _check_content(path: Path, content: Mapping[str, Any], training: bool, keys: Iterable[str]) -> None:
    missing = [key for key in (*keys, "pytorch-lightning_version") if key not in content]
    if missing:
        raise _error(path, f"it was not written by Lightning: it lacks {' and '.join(missing)}")
    check_format(path, content)
    if training and "lr_schedulers" not in content:
        raise _error(path, "it holds weights alone (`save_weights_only`), from which no run can go on")
    if training:
        _check_files(path, content)


def _check_files(path: Path, content: Mapping[str, Any]) -> None:
    """Raise if a callback would take a file outside its folder for one of its checkpoints: it would delete it."""
    for state in content.get("callbacks", {}).values():
        if not (isinstance(state, dict) and "best_k_models" in state):
            continue
        named = [*state["best_k_models"], *(state.get(key) for key in _NAMED_FILES)]
        folder = normpath(str(state.get("dirpath")))
        outside = [file for file in named if file and not Path(normpath(file)).is_relative_to(folder)]
        if outside:
            raise _error(path, f"it names {str(outside[0])!r} as a checkpoint of {state.get('dirpath')!r}")


def refuse_settings(*_: object, **__: object) -> NoReturn:
    """Stand in for Lightning's ``load_from_checkpoint``, which lets a file choose classes and their arguments.

    Raises:
        ConfigError: Always; the message says how to load a checkpoint.
    """
    raise ConfigError(
        "Expected modules to be made by their constructors, but got `load_from_checkpoint`, which would take their "
        "arguments, and code, from a file. Make them as the run's config does, and give `ckpt_path` to the Trainer's "
        "`fit`, `validate`, `test` or `predict`; or write a model with `caopd export`."
    )


def check_sharding(path: Path, trainer: Trainer) -> None:
    """Raise if the checkpoint is sharded and the trainer cannot load such a one.

    Args:
        path: Folder of the checkpoint.
        trainer: The trainer that is to load it.

    Raises:
        ConfigError: It has a way of its own to read checkpoints.
    """
    strategy = trainer.strategy
    reads_shards = isinstance(strategy, ModelParallelStrategy) or isinstance(strategy.checkpoint_io, AtomicCheckpointIO)
    if path.is_dir() and not reads_shards:
        raise ConfigError(
            f"Expected no CheckpointIO in `trainer.plugins`, since {path} is a sharded checkpoint, but got "
            f"{type(strategy.checkpoint_io).__name__}: remove it, or set `trainer.strategy` to "
            "caopd.training.sharded.AtomicModelParallelStrategy. In a script, give "
            "`caopd.training.checkpoint_io.AtomicCheckpointIO()` to the Trainer as a plugin."
        )


def _check_shards(path: Path) -> None:
    """Raise unless the files of a sharded checkpoint are whole, and plain data."""
    try:
        check_shards(path)
    except ValueError as error:
        raise _error(path, str(error)) from error


def _contents(file: Path, path: Path, whole: bool) -> dict[str, Any]:
    """Read a file without the data of its tensors, which are only checked against their checksums.

    Args:
        file: The file.
        path: The checkpoint that it is, or belongs to, for the error.
        whole: Whether to check the data of the tensors, for which all of the file is read.
    """
    if file.stat().st_size == 0:
        raise _error(path, "it is empty")
    try:
        if whole:
            damaged = _damaged(file, file.stat().st_mtime_ns)
            if damaged is not None:
                raise _error(path, f"it is damaged at {damaged}")
        content = torch.load(file, map_location="cpu", mmap=True, weights_only=True)
    except zipfile.BadZipFile as error:
        raise _error(path, f"it is cut or damaged, or another kind of file ({error})") from error
    except UnpicklingError as error:
        raise _error(path, f"it holds more than plain data, and could run code ({str(error)[:300]})") from error
    except (RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        if isinstance(error, CaopdError):
            raise
        raise _error(path, f"it is damaged ({str(error)[:300]})") from error
    if not isinstance(content, dict):
        raise _error(path, f"it holds a {type(content).__name__}")
    return content


@lru_cache
def _damaged(file: Path, written_at: int) -> str | None:
    return damaged_entry(file)


def _error(path: Path, reason: str) -> UnsoundCheckpointError:
    return UnsoundCheckpointError(path, reason)
