"""Hands weights to vLLM: through files in memory, which a child process and a server read alike, or by GPU handles."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor
from torch.multiprocessing.reductions import reduce_tensor

from caopd.errors import RolloutError
from caopd.vllm_host.folders import OwnedFolder

MAX_PART_BYTES = 2 * 2**30
"""Weights are written in files of at most this size."""
_IN_MEMORY = Path("/dev/shm")


class Written(NamedTuple):
    """A folder of weights, and the number of weights in it."""

    directory: Path
    num_weights: int


def shared_places() -> tuple[str, ...]:
    """Return the folders of this machine in which runs make folders of their own."""
    return tempfile.gettempdir(), str(_IN_MEMORY)


def roomy_directory(num_bytes: int) -> str:
    """Return a folder in memory that has room for so many bytes, else the folder of temporary files.

    Args:
        num_bytes: Size of the weights. In containers the folder in memory is often small.
    """
    in_memory = _IN_MEMORY.is_dir() and shutil.disk_usage(_IN_MEMORY).free > 1.1 * num_bytes
    return str(_IN_MEMORY) if in_memory else tempfile.gettempdir()


@contextmanager
def written(weights: Iterable[tuple[str, Tensor]], parent: str) -> Iterator[Written]:
    """Write weights into a new folder, which is removed at the end, or after it by others if this process is killed.

    Args:
        weights: Names and tensors, not sharded.
        parent: Folder in which the new one is made.

    Raises:
        RolloutError: There is no room.
    """
    folder = OwnedFolder(parent, "weights")
    try:
        yield Written(folder.path, _write(weights, folder))
    finally:
        folder.remove()


def _write(weights: Iterable[tuple[str, Tensor]], folder: OwnedFolder) -> int:
    num_weights = 0
    # A file holds no two names of one memory: a tied head is copied, as are views.
    copies = ((name, tensor.cpu().contiguous().clone()) for name, tensor in weights)
    for number, part in enumerate(parts(copies)):
        file = folder.path / f"{number:05d}.safetensors"
        try:
            save_file(part, file)
        except (OSError, SafetensorError) as error:
            raise RolloutError(
                f"Make room for the weights in {folder.path.parent}, where vLLM reads them: {file.name} of "
                f"{sum(tensor.nbytes for tensor in part.values())} bytes cannot be written ({error})."
            ) from error
        folder.protect(file)
        num_weights += len(part)
    return num_weights


def handles(weights: Iterable[tuple[str, Tensor]]) -> Iterator[dict[str, Any]]:
    """Yield updates for vLLM's IPC weight transfer; an update's weights stay in memory until the next one is asked for.

    Args:
        weights: Names and tensors, not sharded, on one GPU.
    """
    for part in parts((name, tensor.contiguous()) for name, tensor in weights):
        device = next(iter(part.values())).device
        gpu = str(torch.cuda.get_device_properties(device).uuid)
        yield {
            "names": list(part),
            "dtype_names": [str(tensor.dtype).removeprefix("torch.") for tensor in part.values()],
            "shapes": [list(tensor.shape) for tensor in part.values()],
            "ipc_handles": [{gpu: reduce_tensor(tensor)[1]} for tensor in part.values()],  # type: ignore[no-untyped-call]
        }


def parts(weights: Iterable[tuple[str, Tensor]]) -> Iterator[dict[str, Tensor]]:
    """Yield weights in parts of about ``MAX_PART_BYTES``, so that few of them are whole at a time.

    Args:
        weights: Names and tensors, not sharded.
    """
    part: dict[str, Tensor] = {}
    size = 0
    for name, tensor in weights:
        part[name] = tensor
        size += tensor.nbytes
        if size >= MAX_PART_BYTES:
            yield part
            part, size = {}, 0
    if part:
        yield part
