"""What a checkpoint says of the round in which it was written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from lightning import Trainer

from caopd.errors import ConfigError, DataError
from caopd.rounds.buffer import load_groups
from caopd.run_directory import run_of_checkpoint
from caopd.training.checkpoints import newest_of_a_rounds_end
from caopd.training.resume import num_batches_done
from caopd.types import VerifiedGroup


@dataclass(frozen=True)
class RoundState:
    """A round that is being trained on, and how far training has got.

    Attributes:
        number: Number of the round, counted from 0.
        file: The file of its rollouts.
        digest: SHA-256 of that file; empty in processes that write no checkpoint.
        settings: The settings that shape a round: name -> value as text.
        num_batches: Number of micro-batches of this process.
        statistics: The numbers that are logged of it; some are measured while its rollouts are sampled.
        num_batches_done: How many of them the weights have been trained on.
    """

    number: int
    file: str
    digest: str
    settings: dict[str, str]
    num_batches: int
    statistics: dict[str, float]
    num_batches_done: int = 0

    @classmethod
    def restored(cls, saved: Mapping[str, Any], checkpoint: Path) -> RoundState:
        """Return the state that a checkpoint holds; if the run directory was moved, rollouts are found beside it.

        Args:
            saved: The fields of this class, by name.
            checkpoint: The checkpoint's file, or the folder of a sharded one.

        Raises:
            ConfigError: It has other fields.
        """
        if set(saved) != {field.name for field in fields(cls)}:
            raise ConfigError(
                f"Expected {checkpoint}, which was written within a round, to say how its batches were made, but it "
                "does not: it is damaged, or was written by another program. Resume from another checkpoint."
            )
        state = cls(**saved)
        recorded = Path(state.file)
        beside = run_of_checkpoint(checkpoint) / recorded.parent.name / recorded.name
        return state if recorded.is_file() else replace(state, file=str(beside))

    @property
    def is_finished(self) -> bool:
        """Whether every micro-batch has been trained on."""
        return self.num_batches_done == self.num_batches

    def groups(self, checkpoint: Path) -> list[VerifiedGroup]:
        """Read the round's rollouts.

        Args:
            checkpoint: The checkpoint that holds this state, for the error.

        Raises:
            DataError: The file is missing, or is not as it was written; the message names the newest checkpoint of the
                run that needs no rollouts.
        """
        try:
            return load_groups(Path(self.file), self.digest or None)
        except DataError as error:
            sound = newest_of_a_rounds_end(checkpoint)
            newest = "" if sound is None else f"; the newest sound one of this run is `--ckpt_path={sound}`"
            raise DataError(
                f"{error} The checkpoint {checkpoint} was written within round {self.number} and goes on with these "
                f"rollouts. Without them resume from a checkpoint that was written at the end of a round{newest}."
            ) from None  # the inner one says less

    def check_settings(self, settings: Mapping[str, str]) -> None:
        """Raise unless the rest of the round is made and shared out as its beginning was.

        Args:
            settings: The settings of this run that shape a round.

        Raises:
            ConfigError: Otherwise a batch would be trained on twice, or never, or be another one.
        """
        names = [name for name in {**self.settings, **settings} if self.settings.get(name) != settings.get(name)]
        if names:
            differ = ", ".join(f"{name} {self.settings.get(name)} (now {settings.get(name)})" for name in names)
            raise ConfigError(
                "Expected a run that resumes within a round to have the settings that the round began with, but the "
                f"checkpoint has {differ}: batches would be left out, trained on twice, or be others. Set them as they "
                "were, or resume from a checkpoint that was written at the end of a round."
            )


class RoundProgress:
    """The round that is being trained on, and the one that an interrupted run was in.

    Args:
        saved: What a checkpoint says of its round; None where it was written between two rounds.

    Attributes:
        state: State of the round that is being trained on; None before the first.
    """

    def __init__(self, saved: Mapping[str, Any] | None = None) -> None:
        self.state: RoundState | None = None
        self._saved = saved

    def interrupted(self, number: int, checkpoint: str | Path | None) -> RoundState | None:
        """Return, once, the round that an interrupted run was in, if it is the one that comes now.

        Args:
            number: Number of the round that comes now.
            checkpoint: The checkpoint that the run resumes from.
        """
        saved, self._saved = self._saved, None
        if saved is None or saved["number"] != number:
            return None
        return RoundState.restored(saved, Path(str(checkpoint)))

    def saved(self, trainer: Trainer) -> dict[str, Any] | None:
        """Return what a checkpoint must say of the round; None between two rounds.

        Args:
            trainer: The trainer, which knows how far training has got.
        """
        loop = trainer.fit_loop.epoch_loop
        if self.state is None or loop.batch_progress.current.ready == 0:
            return None
        num_steps = loop.automatic_optimization.optim_progress.optimizer.step.current.completed
        num_done = num_batches_done(loop.batch_progress.state_dict(), num_steps, trainer.accumulate_grad_batches)
        return asdict(replace(self.state, num_batches_done=num_done))
