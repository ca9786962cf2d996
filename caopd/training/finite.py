"""Stops training at the first loss, gradient or weight that is not finite, in every process at the same step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from lightning import LightningModule
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.utils import get_total_norm

from caopd.errors import ModelError, NonFiniteError


def check_step(module: LightningModule, loss: Tensor) -> None:
    """Raise before an optimizer step whose loss or gradient is not finite; a collective operation.

    Args:
        module: The module, with gradients.
        loss: Loss of this process's share of the step.

    Raises:
        NonFiniteError: Something is not finite; the message names the step and what to try.
    """
    total = module.trainer.strategy.reduce(loss.detach().clone(), reduce_op="sum")
    if not torch.isfinite(torch.as_tensor(total)):
        raise _error(module, f"a loss of {float(total)}")
    plugin = module.trainer.precision_plugin
    if isinstance(plugin, MixedPrecision) and plugin.scaler is not None:
        return  # the scaler of 16-bit floats skips such steps by itself, and lowers its scale
    norm = _norm(weight.grad for weight in module.parameters() if weight.grad is not None)
    if not torch.isfinite(norm):
        raise _error(module, f"a gradient of norm {float(norm)}")


def check_weights(module: LightningModule, part: nn.Module) -> None:
    """Raise where weights, or the sum of their squares, are not finite; a collective operation where they are sharded.

    Args:
        module: The module, between two steps.
        part: The part whose weights are checked.

    Raises:
        NonFiniteError: Something is not finite; the message names the step and what to try.
    """
    if not torch.isfinite(_norm(part.parameters())):
        raise _error(module, "weights that are not")


def check_loaded(state_dict: Mapping[str, Any]) -> None:
    """Raise where a checkpoint's weights are not finite.

    Args:
        state_dict: Name of the weight -> weight.

    Raises:
        ModelError: Some are not; the message names the first of them.
    """
    bad = [name for name, weight in state_dict.items() if isinstance(weight, Tensor) and not _is_finite(weight)]
    if bad:
        raise ModelError(
            f"Expected the checkpoint's weights to be finite, but {len(bad)} of {len(state_dict)} are not, such as "
            f"{', '.join(bad[:3])}: its run trained to NaN or infinity. Take an earlier checkpoint."
        )


def _is_finite(weight: Tensor) -> bool:
    return not weight.is_floating_point() or bool(torch.isfinite(_norm([weight])))


def _norm(tensors: Iterable[Tensor]) -> Tensor:
    """Return the Euclidean norm of all tensors together, which is finite only where each of their elements is."""
    norm = get_total_norm([tensor.detach() for tensor in tensors])
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


def _error(module: LightningModule, what: str) -> NonFiniteError:
    trainer = module.trainer
    rates = ", ".join(f"{group['lr']:.3g}" for optimizer in trainer.optimizers for group in optimizer.param_groups)
    return NonFiniteError(
        f"Expected finite numbers, but optimizer step {trainer.global_step}, in round {trainer.current_epoch}, has "
        f"{what}. Training stops here; the last checkpoint holds the weights of an earlier step. The learning rate was "
        f"{rates}: lower it (`model.optimizer.init_args.lr`), warm up longer (`model.warmup`), clip gradients more "
        "(`trainer.gradient_clip_val`), or compute in float32 (`trainer.precision`)."
    )
