"""Checkpoints of sharded models that a kill leaves whole, and in which a flipped bit is found."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
import zlib
from hashlib import sha256
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from jsonargparse import Namespace
from lightning import Trainer
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.fabric.strategies.model_parallel import _load_raw_module_state
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import ModelParallelStrategy
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.fsdp import FullyShardedDataParallel, OptimStateKeyType
from torch.optim import Optimizer

from caopd.distributed import on_first_process
from caopd.errors import ConfigError
from caopd.files import PART, disk_full, write_text
from caopd.models.shards import META, METADATA
from caopd.training.checkpoint_io import AtomicCheckpointIO
from caopd.training.whole import write_whole

CHECKSUMS = "checksums.json"
"""The SHA-256 of these two: file -> hexadecimal digits. What is in the shards has checksums of its own."""


class AtomicModelParallelStrategy(ModelParallelStrategy):
    """Lightning's strategy, whose checkpoints appear whole or not at all, and are written piece by piece.

    Lightning writes shards into the folder of the checkpoint that had the name before, such as ``last.ckpt``: a kill
    leaves a folder that looks complete, with shards of two moments. Here a new folder, ``NAME.ckpt.part``, is written
    and renamed. For one file (``save_distributed_checkpoint: false``) Lightning makes both models and the optimizer's
    state whole in process 0; here one weight is whole at a time. Arguments are Lightning's.
    """

    def setup(self, trainer: Trainer) -> None:
        """Refuse a way of writing checkpoints that would not be used.

        Raises:
            ConfigError: The trainer has a ``CheckpointIO`` of its own.
        """
        if type(self.checkpoint_io) not in (TorchCheckpointIO, AtomicCheckpointIO):
            raise ConfigError(
                f"Expected no CheckpointIO beside {type(self).__name__}, which writes checkpoints itself, but got "
                f"{type(self.checkpoint_io).__name__}: remove it from `trainer.plugins`, or take Lightning's "
                "ModelParallelStrategy."
            )
        super().setup(trainer)

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Return the weights as they are: this process's shards."""
        assert self.model is not None
        return get_model_state_dict(self.model)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Return the optimizer's state as it is, in shards; for one file by the numbers of the weights.

        Args:
            optimizer: One of the trainer's.
        """
        inner = optimizer._optimizer if isinstance(optimizer, LightningOptimizer) else optimizer
        assert self.model is not None
        state = get_optimizer_state_dict(self.model, inner)
        if not self._save_distributed_checkpoint:
            state = FullyShardedDataParallel.rekey_optim_state_dict(state, OptimStateKeyType.PARAM_ID, self.model)
        return state

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        filepath: str | Path,
        storage_options: Any | None = None,  # noqa: ANN401 (Lightning's own signature)
    ) -> None:
        """Write the folder, or the file where ``save_distributed_checkpoint`` is off; a collective operation.

        Args:
            checkpoint: What is written, with this process's shards.
            filepath: Where.
            storage_options: Not supported.

        Raises:
            DiskFullError: There is no room for the file, or the shards of a process; the checkpoint that had the name
                is as it was.
        """
        path = Path(self.broadcast(filepath))
        if not self._save_distributed_checkpoint:
            on_first_process(lambda: move_aside(path) if path.is_dir() else None)
            write_whole(checkpoint, path)
            on_first_process(lambda: _remove(_aside(path)))
            return
        part = path.with_name(path.name + PART)
        on_first_process(lambda: shutil.rmtree(part, ignore_errors=True))
        try:
            super().save_checkpoint(checkpoint, part, storage_options)
        except CheckpointException as error:  # raised in every process
            on_first_process(lambda: shutil.rmtree(part, ignore_errors=True))
            full = next(filter(None, (disk_full(failure, path) for failure, _ in error.failures.values())), None)
            if full is not None:
                raise full from error
            raise
        on_first_process(lambda: put_in_place(part, path))

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """Load a folder or a file into the shards; a collective operation.

        Lightning takes the numbers of an optimizer's weights, in a file, for their order in the model. It is that in
        the optimizer's groups.

        Args:
            checkpoint_path: The checkpoint.
            weights_only: As in Lightning.
        """
        path = Path(self.broadcast(checkpoint_path))
        if path.is_dir():
            return super().load_checkpoint(path, weights_only)
        assert self.model is not None
        content: dict[str, Any] = torch.load(path, mmap=True, map_location="cpu", weights_only=weights_only)
        _load_raw_module_state(content.pop("state_dict"), self.model)
        names = {id(weight): name for name, weight in self.model.named_parameters()}
        options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
        for optimizer, state in zip(self.optimizers, content.get("optimizer_states", ()), strict=False):
            own = [names[id(weight)] for group in optimizer.param_groups for weight in group["params"]]
            set_optimizer_state_dict(self.model, optimizer, _named(state, own), options=options)
        return content


def _named(state: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """Return an optimizer's state by the names of its weights, which come in the order of its groups."""
    numbers = [number for group in state["param_groups"] for number in group["params"]]
    name_of = dict(zip(numbers, names, strict=True))
    groups = [{**group, "params": [name_of[number] for number in group["params"]]} for group in state["param_groups"]]
    return {"state": {name_of[number]: each for number, each in state["state"].items()}, "param_groups": groups}


def take_strategy(trainer: Namespace) -> None:
    """Name this strategy, in place, where a config names Lightning's own, which has the same arguments.

    Args:
        trainer: Settings of the trainer.
    """
    lightnings = f"{ModelParallelStrategy.__module__.rpartition('.')[0]}.{ModelParallelStrategy.__name__}"
    if isinstance(trainer.strategy, Namespace) and trainer.strategy.class_path == lightnings:
        trainer.strategy.class_path = f"{AtomicModelParallelStrategy.__module__}.{AtomicModelParallelStrategy.__name__}"


def put_in_place(part: Path, path: Path) -> None:
    """Give the folder of a finished checkpoint its name; the one that had the name is moved aside, then removed.

    A kill between the two renamings leaves the older one as ``previous-NAME.ckpt``, a checkpoint as any other.

    Args:
        part: The folder.
        path: Its name from now on.
    """
    sums = {name: sha256((part / name).read_bytes()).hexdigest() for name in (METADATA, META)}
    write_text(part / CHECKSUMS, json.dumps(sums) + "\n")
    move_aside(path)
    part.rename(path)
    _remove(_aside(path))


def move_aside(path: Path) -> None:
    """Call the checkpoint of a name ``previous-NAME.ckpt``, if there is one; it may be a file or a folder."""
    _remove(_aside(path))
    if path.exists():
        path.rename(_aside(path))


def _aside(path: Path) -> Path:
    return path.with_name(f"previous-{path.name}")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def check_sums(path: Path) -> None:
    """Raise if the metadata of a sharded checkpoint are not as they were written.

    Only a checkpoint of :class:`AtomicModelParallelStrategy` says how they were written.

    Args:
        path: Folder of the checkpoint.

    Raises:
        ValueError: A file is damaged; the message names it.
    """
    sums = path / CHECKSUMS
    if not sums.is_file():
        return
    try:
        expected = json.loads(sums.read_bytes())
    except ValueError as error:
        raise ValueError(f"its {CHECKSUMS} is damaged ({error})") from error
    for name in (METADATA, META):
        found = sha256((path / name).read_bytes()).hexdigest()
        if found != expected.get(name):
            raise ValueError(f"its {name} is damaged: its SHA-256 is {found[:12]}, and {CHECKSUMS} has another one")


def check_chunks(path: Path) -> None:
    """Raise if what lies in the shards is not as it was written; all of it is read, piece by piece.

    Args:
        path: Folder of a checkpoint whose metadata are known to be plain data.

    Raises:
        ValueError: A shard is damaged; the message names it, and what lies there.
    """
    for index, place in FileSystemReader(path).read_metadata().storage_data.items():
        with (path / place.relative_path).open("rb") as shard:
            shard.seek(place.offset)
            content = io.BytesIO(shard.read(place.length))
        try:
            damaged = damaged_entry(content)
            content.seek(0)
            torch.load(content, map_location="cpu", weights_only=True)
        except (RuntimeError, OSError, EOFError, ValueError, UnpicklingError, zipfile.BadZipFile) as error:
            damaged = str(error)[:300]
        if damaged is not None:
            raise ValueError(f"its {place.relative_path} is damaged at {index.fqn} ({damaged})")


def damaged_entry(file: Path | io.BytesIO) -> str | None:
    """Return the first entry of a file of torch that is not as it was written; this reads all of it.

    Entries have checksums of their data. What surrounds these can change what is loaded in one way: torch takes an
    entry that is marked as a folder for an empty one.

    Args:
        file: The file, or its content.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            marked = (entry.filename for entry in archive.infolist() if entry.external_attr)
            return archive.testzip() or next(marked, None)
    except (zlib.error, NotImplementedError, RuntimeError, EOFError) as error:  # a bit of an entry's own header
        return f"an entry ({error})"
