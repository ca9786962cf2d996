"""Logs steps and rounds before a checkpoint can say that they are done.

Lightning writes what ``self.log`` was given once all callbacks have been called, those among them that write
checkpoints. A run that is killed in between, and resumed from such a checkpoint, would never log these values.
"""

from __future__ import annotations

from collections.abc import Mapping

from lightning import LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from caopd.distributed import log_alike


def log_round(module: LightningModule, values: Mapping[str, Tensor | float]) -> None:
    """Log values of a round in the hook that ends it, for callbacks that monitor them too; a collective operation.

    Args:
        module: The module.
        values: Name in the log -> value, the same in every process.
    """
    log_alike(module, values, logger=False)
    _write(module, values, module.trainer.global_step - 1)


def log_step(module: LightningModule, values: Mapping[str, Tensor | float]) -> None:
    """Log values of the optimizer step that is made now, for loggers every ``trainer.log_every_n_steps`` steps.

    Args:
        module: The module, in its hook ``on_before_optimizer_step``.
        values: Name in the log -> value, the same in every process.
    """
    module.log_dict(
        dict(values), prog_bar=True, logger=False, on_step=True, on_epoch=False, sync_dist=True, rank_zero_only=True
    )
    step, every = module.trainer.global_step, module.trainer.log_every_n_steps  # type: ignore[attr-defined]
    if every and (step + 1) % every == 0:
        _write(module, values, step)


def judged_step(trainer: Trainer) -> dict[str, float]:
    """Return the step at which what is measured of a checkpoint is logged, under the name that Lightning reads it by.

    Args:
        trainer: The trainer; in a fit, or without a checkpoint, Lightning itself knows the step.
    """
    judges = trainer.state.fn != TrainerFn.FITTING and trainer.ckpt_path is not None
    return {"step": float(trainer.global_step)} if judges else {}


def _write(module: LightningModule, values: Mapping[str, Tensor | float], step: int) -> None:
    scalars = {name: float(value) for name, value in values.items()} | {"epoch": module.trainer.current_epoch}
    for logger in module.trainer.loggers:
        logger.log_metrics(scalars, step=step)
        logger.save()
