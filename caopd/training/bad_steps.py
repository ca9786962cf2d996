"""Saves the micro-batches of an optimizer step that went wrong, for inspection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from caopd.files import written
from caopd.rounds.batches import TokenBatch


@dataclass(frozen=True)
class MicroBatch:
    """A micro-batch of the optimizer step in hand.

    Attributes:
        number: Its number within the round, counted from 0.
        batch: The sequences.
        loss: Its share of the step's loss.
    """

    number: int
    batch: TokenBatch
    loss: Tensor


def save_step(path: Path, facts: dict[str, Any], micro_batches: Sequence[MicroBatch]) -> None:
    """Write a file that ``torch.load(path, weights_only=True)`` reads: plain data, and tensors on the CPU.

    Args:
        path: The file; its folder is made.
        facts: What is known of the step, as plain data by name.
        micro_batches: This process's share of the step. Each becomes its ``number``, its ``loss``, and its ``batch``:
            the fields of :class:`caopd.rounds.batches.TokenBatch` by name.

    Raises:
        OSError: The file cannot be written.
    """
    shares = [{"number": one.number, "loss": float(one.loss), "batch": _plain(one.batch)} for one in micro_batches]
    with written(path) as file:
        torch.save({**facts, "micro_batches": shares}, file)


def _plain(batch: TokenBatch) -> dict[str, Any]:
    on_cpu = batch.to("cpu")
    values = {field.name: getattr(on_cpu, field.name) for field in fields(on_cpu)}
    rows = {name: vars(values[name]) for name in ("student", "teacher")}
    return values | rows | {"denominators": asdict(batch.denominators)}
