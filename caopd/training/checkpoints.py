"""Finds the checkpoint that a command line asks for, and checks it before anything is loaded."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NoReturn

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.utilities import rank_zero_only

from caopd.errors import ConfigError
from caopd.training.shards import SHARDED, check_shards


def newest_checkpoint(folders: Iterable[Path]) -> Path | None:
    """Return the checkpoint that was written last, in any run below the folders; None if there is none.

    Args:
        folders: Folders that runs are kept in.
    """
    found = {path.resolve() for folder in folders if folder.is_dir() for path in folder.rglob("*.ckpt")}
    return max(found, key=lambda path: (path.stat().st_mtime_ns, path.name), default=None)


def run_folders(trainer: Trainer) -> list[Path]:
    """Return the folders below which the trainer's loggers and checkpoints keep its runs.

    Args:
        trainer: A trainer that is not running yet.
    """
    given = [callback.dirpath for callback in trainer.checkpoint_callbacks if isinstance(callback, ModelCheckpoint)]
    roots = [trainer.default_root_dir, *(logger.save_dir for logger in trainer.loggers), *given]
    return [Path(root) for root in roots if root]


def check_checkpoint(path: Path, training: bool) -> None:
    """Raise unless the checkpoint is complete and holds what is needed.

    Args:
        path: A file, or the folder of a sharded checkpoint.
        training: Whether a run is to go on from it; if not, only its weights are used.

    Raises:
        ConfigError: The checkpoint cannot be used; the message says why.
    """
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
    """Raise unless the files of a sharded checkpoint are whole, and plain data."""
    try:
        check_shards(path)
    except ValueError as error:
        raise _error(path, str(error)) from error


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


def _error(path: Path, what: str) -> ConfigError:
    return ConfigError(
        f"Expected `ckpt_path` to be a checkpoint that `caopd fit` wrote, but {path} is none that can be used: {what}. "
        "Take another one; checkpoints are under `checkpoints/` of a run directory."
    )
