"""Hands weights to vLLM through files in memory: works in a child process and on a server alike."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

MAX_FILE_BYTES = 2 * 2**30
"""A file is written when its weights have this size, so that the writer holds no more of them at once."""


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
        for number, part in enumerate(_parts(weights)):
            save_file(part, directory / f"{number:05d}.safetensors")
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _parts(weights: Iterable[tuple[str, Tensor]]) -> Iterator[dict[str, Tensor]]:
    part: dict[str, Tensor] = {}
    size = 0
    for name, tensor in weights:
        # A file holds no two names of one memory: a tied head is written on its own.
        part[name] = tensor.detach().cpu().contiguous().clone()
        size += part[name].nbytes
        if size >= MAX_FILE_BYTES:
            yield part
            part, size = {}, 0
    if part:
        yield part
