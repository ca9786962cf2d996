"""Tells a trainer that judges a checkpoint how many optimizer steps its weights have had."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn


class JudgedStep(Callback):
    """Sets ``trainer.global_step`` to the checkpoint's while it is validated, tested or predicted with.

    Lightning restores it for a fit alone, and would log what it measures of any checkpoint at step 0, or at the end of
    the fit before.
    """

    def __init__(self) -> None:
        self._before: dict[str, Any] | None = None

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take over the checkpoint's count of steps."""
        if trainer.state.fn != TrainerFn.FITTING:
            progress = trainer.fit_loop.epoch_loop.automatic_optimization.optim_progress
            self._before = deepcopy(progress.state_dict())
            progress.load_state_dict(checkpoint["loops"]["fit_loop"][_PROGRESS])

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give the trainer its own count back."""
        if self._before is not None:
            trainer.fit_loop.epoch_loop.automatic_optimization.optim_progress.load_state_dict(self._before)
            self._before = None


_PROGRESS = "epoch_loop.automatic_optimization.optim_progress"
