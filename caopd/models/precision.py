"""Checks that Lightning's precision leaves batches and weights as they are."""

from __future__ import annotations

from lightning import Trainer
from lightning.pytorch.plugins import MixedPrecision, Precision

from caopd.errors import ConfigError

_LEAVING = (Precision, MixedPrecision)
"""Precisions that leave weights and batches as they are: exactly these classes, since their subclasses convert them."""


def check_precision(trainer: Trainer) -> None:
    """Raise if the trainer's precision converts weights and batches.

    A teacher's small steps vanish in half precision, and so do a confidence's decimals and the log-probabilities that
    ratios are made of.

    Args:
        trainer: The trainer whose precision is checked.

    Raises:
        ConfigError: The precision is neither full nor mixed.
    """
    plugin = trainer.precision_plugin
    if type(plugin) not in _LEAVING:
        raise ConfigError(
            f"Expected `precision` of the Trainer to be 32-true, bf16-mixed or 16-mixed, but got {plugin.precision} "
            f"({type(plugin).__name__}), which converts weights and batches: take bf16-mixed for "
            "bf16-true, 32-true for 64-true. To shard, take ModelParallelStrategy."
        )
