"""vLLM's weight transfer over the network with a store in the place of NCCL, which needs GPUs; all else is vLLM's own.

A server that is started with ``--worker-extension-cls tests.store_transfer.StoreKeeper`` and ``--weight-transfer-config
'{"backend": "store"}'`` takes weights so; :func:`open_group` is the trainer's end.
"""

import torch
from vllm.distributed.utils import StatelessProcessGroup
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory
from vllm.distributed.weight_transfer.nccl_engine import NCCLWeightTransferEngine

from caopd.vllm_host.keeper import WeightKeeper


class StoreGroup:
    """Broadcasts through the store of a group that vLLM opens."""

    def __init__(self, host, port, rank, world_size):
        self.group = StatelessProcessGroup.create(host, port, rank, world_size)

    def broadcast(self, tensor, src, stream=None):
        """Send, or receive into, a tensor."""
        received = self.group.broadcast(tensor.cpu() if self.group.rank == src else None, src)
        if self.group.rank != src:
            assert (received.dtype, received.shape) == (tensor.dtype, tensor.shape)
            tensor.copy_(received)

    def destroy(self):
        """Leave the store to the end of the process."""


def open_group(host, port, world_size, device):
    """The trainer's end, as rank 0."""
    return StoreGroup(host, port, 0, world_size)


class StoreTransfer(NCCLWeightTransferEngine):
    """The server's end: only the group, and how it receives, are not those of NCCL."""

    def init_transfer_engine(self, init_info):
        """Meet the trainer."""
        rank = self.parallel_config.rank + init_info.rank_offset
        self.model_update_group = StoreGroup(
            init_info.master_address, init_info.master_port, rank, init_info.world_size
        )

    def receive_weights(self, update_info):
        """Receive one weight after the other, as it does that are not packed."""
        for name, dtype, shape in zip(update_info.names, update_info.dtype_names, update_info.shapes, strict=True):
            weight = torch.empty(shape, dtype=getattr(torch, dtype))
            self.model_update_group.broadcast(weight, 0)
            self.model.load_weights([(name, weight)])


WeightTransferEngineFactory.register_engine("store", StoreTransfer)


class StoreKeeper(WeightKeeper):
    """Is imported by the server's workers, and registers the transfer there."""
