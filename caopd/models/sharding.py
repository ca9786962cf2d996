"""Shards the parameters of a language model over the data-parallel processes (FSDP2)."""

from __future__ import annotations

from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

from caopd.models.language_model import LanguageModel


def shard(model: LanguageModel, mesh: DeviceMesh) -> None:
    """Shard every decoder layer by itself, and all other parameters together as the root, in place.

    ``generate`` and ``forward`` gather the root's parameters for their duration; layers are gathered one by one.

    Args:
        model: A model that is not sharded yet.
        mesh: The one-dimensional mesh of data-parallel processes.
    """
    for layer in model.layers:
        fully_shard(layer, mesh=mesh, reshard_after_forward=True)
    fully_shard(model, mesh=mesh, reshard_after_forward=True)
    register_fsdp_forward_method(model, "generate")
