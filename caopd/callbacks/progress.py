"""A progress bar that says what the round is doing."""

from __future__ import annotations

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar

from caopd.phases import Phase


class PhaseProgressBar(RichProgressBar):
    """Lightning's rich progress bar with the current phase before the metrics: sync, rollout, verify or train."""

    def __init__(self, refresh_rate: int = 1, leave: bool = False) -> None:
        super().__init__(refresh_rate=refresh_rate, leave=leave)
        self._phase: Phase = "rollout"

    def on_phase(self, phase: Phase) -> None:
        """Show the phase at once."""
        self._phase = phase
        if self.progress is not None and self.train_progress_bar_id is not None:
            number = self.trainer.current_epoch
            self.progress.update(self.train_progress_bar_id, description=self._describe(number))
            self.refresh()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The rollouts are there: train."""
        super().on_train_epoch_start(trainer, pl_module)
        self.on_phase("train")

    def _describe(self, number: int) -> str:
        return f"round {number + 1}/{self.trainer.max_epochs} {self._phase:<7}"

    def _get_train_description(self, current_epoch: int) -> str:
        return self._describe(current_epoch)
