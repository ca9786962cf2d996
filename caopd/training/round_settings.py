"""The settings that shape a round, as text: those of a buffer, of a checkpoint and of a run are compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from caopd.training.datamodule import RolloutDataModule

PARTS = (
    "seed",
    "round",
    "sampling",
    "batch_size",
    "tokens_per_batch",
    "task",
    "estimator",
    "confidence",
    "template_arguments",
)
"""The settings of the data module that shape a round."""


def round_settings(data: RolloutDataModule) -> dict[str, str]:
    """Return the settings that decide a round's rollouts, their training samples and the order of these.

    Args:
        data: The data module of a run whose trainer has begun.
    """
    trainer = data.trainer
    assert trainer is not None
    return {
        **{f"data.{name}": described(getattr(data, name)) for name in PARTS},
        "model.method": described(trainer.lightning_module.method),
        "trainer.accumulate_grad_batches": str(data.plan.accumulate),
        "number of processes": str(trainer.world_size),
    }


def described(value: Any) -> str:  # noqa: ANN401 (whatever a config makes)
    """Return a text that is the same for parts that were made with the same settings.

    Dataclasses have their fields, other objects their public attributes; what is neither shown nor compared is what a
    class keeps for itself under names that begin with an underscore.

    Args:
        value: A setting: plain data, or an object of any class.

    Example:
        >>> from caopd.rounds.config import RoundConfig
        >>> described(RoundConfig(4, 2))
        'RoundConfig(num_prompts_per_round=4, num_rollouts=2, num_trained_rollouts=None, adaptive=None)'
    """
    if value is None or isinstance(value, str | int | float | Path):
        return repr(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{described(key)}: {described(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple | set | frozenset):
        parts = [described(each) for each in value]
        return "[" + ", ".join(sorted(parts) if isinstance(value, set | frozenset) else parts) + "]"
    if callable(value) and hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    if is_dataclass(value):
        named = {field.name: getattr(value, field.name) for field in fields(value)}
    else:
        named = getattr(value, "__dict__", {})
    shown = [f"{name}={described(each)}" for name, each in named.items() if not name.startswith("_")]
    return f"{type(value).__qualname__}({', '.join(shown)})"
