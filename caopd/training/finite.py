"""Finds losses, gradients and weights that are not finite, in every process at the same step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal, NamedTuple

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.utils import get_total_norm

from caopd.errors import NonFiniteError
from caopd.models import check_finite

DIVERGED = "its run trained to NaN or infinity. Take an earlier checkpoint."


class FiniteWeights(Callback):
    """Refuses weights that Lightning has loaded and are not finite, and keeps the end of a run from writing such."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check all weights: a sharding strategy loads a whole checkpoint layer by layer, past the module's own check.

        Raises:
            ModelError: Some are not finite.
        """
        check_finite(dict(pl_module.named_parameters()), "the run's models", DIVERGED)

    on_validation_start = on_test_start = on_predict_start = on_train_start

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Switch ``save_on_exception`` off where the error is that weights are not finite.

        Lightning calls this before the checkpoints' own hook, which would raise in the middle of the shutdown and end
        it there. Every process raises a NonFiniteError, so that all can look at their weights together.
        """
        if isinstance(exception, NonFiniteError) and not has_finite_weights(pl_module, pl_module):
            for callback in trainer.checkpoint_callbacks:
                if isinstance(callback, ModelCheckpoint):
                    callback.save_on_exception = False


class Problem(NamedTuple):
    """What is not finite before an optimizer step.

    Attributes:
        part: The loss of the step, or its gradient.
        value: The loss, or the gradient's norm.
    """

    part: Literal["loss", "gradient"]
    value: float

    def __str__(self) -> str:
        """Name both, for a message."""
        return f"a loss of {self.value}" if self.part == "loss" else f"a gradient of norm {self.value}"


def problem_of_step(module: LightningModule, loss: Tensor) -> Problem | None:
    """Return what is not finite before an optimizer step, if anything, the same in every process; collective.

    Args:
        module: The module, with gradients.
        loss: Loss of this process's share of the step.
    """
    norm = _norm(weight.grad for weight in module.parameters() if weight.grad is not None)
    both = torch.stack([loss.detach().float(), norm.float().to(loss.device)])
    total, norms = torch.as_tensor(module.trainer.strategy.reduce(both, reduce_op="sum")).tolist()
    if not math.isfinite(total):
        return Problem("loss", total)
    return None if math.isfinite(norms) else Problem("gradient", norms)


def has_finite_weights(module: LightningModule, part: nn.Module) -> bool:
    """Return whether weights, and the sum of their squares, are finite; a collective operation.

    Args:
        module: The module, between two steps.
        part: The part whose weights are looked at.
    """
    norm = module.trainer.strategy.reduce(_norm(part.parameters()), reduce_op="sum")
    return bool(torch.isfinite(torch.as_tensor(norm)))


def check_weights(module: LightningModule) -> None:
    """Raise before a checkpoint is written whose weights are not finite; a collective operation.

    Args:
        module: The module, between two steps.

    Raises:
        NonFiniteError: Some are not; the message names the step and what to try.
    """
    if not has_finite_weights(module, module):
        raise NonFiniteError(
            f"Expected a checkpoint's weights to be finite, but those after {module.trainer.global_step} optimizer "
            f"steps are not: it is not written. {advice(module.trainer)}"
        )


def not_finite(tensors: Iterable[tuple[str, Tensor | None]]) -> list[str]:
    """Return the names of the tensors that are not finite, of sharded ones what this process holds; None is left out.

    Args:
        tensors: Name and tensor.
    """
    local = ((name, t.to_local() if isinstance(t, DTensor) else t) for name, t in tensors)
    return [name for name, tensor in local if tensor is not None and not bool(torch.isfinite(tensor).all())]


def advice(trainer: Trainer) -> str:
    """Say what to try against numbers that are not finite.

    Args:
        trainer: The trainer, in training.
    """
    rates = ", ".join(f"{group['lr']:.3g}" for optimizer in trainer.optimizers for group in optimizer.param_groups)
    return (
        f"The learning rate was {rates}: lower it (`model.optimizer.init_args.lr`), warm up longer (`model.warmup`), "
        "clip gradients more (`trainer.gradient_clip_val`), or compute in float32 (`trainer.precision`)."
    )


def _norm(tensors: Iterable[Tensor]) -> Tensor:
    """Return the Euclidean norm of all tensors together, which is finite only where each of their elements is."""
    norm = get_total_norm([tensor.detach() for tensor in tensors])
    return norm.full_tensor() if isinstance(norm, DTensor) else norm
