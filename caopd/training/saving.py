"""Lets callbacks that write checkpoints go on, after a resume, as if the run had not been interrupted.

Callbacks are called one after the other. A checkpoint holds the state of those behind the one that writes it from
before the hook, and Lightning does not call them again: the best checkpoint of a round would be missing. Lightning also
keeps beside their states what they decide by: the metrics they monitor, the step they last saved at.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason
from lightning.pytorch.loops.fit_loop import _FitLoop

from caopd.training.resume import interrupted_hook

_SECONDS = "time/"
"""Prefix of the metrics that differ from run to run."""
_UNSAVED = ("_last_global_step_saved", "_defer_save_until_validation", "current_score")
"""What a ModelCheckpoint decides by or saves, but does not restore."""


class SavingCallbacks:
    """What a checkpoint must say of the callbacks of kind :class:`ModelCheckpoint`."""

    def __init__(self) -> None:
        self._restored: Mapping[str, Any] | None = None
        self._hook: str | None = None
        self._kept: set[str] = set()

    def saved(self, trainer: Trainer, fit_loop: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a checkpoint must hold; every process must ask.

        Args:
            trainer: The trainer, which writes a checkpoint.
            fit_loop: ``checkpoint["loops"]["fit_loop"]``, as Lightning has made it.
        """
        callbacks = _callbacks(trainer)
        before, self._kept = self._kept, {file for callback in callbacks.values() for file in _deleted_later(callback)}
        return {
            "hook": self._hook or interrupted_hook(fit_loop),
            "metrics": {k: float(v) for k, v in trainer.callback_metrics.items() if not k.startswith(_SECONDS)},
            "callbacks": {key: {name: getattr(each, name) for name in _UNSAVED} for key, each in callbacks.items()},
            "superseded": sorted(before - self._kept),
        }

    def restore(self, saved: Mapping[str, Any] | None) -> None:
        """Take what a checkpoint holds; None where it holds nothing."""
        self._restored = saved

    def end_hook(self, trainer: Trainer) -> None:
        """Call the callbacks whose hook was interrupted, once after a resume; a collective operation.

        Args:
            trainer: The trainer with its state restored, before it goes on.
        """
        saved, self._restored = self._restored, None
        if saved is None:
            return
        # Not what else stopped it, such as `max_time`: a run that goes on may have another limit.
        stops = [each.stopping_reason for each in trainer.early_stopping_callbacks]
        trainer.should_stop = any(reason != EarlyStoppingReason.NOT_STOPPED for reason in stops)
        trainer.callback_metrics.update({name: torch.tensor(value) for name, value in saved["metrics"].items()})
        trainer.fit_loop.epoch_loop.val_loop.setup_data()  # callbacks ask how many batches a validation has
        resumed_from, trainer.ckpt_path = Path(str(trainer.ckpt_path)), None  # else it would never be deleted
        callbacks = _callbacks(trainer)
        for key, callback in callbacks.items():
            wrote = any(Path(file).parts[-2:] == resumed_from.parts[-2:] for file in _files(callback))
            unsaved = saved["callbacks"].get(key, {})
            for name in _UNSAVED:  # a checkpoint sets nothing else
                setattr(callback, name, unsaved.get(name, getattr(callback, name)))
            if wrote:
                callback._last_global_step_saved = trainer.global_step
        folders = {Path(str(callback.dirpath)) for callback in callbacks.values()}
        for file in map(Path, saved["superseded"]):
            if file.parent in folders and file.suffix == ModelCheckpoint.FILE_EXTENSION:
                trainer.strategy.remove_checkpoint(file)
        self._kept = {file for callback in callbacks.values() for file in _deleted_later(callback)}
        self._call(trainer, saved["hook"])
        if saved["hook"] == "on_train_epoch_end":
            _leave_epoch(trainer.fit_loop)

    def _call(self, trainer: Trainer, hook: str | None) -> None:
        self._hook = hook
        for callback in _callbacks(trainer).values():  # one that has saved at this step does nothing
            if hook == "on_train_batch_end":
                index = trainer.fit_loop.epoch_loop.batch_idx
                callback.on_train_batch_end(trainer, trainer.lightning_module, None, None, index)
            elif hook == "on_validation_end":
                callback.on_validation_end(trainer, trainer.lightning_module)
            elif hook == "on_train_epoch_end":
                callback.on_train_epoch_end(trainer, trainer.lightning_module)
        self._hook = None


def _leave_epoch(fit_loop: _FitLoop) -> None:
    """Go on behind an epoch that has ended; Lightning would go on within it where a run is counted in steps."""
    fit_loop._restarting = fit_loop.epoch_loop.restarting = False
    progress = fit_loop.epoch_progress
    if fit_loop.done and progress.current.completed < progress.state_dict()["current"]["processed"]:
        progress.increment_completed()  # as it does at the end of an epoch, but not of a run that is over


def _callbacks(trainer: Trainer) -> dict[str, ModelCheckpoint]:
    return {each.state_key: each for each in trainer.checkpoint_callbacks if isinstance(each, ModelCheckpoint)}


def _files(callback: ModelCheckpoint) -> set[str]:
    return {str(file) for file in (*callback.best_k_models, callback.best_model_path, callback.last_model_path) if file}


def _deleted_later(callback: ModelCheckpoint) -> set[str]:
    """Return the files of a callback that it deletes when another takes their place."""
    keeps_all = callback.monitor is None and callback.save_top_k != 1
    return _files(callback) - ({str(callback.best_model_path)} if keeps_all else set())
