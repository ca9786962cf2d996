"""Ends a run that is asked to stop where all processes are at the same point, and has SLURM start it again."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from pathlib import Path
from types import FrameType
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from lightning.pytorch.utilities.exceptions import SIGTERMException

from caopd.rounds.phases import Phase
from caopd.run_directory import run_directory
from caopd.texts import escaped_lines


def requeued() -> bool:
    """Return whether SLURM has started this job before."""
    return SLURMEnvironment.detect() and int(os.environ.get("SLURM_RESTART_COUNT", "0")) > 0


class Preemption(Callback):
    """Answers SIGTERM, and under SLURM SIGUSR1 too: the run ends behind the batch in hand, in every process at once.

    Lightning's own handlers communicate, or save a checkpoint, in the middle of whatever their process is doing: of an
    optimizer step, or of a collective operation that the other processes are in, where they wait for ever. So this one
    takes their place in every stage, also in the validation after the last round; what is only measured ends likewise.

    Under SLURM a checkpoint is saved, ``preempted-stepN.ckpt``, and the job is put back into the queue; it goes on from
    there when it starts again. While rollouts are sampled there is no batch: if the newest checkpoint holds the weights
    that sample, the job is put back at once, else when the rollouts have ended.

    Args:
        requeue: Whether to save and to put the job back under SLURM.
    """

    def __init__(self, requeue: bool = True) -> None:
        self.requeue = requeue
        self._signal: int | None = None
        self._stops = False
        self._requeued = False
        self._fits, self._is_first = False, False
        self._phase: Phase | None = None
        self._step, self._saved_step = 0, -1
        self._checkpoints = Path()
        self._before: dict[int, Any] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Ask for the run directory, a collective operation, and remember the handlers of the user's own."""
        self._is_first = trainer.is_global_zero
        if stage == "fit":
            self._fits, self._checkpoints = True, run_directory(trainer) / "checkpoints"
        for number in (signal.SIGTERM, signal.SIGUSR1):
            if signal.getsignal(number) != self._receive:  # the stage is none within a fit
                self._before[number] = signal.getsignal(number)

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take over from Lightning's handlers, which it restores in the end."""
        self._take_over()

    on_train_start = on_test_start = on_predict_start = on_sanity_check_start

    def _take_over(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGUSR1) if self._under_slurm else (signal.SIGTERM,):
                signal.signal(number, self._receive)

    def on_phase(self, phase: Phase) -> None:
        """Remember what the round is doing; the first one of a run that goes on is sampled before it trains."""
        self._phase = phase
        self._take_over()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Remember which weights were saved."""
        self._saved_step = trainer.global_step

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Remember which weights were saved."""
        self._saved_step = self._step = int(checkpoint["global_step"])

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        """End the run if it was asked to."""
        self._phase = "train"
        self._end()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Agree whether to end, and save; the batch is logged behind this hook, so the run ends in the next one."""
        self._step = trainer.global_step
        if trainer.strategy.reduce_boolean_decision(self._signal is not None, all=False):
            self._save(trainer)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Agree whether to end, and do so: a validation is repeated as a whole."""
        if trainer.strategy.reduce_boolean_decision(self._signal is not None, all=False):
            if not trainer.sanity_checking:
                self._save(trainer)
            self._stops = True
            self._end()

    on_test_batch_end = on_predict_batch_end = on_validation_batch_end

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the run if it was asked to; one that only validates begins here."""
        self._take_over()
        self._end()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the run if it was asked to."""
        self._end()

    @property
    def _under_slurm(self) -> bool:
        return self.requeue and self._fits and SLURMEnvironment.detect()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        """Remember the signal; everything else would have to wait until the processes are at the same point."""
        self._signal = number
        if callable(own := self._before.get(number)):
            own(number, frame)
        if self._under_slurm and self._phase in ("sync", "rollout", "verify") and self._saved_step == self._step:
            self._requeue()

    def _save(self, trainer: Trainer) -> None:
        """Save a checkpoint under SLURM, and remove an earlier one of this kind; collective."""
        self._stops = True
        if not self._under_slurm:
            return
        path = self._checkpoints / f"preempted-step{trainer.global_step}.ckpt"
        earlier = [each for each in self._checkpoints.glob("preempted-step*.ckpt") if each != path]
        trainer.save_checkpoint(path, weights_only=False)
        rank_zero_info(escaped_lines(f"The run was asked to end. It is saved as {path}."))
        for each in earlier if trainer.is_global_zero else []:
            trainer.strategy.remove_checkpoint(each)

    def _end(self) -> None:
        """End the run, if the processes have agreed to."""
        if self._stops:
            if self._under_slurm:
                self._requeue()
            raise SIGTERMException

    def _requeue(self) -> None:
        """Put the job back into SLURM's queue, once, in process 0."""
        if self._requeued or not self._is_first:
            return
        self._requeued = True
        job = os.environ["SLURM_JOB_ID"]
        if "SLURM_ARRAY_JOB_ID" in os.environ:
            job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
        try:
            subprocess.run(["scontrol", "requeue", job], check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            why = str(error.stderr if isinstance(error, subprocess.CalledProcessError) else error).strip()
            rank_zero_warn(
                f"SLURM has not put job {job} back into its queue ({why}): submit the same command again, with "
                "`--ckpt_path=last`."
            )
        else:
            rank_zero_info(f"SLURM has put job {job} back into its queue.")
