"""How far the completions of held-out prompts have come, over all batches and events of a validation or test."""

from __future__ import annotations

from typing import Any

from lightning import Trainer
from lightning.pytorch.trainer.states import TrainerFn

from caopd.evaluation import EvaluationBatches
from caopd.training.callbacks.progress_rows import Row

_NAMES = {TrainerFn.TESTING: "test", TrainerFn.PREDICTING: "predict"}


class HeldOutRow(Row):
    """A row that counts completions; the number is that of all processes, and the share that of process 0.

    Args:
        trainer: The trainer, when its evaluation begins.
    """

    def __init__(self, trainer: Trainer) -> None:
        super().__init__(_NAMES.get(trainer.state.fn, "validation"), "completions")  # type: ignore[arg-type]
        loader, batches = _loaders(trainer)
        self._num_batches = float(sum(batches)) if isinstance(batches, list) else float(batches)
        self._num_done, self._calls, self._share, self._num_events = 0, 0, 0.0, 1
        if isinstance(loader, EvaluationBatches):
            self.total = loader.num_completions * self._num_batches / max(1, len(loader))
            self._num_events = loader.num_events

    def sampled(self, done: float, total: int) -> None:
        """Take note of how far a call of an engine has come; a batch has one for every event."""
        share = done / max(1, total)
        if share < self._share:
            self._calls += 1
        self._share = share
        self._count(min(1.0, (self._calls + share) / self._num_events))

    def end_batch(self, index: int) -> None:
        """Take note that a batch has ended.

        Args:
            index: Its number, from 0.
        """
        self._num_done, self._calls, self._share = index + 1, 0, 0.0
        self._count(0.0)

    def _count(self, share_of_batch: float) -> None:
        if self.total is not None and self._num_batches:
            self.done = self.total * (self._num_done + share_of_batch) / self._num_batches


def _loaders(trainer: Trainer) -> tuple[object, Any]:
    """Return what is iterated over, and how many batches of it."""
    if trainer.state.fn == TrainerFn.TESTING:
        return trainer.test_dataloaders, trainer.num_test_batches
    if trainer.state.fn == TrainerFn.PREDICTING:
        return trainer.predict_dataloaders, trainer.num_predict_batches
    checked = trainer.num_sanity_val_batches if trainer.sanity_checking else trainer.num_val_batches
    return trainer.val_dataloaders, checked
