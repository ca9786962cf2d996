"""Writes checkpoints so that a name holds a whole checkpoint or none, and reads sharded ones too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from caopd.files import written
from caopd.models.shards import check_shards, read_checkpoint


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint to ``NAME.ckpt.part`` beside its place, and renames it when all of it has reached the disk.

    Lightning's own way keeps a whole copy in memory, and goes through a temporary folder, from which the file is copied
    where the run directory is on another file system: a kill or a full disk may leave a part of it under the final
    name. Remote paths (``s3://...``) are written in Lightning's own way.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:  # noqa: ANN401
        """Write the file; arguments and errors as in Lightning.

        Args:
            checkpoint: What is written.
            path: Where.
            storage_options: Not supported.

        Raises:
            DiskFullError: There is no room for the file; the checkpoint that had the name is as it was.
        """
        place = str(path).removeprefix("file://")
        if storage_options is not None or "://" in place:
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        if Path(place).is_symlink():  # `save_last: link` of a run before; the checkpoint that it leads to stays
            Path(place).unlink()
        with written(Path(place)) as file:
            torch.save(checkpoint, file)

    def load_checkpoint(self, path: str | Path, *arguments: Any, **keywords: Any) -> dict[str, Any]:  # noqa: ANN401
        """Read a file, or the folder of a sharded checkpoint; arguments and errors as in Lightning.

        Args:
            path: The checkpoint.
            arguments: Lightning's, for a file; a folder is read as plain data, always.
            keywords: Likewise.

        Raises:
            ValueError: A part of the folder is missing, cut, damaged, or could run code; the message names it.
        """
        if not Path(path).is_dir():
            return super().load_checkpoint(path, *arguments, **keywords)
        check_shards(Path(path))
        return read_checkpoint(Path(path))
