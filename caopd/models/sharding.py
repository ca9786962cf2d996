"""Shards the parameters of a language model over the data-parallel processes (FSDP2), and hands out its shards."""

from __future__ import annotations

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from caopd.models.language_model import LanguageModel
from caopd.models.outlines import all_weights


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


@torch.no_grad()
def fill(model: LanguageModel, whole: dict[str, Tensor], mesh: DeviceMesh) -> None:
    """Give a sharded model its weights, which process 0 has; a collective operation.

    Every process receives its own shards alone. torch's ``set_model_state_dict`` would send each weight whole to all:
    on one node, a large embedding as often as there are processes.

    Args:
        model: The sharded model, whose weights hold no values yet.
        whole: In process 0 the weights by their names, of which each is let go when it was sent; in others empty.
        mesh: The one-dimensional mesh of data-parallel processes.
    """
    group, device = mesh.get_group(), model.device
    for name, weight in all_weights(model).items():
        full = whole.pop(name).to(device) if mesh.get_rank() == 0 else None
        if isinstance(weight, DTensor):
            _scatter(weight.to_local(), full, group)
            continue
        if full is not None:
            weight.copy_(full)
        distributed.broadcast(weight, group=group, group_src=0)


def _scatter(shard: Tensor, full: Tensor | None, group: distributed.ProcessGroup) -> None:
    """Fill a shard with this process's rows of a weight that process 0 has; those of later processes may be none."""
    if full is None:
        if shard.numel():
            distributed.recv(shard, group=group, group_src=0)
        return
    first, *others = full.chunk(group.size())
    shard.copy_(first)
    for number, rows in enumerate(others, start=1):
        distributed.send(rows.contiguous(), group=group, group_dst=number)


@torch.no_grad()
def gather(weight: DTensor) -> Tensor | None:
    """Return a sharded weight whole, on the CPU, in process 0, and None in the others; a collective operation.

    torch's ``full_tensor`` would make it whole in every process.

    Args:
        weight: The weight, or anything else that is sharded like it.
    """
    group, shard = weight.device_mesh.get_group(), weight.to_local().contiguous()
    if group.rank() > 0:
        if shard.numel():
            distributed.send(shard, group=group, group_dst=0)
        return None
    full = torch.empty(weight.shape, dtype=weight.dtype, device=shard.device)
    first, *others = full.chunk(group.size())
    first.copy_(shard)
    for number, rows in enumerate(others, start=1):
        distributed.recv(rows, group=group, group_src=number)
    return full.cpu()


@torch.no_grad()
def copy_weights(target: nn.Module, source: nn.Module) -> None:
    """Copy the parameters and buffers of a model into another one of the same architecture that is sharded alike.

    Args:
        target: The model whose weights change.
        source: The model whose weights are copied, shard by shard.
    """
    for into, given in ((target.parameters(), source.parameters()), (target.buffers(), source.buffers())):
        for mine, its in zip(into, given, strict=True):
            mine.copy_(its)
