"""Hands weights to vLLM: through files in memory, which a child process and a server read alike, or by GPU handles."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.multiprocessing.reductions import reduce_tensor

MAX_PART_BYTES = 2 * 2**30
"""Weights are written in files of at most this size."""
_IN_MEMORY = Path("/dev/shm")


class Written(NamedTuple):
    """A folder of weights, and the number of weights in it."""

    directory: Path
    num_weights: int


def roomy_directory(num_bytes: int) -> str:
    """Return a folder in memory that has room for so many bytes, else the folder of temporary files.

    Args:
        num_bytes: Size of the weights. In containers the folder in memory is often small.
    """
    in_memory = _IN_MEMORY.is_dir() and shutil.disk_usage(_IN_MEMORY).free > 1.1 * num_bytes
    return str(_IN_MEMORY) if in_memory else tempfile.gettempdir()


@contextmanager
def written(weights: Iterable[tuple[str, Tensor]], parent: str) -> Iterator[Written]:
    """Write weights into a new folder that is removed at the end.

    Args:
        weights: Names and tensors, not sharded.
        parent: Folder in which the new one is made.
    """
    directory = Path(tempfile.mkdtemp(prefix="caopd-weights-", dir=parent))
    directory.chmod(0o755)  # a server may run as another user
    num_weights = 0
    try:
        # A file holds no two names of one memory: a tied head is copied, as are views.
        copies = ((name, tensor.cpu().contiguous().clone()) for name, tensor in weights)
        for number, part in enumerate(_parts(copies)):
            save_file(part, directory / f"{number:05d}.safetensors")
            num_weights += len(part)
        yield Written(directory, num_weights)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def handles(weights: Iterable[tuple[str, Tensor]]) -> Iterator[dict[str, Any]]:
    """Yield updates for vLLM's IPC weight transfer; an update's weights stay in memory until the next one is asked for.

    Args:
        weights: Names and tensors, not sharded, on one GPU.
    """
    for part in _parts((name, tensor.contiguous()) for name, tensor in weights):
        device = next(iter(part.values())).device
        gpu = str(torch.cuda.get_device_properties(device).uuid)
        yield {
            "names": list(part),
            "dtype_names": [str(tensor.dtype).removeprefix("torch.") for tensor in part.values()],
            "shapes": [list(tensor.shape) for tensor in part.values()],
            "ipc_handles": [{gpu: reduce_tensor(tensor)[1]} for tensor in part.values()],  # type: ignore[no-untyped-call]
        }


def _parts(weights: Iterable[tuple[str, Tensor]]) -> Iterator[dict[str, Tensor]]:
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
