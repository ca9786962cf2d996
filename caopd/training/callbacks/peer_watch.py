"""Ends a process of a run when another one of it has failed alone, has ended, or does not answer any more."""

from __future__ import annotations

import atexit
import json
import signal

from lightning import Callback, LightningModule, Trainer

from caopd.distributed import described, is_distributed, is_first_process, on_first_process, together
from caopd.errors import CaopdError, ConfigError, PeerError
from caopd.training.held_out_data import HeldOutDataModule
from caopd.training.peers import PeerLine


class PeerWatch(Callback):
    """Watches over the processes of a run, where there are several, so that none waits for one that is not there.

    A process that has ended is noticed at once, one that is stopped or unreachable after ``timeout_seconds``. One that
    fails while the others go on ends within 10 seconds, and all others with it; no checkpoint is written then, since
    that needs every process. The message names the process, its host, and what has happened. Where all processes fail
    at the same point, ``ModelCheckpoint(save_on_exception=True)`` saves as in runs of one process.

    Args:
        timeout_seconds: How long another process may not answer. Sampling, saving and loading do not count, however
            long they take: a process answers while it works. None is no watch.

    Raises:
        ConfigError: The time is not above 0.
    """

    def __init__(self, timeout_seconds: float | None = 300.0) -> None:
        if timeout_seconds is not None and timeout_seconds <= 0:
            raise ConfigError(f"Expected `peers.timeout_seconds` to be above 0, or null, but got {timeout_seconds}.")
        self.timeout_seconds = timeout_seconds
        self._line: PeerLine | None = None
        self._stage = ""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Connect the processes, unless they are: a fit may validate within. A collective operation."""
        if self._line is not None or self.timeout_seconds is None or not is_distributed():
            return

        def end_children() -> None:
            if trainer.strategy.launcher is not None:
                trainer.strategy.launcher.kill(signal.SIGKILL)

        line = PeerLine(self.timeout_seconds, end_children)
        address = on_first_process(lambda: line.listen(_first_node(trainer)))
        together(lambda: None if is_first_process() else line.connect(address))
        line.start()
        atexit.register(line.leave)  # where an error ends the run
        self._line, self._stage = line, stage

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Stop watching: from here on the processes end at different times."""
        if self._line is not None and stage == self._stage:
            atexit.unregister(self._line.leave)
            self._line.close()
            self._line = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Go on to what is saved and closed after an error where all processes do so together; end all if not.

        Raises:
            PeerError: This process has failed because another one has ended.
            BaseException: The error itself, so that nothing waits for the other processes.
        """
        line = self._line
        if line is None or (not line.is_alone and line.fail(described(exception), _where(trainer))):
            return
        if isinstance(trainer.datamodule, HeldOutDataModule):  # type: ignore[attr-defined]
            trainer.datamodule.engine.close()  # type: ignore[attr-defined]  # no process of vLLM is left
        if isinstance(exception, KeyboardInterrupt):
            raise SystemExit(1)  # as Lightning does after it has saved
        if line.ended is not None and isinstance(exception, RuntimeError) and not isinstance(exception, CaopdError):
            raise PeerError(f"Stopped, since {line.ended}.") from exception
        raise exception


def _first_node(trainer: Trainer) -> str | None:
    """Return the address of process 0's node, None where there is only one node."""
    environment = trainer.strategy.cluster_environment  # type: ignore[attr-defined]  # of every strategy of several
    return None if trainer.num_nodes == 1 or environment is None else environment.main_address


def _where(trainer: Trainer) -> str:
    """Return how far the run is: the loops' own counters."""
    training = trainer.fit_loop.epoch_loop
    evaluation = [loop.batch_progress for loop in (training.val_loop, trainer.validate_loop, trainer.test_loop)]
    progress = [each.state_dict() for each in (training.batch_progress, *evaluation)]
    return json.dumps([trainer.state.stage, trainer.current_epoch, trainer.global_step, progress])
