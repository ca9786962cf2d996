"""Reads sharded checkpoints: their pickled parts as data, since torch itself would run whatever code they name."""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from dataclasses import is_dataclass
from functools import cache
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch.distributed.checkpoint._nested_dict import unflatten_state_dict
from torch.distributed.checkpoint.filesystem import FileSystemReader, _StorageInfo
from torch.distributed.checkpoint.metadata import Metadata, MetadataIndex, TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load

SHARDED = METADATA, META = ".metadata", "meta.pt"
"""Files, beside the shards, by which a sharded checkpoint is recognised: what lies where; and what is not sharded."""
DAMAGED = (EOFError, OSError, UnpicklingError, ValueError, RuntimeError, TypeError, AttributeError, KeyError)
"""What unpickling raises on a file that is cut, damaged, or not what it should be."""
_OF_METADATA = (
    "BytesStorageMetadata",
    "ChunkStorageMetadata",
    "Metadata",
    "MetadataIndex",
    "StorageMeta",
    "TensorProperties",
    "TensorStorageMetadata",
    "_MEM_FORMAT_ENCODING",
)
_PLAIN = {
    *(("torch.distributed.checkpoint.metadata", name) for name in _OF_METADATA),
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
    ("torch.serialization", "_get_layout"),
    ("torch", "Size"),
    *((module, name) for module in ("pathlib", "pathlib._local") for name in ("PosixPath", "WindowsPath")),
}
"""Names that torch writes into the metadata; none of them runs anything."""
_Places = dict[MetadataIndex, _StorageInfo]


def check_shards(path: Path) -> None:
    """Raise unless every part of a sharded checkpoint is there and holds plain data alone.

    The metadata, and what the shards hold beside tensors, are pickles that torch loads without a check of its own
    (``FileSystemReader.read_metadata``, ``DefaultLoadPlanner.load_bytes``): they are read here first.

    Args:
        path: Folder of the checkpoint.

    Raises:
        ValueError: A part is missing, cut, damaged, or could run code; the message names it.
    """
    try:
        metadata = _Plain(io.BytesIO((path / METADATA).read_bytes())).load()
        places = _places(metadata)
    except DAMAGED as error:
        raise _named(error, METADATA) from error
    for index, place in places.items():
        shard = path / place.relative_path
        if not shard.is_file() or shard.stat().st_size < place.offset + place.length:
            raise ValueError(f"its {shard.name} is missing or cut")
        if not isinstance(metadata.state_dict_metadata.get(index.fqn), TensorStorageMetadata):
            _check_value(shard, index.fqn, place)
    try:
        torch.load(path / META, map_location="cpu", weights_only=True)
    except DAMAGED as error:
        raise _named(error, META) from error


def read_shards(path: Path, prefix: str = "") -> dict[str, Any]:
    """Return what is in the shards of a checkpoint, whole and nested as it was saved.

    Args:
        path: Folder of a checkpoint that :func:`check_shards` has passed.
        prefix: Beginning of the names of what is read, of which only this is read.
    """
    reader = FileSystemReader(path)
    metadata = reader.read_metadata()
    found: dict[str, Any] = {
        name: torch.empty(each.size, dtype=each.properties.dtype) if isinstance(each, TensorStorageMetadata) else None
        for name, each in metadata.state_dict_metadata.items()
        if name.startswith(prefix)
    }
    load(found, storage_reader=reader, no_dist=True)
    return unflatten_state_dict(found, {name: metadata.planner_data[name] for name in found})


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return a sharded checkpoint as it would be in one file.

    Args:
        path: Folder of a checkpoint that :func:`check_shards` has passed.

    Raises:
        ValueError: It holds no weights.
    """
    content: dict[str, Any] = torch.load(path / META, map_location="cpu", weights_only=True)
    parts = read_shards(path)
    if "state_dict" not in parts:
        raise ValueError(f"its {METADATA} names no weights")
    optimizers = sorted((name for name in parts if name != "state_dict"), key=lambda name: int(name.rpartition("_")[2]))
    states = {"optimizer_states": [_numbered(parts[name]) for name in optimizers]} if optimizers else {}
    return {**content, "state_dict": parts["state_dict"], **states}


def _numbered(optimizer: Mapping[str, Any]) -> dict[str, Any]:
    """Return an optimizer's state by the numbers of the weights, as torch's optimizers take it, and not their names."""
    names = [name for group in optimizer["param_groups"] for name in group["params"]]
    numbers = {name: number for number, name in enumerate(names)}
    groups = [{**each, "params": [numbers[name] for name in each["params"]]} for each in optimizer["param_groups"]]
    state = {numbers[name]: each for name, each in optimizer.get("state", {}).items()}  # SGD has none, and saves none
    return {"state": state, "param_groups": groups}


class _Unchangeable(type):
    """Class of classes whose attributes stay: a pickle can set those of a class that it names."""

    def __setattr__(cls, name: str, value: object) -> None:
        raise UnpicklingError(f"it changes {cls.__module__}.{cls.__name__}")


class _Plain(pickle.Unpickler):
    """Unpickles metadata into subclasses of torch's; a name that torch does not write there is never imported."""

    @cache  # noqa: B019 (an unpickler is used once)
    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401 (pickle's own signature)
        """Return what a name of the pickle stands for, the same for every mention of it."""
        is_dtype = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        if (module, name) not in _PLAIN and not is_dtype:
            raise UnpicklingError(f"it names {module}.{name}")
        found = super().find_class(module, name)
        bases: tuple[Any, ...] = (found,)
        return _Unchangeable(name, bases, {"__module__": module}) if is_dataclass(found) else found


def _places(metadata: object) -> _Places:
    """Return where each value lies, after a look at what a damaged or made-up file may say."""
    if not isinstance(metadata, Metadata) or not isinstance(metadata.state_dict_metadata, dict):
        raise ValueError("it says not what the shards hold")
    names = metadata.planner_data
    if not isinstance(names, dict) or not all(name in names for name in metadata.state_dict_metadata):
        raise ValueError("it says not how what the shards hold was nested")
    places: _Places = metadata.storage_data
    for place in places.values():
        # Only a path into the checkpoint's own folder, and no transforms, which name code: none are ever written here.
        if Path(place.relative_path).name != place.relative_path or place.transform_descriptors:
            raise ValueError(f"it says that a value lies in {place.relative_path!r}, as `caopd fit` never writes it")
        if place.offset < 0 or place.length < 0:
            raise ValueError("it says that a value lies nowhere")
    return places


def _check_value(shard: Path, name: str, place: _StorageInfo) -> None:
    with shard.open("rb") as file:
        file.seek(place.offset)
        content = io.BytesIO(file.read(place.length))
    try:
        torch.load(content, map_location="cpu", weights_only=True)
    except DAMAGED as error:
        raise _named(error, f"{name!r} in {shard.name}") from error


def _named(error: Exception, part: str) -> ValueError:
    return ValueError(f"its {part} is damaged, or holds more than plain data and could run code ({str(error)[:300]})")
