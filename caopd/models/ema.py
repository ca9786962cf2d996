"""The exponential moving average of a model's weights."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from caopd.models.language_model import LanguageModel


def make_teacher(student: LanguageModel) -> LanguageModel:
    """Return a frozen copy of the student as it is in memory, in evaluation mode."""
    return copy.deepcopy(student).requires_grad_(False).eval()


@torch.no_grad()
def update_teacher(teacher: nn.Module, student: nn.Module, rate: float) -> None:
    """Move the teacher's weights towards the student's: theta_T <- (1 - rate) theta_T + rate theta, in place.

    Sharded weights are averaged shard by shard.

    Args:
        teacher: Whose parameters change.
        student: Whose parameters are averaged in; the same architecture, sharded alike.
        rate: Share of the student, in [0, 1].
    """
    average = get_ema_multi_avg_fn(decay=1.0 - rate)  # type: ignore[no-untyped-call]
    average(_local(teacher.parameters()), _local(student.parameters()), 1)


def _local(parameters: Iterable[nn.Parameter]) -> list[Tensor]:
    return [p.to_local() if isinstance(p, DTensor) else p.detach() for p in parameters]
