"""What a checkpoint says of the round in which it was written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from lightning import Trainer

from caopd.errors import ConfigError
from caopd.rounds.batches import BatchPlan
from caopd.rounds.buffer import load_groups
from caopd.run_directory import run_of_checkpoint
from caopd.training.resume import num_batches_done
from caopd.types import VerifiedGroup


@dataclass(frozen=True)
class RoundState:
    """A round that is being trained on, and how far training has got.

    Attributes:
        number: Number of the round, counted from 0.
        file: The file of its rollouts.
        digest: SHA-256 of that file; empty in processes that write no checkpoint.
        plan: How its samples are shared out to optimizer steps and processes.
        num_samples: Number of its training samples.
        num_batches: Number of micro-batches of this process.
        statistics: The numbers that are logged of it; some are measured while its rollouts are sampled.
        num_batches_done: How many of them the weights have been trained on.
    """

    number: int
    file: str
    digest: str
    plan: dict[str, int]
    num_samples: int
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
            ConfigError: It was written by a version with other fields.
        """
        if set(saved) != {field.name for field in fields(cls)}:
            raise ConfigError(
                "Expected a checkpoint from within a round to say how its batches were made, but this one does not: it "
                "was written by an earlier version of caopd. Resume from a checkpoint that was written at the end of a "
                "round."
            )
        state = cls(**saved)
        recorded = Path(state.file)
        beside = run_of_checkpoint(checkpoint) / recorded.parent.name / recorded.name
        return state if recorded.is_file() else replace(state, file=str(beside))

    @property
    def is_finished(self) -> bool:
        """Whether every micro-batch has been trained on."""
        return self.num_batches_done == self.num_batches

    def groups(self) -> list[VerifiedGroup]:
        """Read the round's rollouts.

        Raises:
            DataError: The file is missing, or is not as it was written.
        """
        return load_groups(Path(self.file), self.digest)

    def check_plan(self, plan: BatchPlan, num_samples: int) -> None:
        """Raise unless the rest of the round is shared out as its beginning was.

        Args:
            plan: How this run shares out samples.
            num_samples: Number of training samples of this run's rounds.

        Raises:
            ConfigError: Otherwise a batch would be trained on twice, or never.
        """
        before = {**self.plan, "num_samples": self.num_samples}
        now = {**asdict(plan), "num_samples": num_samples}
        differ = [f"{name} {before[name]} (now {now[name]})" for name in now if before[name] != now[name]]
        if differ:
            raise ConfigError(
                "Expected a run that resumes within a round to share out its samples as before, but it began with "
                f"{', '.join(differ)}: batches would be left out, or trained on twice. Keep `data.batch_size`, "
                "`data.round`, `trainer.accumulate_grad_batches` and the number of processes, or resume from a "
                "checkpoint that was written at the end of a round."
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
