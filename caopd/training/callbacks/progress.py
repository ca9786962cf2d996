"""A progress bar that says what the round is doing."""

from __future__ import annotations

import math

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.trainer.states import TrainerFn

from caopd.rounds.phases import Phase


class PhaseProgressBar(RichProgressBar):
    """Lightning's rich progress bar with the current phase before the metrics: sync, rollout, verify or train."""

    def __init__(self, refresh_rate: int = 1, leave: bool = False) -> None:
        super().__init__(refresh_rate=refresh_rate, leave=leave)
        self._phase: Phase = "rollout"

    def on_phase(self, phase: Phase) -> None:
        """Show the phase at once, even in the first round, which comes before Lightning makes the bar."""
        self._phase = phase
        if self.is_disabled or self.trainer.state.fn != TrainerFn.FITTING or self.trainer.sanity_checking:
            return
        self._init_progress(self.trainer)
        assert self.progress is not None
        description = self._describe(self.trainer.current_epoch)
        if self.train_progress_bar_id is None:
            self.train_progress_bar_id = self._add_task(math.inf, description)
        self.progress.update(self.train_progress_bar_id, description=description)
        self.refresh(hard=True)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show that training begins: the rollouts are there."""
        super().on_train_epoch_start(trainer, pl_module)
        self.on_phase("train")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the bar as it is: process 0 alone must not read values that all processes reduce together."""

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the bar, so that what a fit prints at its end stands below it."""
        self.teardown(trainer, pl_module, "fit")

    def _describe(self, number: int) -> str:
        return f"round {number + 1}/{self.trainer.max_epochs} {self._phase:<7}"

    def _get_train_description(self, current_epoch: int) -> str:
        return self._describe(current_epoch)
