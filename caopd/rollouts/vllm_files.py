"""Hands weights to vLLM: through files in memory, which a child process and a server read alike, or by GPU handles."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.multiprocessing.reductions import reduce_tensor

MAX_PART_BYTES = 2 * 2**30
"""Weights go in parts of this size, so that no more of them are held twice at once."""


def memory_directory() -> str:
    """Return a folder in memory where there is one, else the folder of temporary files."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else tempfile.gettempdir()


@contextmanager
def written(weights: Iterable[tuple[str, Tensor]], parent: str) -> Iterator[Path]:
    """Write weights into a new folder that is removed at the end.

    Args:
        weights: Names and whole tensors.
        parent: Where the folder is made.
    """
    directory = Path(tempfile.mkdtemp(prefix="caopd-weights-", dir=parent))
    try:
        # A file holds no two names of one memory: a tied head is copied, as are views.
        copies = ((name, tensor.cpu().contiguous().clone()) for name, tensor in weights)
        for number, part in enumerate(_parts(copies)):
            save_file(part, directory / f"{number:05d}.safetensors")
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def handles(weights: Iterable[tuple[str, Tensor]]) -> Iterator[dict[str, Any]]:
    """Yield updates for vLLM's IPC weight transfer; an update's weights stay in memory until the next one is asked for.

    Args:
        weights: Names and whole tensors, on one GPU.
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
