"""Hands out a model's weights as an inference engine takes them: whole, named as in a checkpoint, in its dtype."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from caopd.models.language_model import LanguageModel

Fingerprint = tuple[tuple[int, int], ...]


def fingerprint(policy: LanguageModel) -> Fingerprint:
    """Return a value that changes whenever a weight is changed in place or replaced by another tensor.

    Autograd counts the in-place changes of a tensor, such as an optimizer's step or a loaded checkpoint. Writes through
    ``Tensor.data`` and by fused optimizers are not counted, so the number of optimizer steps must be compared as well.

    Args:
        policy: The model whose weights are watched.
    """
    with torch.no_grad():
        local = [p.to_local() if isinstance(p, DTensor) else p for p in policy.parameters()]
    return tuple((id(tensor), tensor._version) for tensor in local)


@torch.no_grad()
def inference_weights(
    policy: LanguageModel, dtype: torch.dtype, separate_adapters: bool = False
) -> Iterator[tuple[str, Tensor]]:
    """Yield every weight under its name in a checkpoint, not sharded, on its device.

    A tied head is yielded under its own name too: engines keep a copy of it, which would go stale. Gathering a sharded
    weight is a collective operation: every process iterates to the end.

    Args:
        policy: The model whose weights are handed out, the student or the teacher.
        dtype: Dtype that floating-point weights are converted to.
        separate_adapters: Yield LoRA adapters by themselves, under peft's names, instead of adding them to the weights
            that they adapt.
    """
    adapted = _adapted_layers(policy.hf)
    for name, value in policy.hf.state_dict().items():
        prefix, is_base, rest = name.partition(".base_layer.")
        if is_adapter(name):
            if separate_adapters:
                yield f"base_model.model.{name.replace('.default.', '.')}", _whole(value).to(dtype)
            continue
        whole = _whole(value)
        if is_base and rest == "weight" and not separate_adapters:
            whole = whole + _whole_delta(adapted[prefix]).to(whole.dtype)
        yield f"{prefix}.{rest}" if is_base else name, whole.to(dtype) if whole.is_floating_point() else whole


def is_adapter(name: str) -> bool:
    """Return whether a weight's name is that of a LoRA adapter."""
    return ".lora_" in name


def _whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor.detach()


def _whole_delta(layer: Any) -> Tensor:  # noqa: ANN401 (peft's layer, which is an optional dependency)
    (adapter,) = layer.active_adapters
    up, down = _whole(layer.lora_B[adapter].weight), _whole(layer.lora_A[adapter].weight)
    delta: Tensor = (up @ down) * layer.scaling[adapter]
    return delta.T if layer.fan_in_fan_out else delta


def _adapted_layers(hf: nn.Module) -> dict[str, Any]:
    if find_spec("peft") is None:
        return {}
    from peft.tuners.lora import LoraLayer

    return {name: module for name, module in hf.named_modules() if isinstance(module, LoraLayer)}
