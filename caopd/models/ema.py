"""The exponential moving average (EMA) of a model's weights."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from caopd.models.language_model import LanguageModel


def make_teacher(student: LanguageModel) -> LanguageModel:
    """Return a frozen copy of the student as it is in memory, in evaluation mode.

    Weights that the student does not train, such as those under LoRA adapters, are shared, not copied.
    """
    shared = {id(weight): weight for weight in student.parameters() if not weight.requires_grad}
    return copy.deepcopy(student, shared).requires_grad_(False).eval()


@torch.no_grad()
def update_teacher(teacher: nn.Module, student: nn.Module, rate: float) -> None:
    """Move the teacher's weights towards the student's: theta_T <- (1 - rate) theta_T + rate theta, in place.

    Sharded weights are averaged shard by shard.

    Args:
        teacher: The model whose parameters change.
        student: The model whose trained parameters are mixed in; it has the same architecture and is sharded alike.
        rate: Share of the student in the new weights, in [0, 1].
    """
    average = get_ema_multi_avg_fn(decay=1.0 - rate)  # type: ignore[no-untyped-call]
    pairs = zip(teacher.parameters(), student.parameters(), strict=True)
    averaged, trained = zip(*((mine, its) for mine, its in pairs if its.requires_grad), strict=True)
    average(_local(averaged), _local(trained), 1)


def _local(parameters: Iterable[nn.Parameter]) -> list[Tensor]:
    return [p.to_local() if isinstance(p, DTensor) else p.detach() for p in parameters]
