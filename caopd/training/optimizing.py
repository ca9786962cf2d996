"""What the optimizer is made of, groups of weights and the course of its rate, and warnings where it is idle."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from caopd.errors import ConfigError

OptimizerFactory = Callable[[Iterable[nn.Parameter]], Optimizer]
Schedule = Literal["constant_with_warmup", "cosine", "linear"]
Decay = Literal["all", "matrices"]

LARGEST_IDLE_SHARE = 0.1
"""Share of the weights from which on steps that rounding undoes give a warning."""


def default_optimizer(parameters: Iterable[nn.Parameter]) -> Optimizer:
    """Return AdamW with a learning rate of 1e-5 and torch's other defaults."""
    return torch.optim.AdamW(parameters, lr=1e-5)


def weight_groups(model: nn.Module, decay: Decay) -> list[dict[str, Any]]:
    """Return the trained weights in groups, as torch's optimizers take them.

    Args:
        model: The student; it may be sharded.
        decay: ``all`` makes one group. ``matrices`` leaves the optimizer's ``weight_decay`` to matrices alone: vectors
            (the scales of norms, biases) and embeddings, with a head that is tied to them, are a group without.
    """
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    if decay == "all":
        return [{"params": trained}]
    embeddings = {id(layer.weight) for layer in model.modules() if isinstance(layer, nn.Embedding)}
    bare = [weight.ndim < 2 or id(weight) in embeddings for weight in trained]
    groups: list[dict[str, Any]] = [
        {"params": [weight for weight, each in zip(trained, bare, strict=True) if not each]},
        {"params": [weight for weight, each in zip(trained, bare, strict=True) if each], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def check_groups(saved: Sequence[Any], groups: Sequence[Any]) -> None:
    """Raise if a checkpoint's optimizer has its weights in other groups than this run's.

    Args:
        saved: The groups of the checkpoint.
        groups: Those of :func:`weight_groups`.

    Raises:
        ConfigError: Their numbers differ.
    """
    if len(saved) != len(groups):
        raise ConfigError(
            f"Expected the checkpoint's optimizer to have {len(groups)} groups of weights, as `model.decay` makes "
            f"here, but it has {len(saved)}: set `model.decay` as in the run that wrote it, or start anew without "
            "`ckpt_path`."
        )


def rate_factor(schedule: Schedule, num_warmup_steps: int, num_steps: int) -> Callable[[int], float]:
    """Return the share of the learning rate that each optimizer step, counted from 0, is made with.

    Of W warm-up steps, step s has (s + 1) / (W + 1): no step has a rate of 0, which would count and change nothing.
    After them, of N steps in all, the rate stays (``constant_with_warmup``), or falls to 0 at step N, which there is
    not, in a straight line (``linear``) or as half a cosine.

    Args:
        schedule: The course after the warm-up.
        num_warmup_steps: W.
        num_steps: N.

    Example:
        >>> factor = rate_factor("linear", 3, 7)
        >>> [factor(step) for step in range(7)]
        [0.25, 0.5, 0.75, 1.0, 0.75, 0.5, 0.25]
    """
    num_falling = max(1, num_steps - num_warmup_steps)

    def factor(step: int) -> float:
        if step < num_warmup_steps:
            return (step + 1) / (num_warmup_steps + 1)
        if schedule == "linear":
            return max(0.0, (num_steps - step) / num_falling)
        if schedule == "cosine":
            return max(0.0, 0.5 * (1.0 + math.cos(math.pi * ((step - num_warmup_steps) / num_falling))))
        return 1.0

    return factor


def rate_schedule(optimizer: Optimizer, schedule: Schedule, num_warmup_steps: int, num_steps: int) -> LambdaLR:
    """Return torch's scheduler of :func:`rate_factor`; arguments as there."""
    return LambdaLR(optimizer, rate_factor(schedule, num_warmup_steps, num_steps))


def warn_idle(optimizer: Optimizer, step: int) -> None:
    """Warn where an optimizer step cannot change the weights: its learning rate is 0, or rounding undoes it.

    A step of an adaptive optimizer such as AdamW changes a weight by about the learning rate. To the nearest float,
    that is nothing where it is less than half a unit in the weight's last place.

    Args:
        optimizer: The optimizer before its first step of this run.
        step: Number of the step.
    """
    if not any(group["lr"] for group in optimizer.param_groups):
        rank_zero_warn(
            f"Optimizer step {step} has a learning rate of 0: it counts, and its rollouts are sampled, but it changes "
            "no weight. Set `model.optimizer.init_args.lr`; a scheduler of your own must not begin with 0 "
            "(`start_factor` of LinearLR above 0, a LambdaLR of (step + 1) / (num_warmup_steps + 1))."
        )
        return
    narrow = [
        (_local(weight), group.get("initial_lr", group["lr"]))
        for group in optimizer.param_groups
        for weight in group["params"]
        if weight.dtype == torch.bfloat16
    ]
    size = sum(weight.numel() for weight, _ in narrow)
    share = sum(int(_is_idle(weight, rate).sum()) for weight, rate in narrow) / size if size else 0.0
    if share > LARGEST_IDLE_SHARE:
        rank_zero_warn(
            f"{share:.0%} of the bfloat16 weights that are trained are so large that a step of the learning rate, "
            f"{narrow[0][1]:g}, is less than half a unit in their last place: AdamW will not change them. Set "
            "`model.source.dtype` to float32 and `trainer.precision` to bf16-mixed, which computes in bfloat16."
        )


def _is_idle(weight: Tensor, rate: float) -> Tensor:
    _, exponent = torch.frexp(weight.detach().float())  # of a fraction in [1/2, 1): a unit is eps * 2^(exponent - 1)
    return torch.ldexp(torch.tensor(torch.finfo(weight.dtype).eps), exponent - 1) / 2 > rate


def _local(weight: Tensor) -> Tensor:
    return weight.to_local() if isinstance(weight, DTensor) else weight
