"""Opens a group of this process and a server's workers, in which vLLM's own weight transfer sends from GPU to GPU."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Group(Protocol):
    """What vLLM's ``PyNcclCommunicator`` does for us."""

    def broadcast(self, tensor: Tensor, src: int, stream: torch.cuda.Stream | None = None) -> None:
        """Send a tensor to all others; returns before it has arrived."""
        ...

    def destroy(self) -> None:
        """Leave the group."""
        ...


def open_group(host: str, port: int, world_size: int, device: torch.device) -> Group:
    """Open a group with a server's workers, as its rank 0; returns when all have come.

    Args:
        host: This machine, as the server reaches it.
        port: Where they meet.
        world_size: This process and the workers.
        device: The GPU that sends.
    """
    from vllm.distributed.weight_transfer.nccl_common import trainer_init

    with torch.cuda.device(device):
        group: Group = trainer_init({"master_address": host, "master_port": port, "world_size": world_size})
    return group
