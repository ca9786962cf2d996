"""Tells, when a run has been cut short, the command that goes on with it."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn

from caopd.errors import CaopdError, ConfigError, NonFiniteError
from caopd.run_directory import own_run_directory
from caopd.texts import escaped
from caopd.training.checkpoints import LAST, newest_first

_OPTION = "--ckpt_path"


class ResumeCommand(Callback):
    """Remembers how far a fit had come when an exception ended it, so that the command line can say how to go on.

    Args:
        arguments: The command line, without the program's name.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        self.arguments = list(arguments)
        self._ended: tuple[int, list[Path]] | None = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Remember the run, in process 0; one that cannot work as it is set is not to go on as it is.

        Args:
            trainer: The trainer.
            pl_module: Not used.
            exception: What ended the run.
        """
        if trainer.state.fn != TrainerFn.FITTING or not trainer.is_global_zero:
            return
        is_wrong_as_set = isinstance(exception, CaopdError) and exception.exit_status == ConfigError.exit_status
        if not is_wrong_as_set and not isinstance(exception, NonFiniteError):
            callbacks = [each for each in trainer.checkpoint_callbacks if isinstance(each, ModelCheckpoint)]
            folders = [own_run_directory(trainer), *(Path(each.dirpath) for each in callbacks if each.dirpath)]
            self._ended = (trainer.global_step, folders)

    def say(self) -> None:
        """Write to standard error how to go on, if a fit was cut short."""
        if self._ended is None:
            return
        step, folders = self._ended
        newest = next(iter(newest_first(folders)), None)
        found = "it has no checkpoint yet" if newest is None else f"its newest checkpoint is {newest}"
        command = shlex.join(["caopd", *without_checkpoint(self.arguments), f"{_OPTION}={LAST}"])
        sys.stderr.write(
            escaped(f"The run ended after optimizer step {step}; {found}. The same command goes on with it:")
            + f"\n    {escaped(command)}\n"
        )


def without_checkpoint(arguments: Sequence[str]) -> list[str]:
    """Return a command line without its checkpoint.

    Args:
        arguments: The command line, as words.

    Example:
        >>> without_checkpoint(["fit", "--ckpt_path", "a.ckpt", "--data.seed=1"])
        ['fit', '--data.seed=1']
    """
    return [
        word
        for before, word in zip(["", *arguments], arguments, strict=False)
        if before != _OPTION and word != _OPTION and not word.startswith(f"{_OPTION}=")
    ]
