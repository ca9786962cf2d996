"""Logs every rollout round: what was sampled, and how long each phase took."""

from __future__ import annotations

import time
from statistics import fmean

from lightning import Callback, LightningModule, Trainer

from caopd.distributed import gather_in_order
from caopd.training.datamodule import RolloutDataModule
from caopd.training.logging import log_round


class RoundStatistics(Callback):
    """Logs ``rollout/*`` (accuracy, mu_hat, format adherence, ...) and ``time/*`` (seconds a phase, tokens/s)."""

    def __init__(self) -> None:
        self._train_seconds = 0.0
        self._batch_start = 0.0

    def on_train_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: object,
        batch_idx: int,
    ) -> None:
        """Start the clock of a training step."""
        self._batch_start = time.perf_counter()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        """Stop the clock of a training step."""
        self._train_seconds += time.perf_counter() - self._batch_start

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the statistics of the round and the seconds of its phases."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(data, RolloutDataModule) or not data.statistics:
            return
        each = gather_in_order([data.clock.take() | {"train": self._train_seconds}])
        seconds = {phase: fmean(process[phase] for process in each) for phase in each[0]}
        self._train_seconds = 0.0
        values = {f"rollout/{name}": value for name, value in data.statistics.items()}
        values |= {f"time/{phase}_seconds": value for phase, value in seconds.items()}
        if seconds.get("rollout"):
            values["time/rollout_tokens_per_second"] = data.statistics["num_tokens"] / seconds["rollout"]
        log_round(pl_module, values)
