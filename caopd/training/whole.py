"""Writes one file of what is sharded, piece by piece: nowhere is more than one weight whole at a time."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.serialization import DEFAULT_PROTOCOL, _open_zipfile_writer, _save
from torch.utils._pytree import tree_leaves, tree_map_only

from caopd.distributed import is_first_process, together
from caopd.files import written
from caopd.models.sharding import gather


def write_whole(content: Mapping[str, Any], path: Path) -> None:
    """Write a file as ``torch.save`` does, with whole tensors in place of sharded ones; a collective operation.

    Args:
        content: What is written, with this process's shards; all else is taken from process 0.
        path: The file; it appears whole or not at all.

    Raises:
        DiskFullError: In process 0, if there is no room for the file; the others raise a PeerError.
    """
    sharded = list(_distinct(content).values())

    def write() -> None:
        if not is_first_process():
            for tensor in sharded:
                gather(tensor)
            return
        wholes = (gather(tensor) for tensor in sharded)
        try:
            with written(path) as file:
                _write(content, file, wholes)
        finally:
            for _ in wholes:  # after an error: the others send all the same
                pass

    together(write)


def _write(content: Mapping[str, Any], file: Any, wholes: Iterator[Tensor | None]) -> None:  # noqa: ANN401 (as torch)
    """Write the file in process 0, whose sharded tensors are made whole when their turn comes."""
    stand_ins = {key: _stand_in(tensor) for key, tensor in _distinct(content).items()}
    filled = tree_map_only(DTensor, lambda tensor: stand_ins[_key(tensor)], dict(content))
    pointers = [stand_in.untyped_storage().data_ptr() for stand_in in stand_ins.values()]
    with _open_zipfile_writer(file) as archive:
        filling = _Filling(archive, pointers, wholes)
        _save(filled, filling, pickle, DEFAULT_PROTOCOL, False)  # type: ignore[no-untyped-call]


class _Filling:
    """Writes entries of torch's archive; those of stand-ins with the data of the tensors that they stand for.

    Args:
        archive: torch's writer.
        pointers: Where the data of the stand-ins would be, in the order of the tensors.
        wholes: The tensors, each made when it is asked for.
    """

    def __init__(self, archive: Any, pointers: list[int], wholes: Iterator[Tensor | None]) -> None:  # noqa: ANN401
        self._archive = archive
        self._pointers = iter(pointers)
        self._stand_ins = set(pointers)
        self._wholes = wholes

    def write_record(self, name: str, data: Any, size: int) -> None:  # noqa: ANN401 (a storage, bytes or text)
        """Write an entry; arguments as torch gives them."""
        if isinstance(data, torch.UntypedStorage) and data.data_ptr() in self._stand_ins:
            whole = next(self._wholes)
            assert data.data_ptr() == next(self._pointers), "torch writes in another order"
            assert whole is not None
            data = whole.untyped_storage()
        self._archive.write_record(name, data, size)


def _distinct(content: Mapping[str, Any]) -> dict[tuple[int, torch.Size], DTensor]:
    """Return the sharded tensors in their order, each once: a tied weight has two names."""
    tensors = (leaf for leaf in tree_leaves(dict(content)) if isinstance(leaf, DTensor))
    return {_key(tensor): tensor for tensor in tensors}


def _key(tensor: DTensor) -> tuple[int, torch.Size]:
    return tensor.to_local().untyped_storage()._cdata, tensor.shape


def _stand_in(tensor: DTensor) -> Tensor:
    """Return a tensor of the same shape whose memory is never written to, so that the system gives it none."""
    memory = torch.UntypedStorage(tensor.numel() * tensor.element_size())  # type: ignore[no-untyped-call]
    stand_in = torch.empty(0, dtype=tensor.dtype)
    return stand_in.set_(memory, 0, tensor.shape, torch.empty(tensor.shape, device="meta").stride())
