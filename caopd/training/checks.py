"""What must fit together before the first rollout: trainer, method, estimator, loss."""

from __future__ import annotations

from lightning import Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler

from caopd.errors import ConfigError
from caopd.losses import TrainingLoss
from caopd.methods import Method
from caopd.methods.estimators import Estimator
from caopd.rounds.config import RoundConfig
from caopd.rounds.diagnostics import TeacherProbe
from caopd.types import Signal


def check_trainer(trainer: Trainer) -> None:
    """Raise where an epoch would not train on new rollouts, or a step not see the samples its denominators count.

    Raises:
        ConfigError: With what to set.
    """
    reload_every = trainer.reload_dataloaders_every_n_epochs  # type: ignore[attr-defined]
    if reload_every != 1:
        raise ConfigError(
            "Expected `reload_dataloaders_every_n_epochs` of the Trainer to be 1, so that every epoch trains on "
            f"new rollouts, but got {reload_every}: pass "
            "`Trainer(reload_dataloaders_every_n_epochs=1)` or `--trainer.reload_dataloaders_every_n_epochs=1`."
        )
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    if any(isinstance(callback, GradientAccumulationScheduler) for callback in callbacks):
        raise ConfigError(
            "Expected a fixed `accumulate_grad_batches`, but got a GradientAccumulationScheduler: "
            "remove it, and set `trainer.accumulate_grad_batches`."
        )
    limit = trainer.limit_train_batches
    if trainer.accumulate_grad_batches > 1 and limit != 1.0:
        raise ConfigError(
            f"Expected whole rounds under gradient accumulation, but got limit_train_batches = {limit} "
            "(fast_dev_run sets it too): lower `data.round.num_prompts_per_round` instead, or set "
            "`trainer.accumulate_grad_batches` to 1."
        )


def check_settings(round: RoundConfig, estimator: Estimator, keep_rounds: int | None) -> None:
    """Raise where settings of the data module contradict each other.

    Args:
        round: Prompts and rollouts per round.
        estimator: Makes mu_hat.
        keep_rounds: How many rounds' rollouts stay; None keeps all.

    Raises:
        ConfigError: With what to change.
    """
    if keep_rounds is not None and keep_rounds < 1:
        raise ConfigError(f"Expected `keep_rounds` to be at least 1, or null for all, but got {keep_rounds}.")
    if round.adaptive is not None and estimator.num_teacher_rollouts:
        raise ConfigError(
            "Expected an estimator that judges by verdicts with `data.round.adaptive`, but got "
            f"{type(estimator).__name__}, which knows nothing before the teacher has answered."
        )


def check_processes(num_prompts: int, world_size: int) -> None:
    """Raise unless every process samples for equally many prompts.

    Args:
        num_prompts: Of a round.
        world_size: Number of processes.

    Raises:
        ConfigError: If they do not divide.
    """
    if num_prompts % world_size:
        raise ConfigError(
            f"Expected `num_prompts_per_round` = {num_prompts} to be a multiple of the number of processes, "
            f"{world_size}: groups are kept whole."
        )


def check_parts(method: Method, estimator: Estimator, smallest_group: int) -> None:
    """Raise where a group has too few rollouts for what is made of them.

    Args:
        method: Makes training samples of groups.
        estimator: Makes mu_hat of them.
        smallest_group: Rollouts that every group has.

    Raises:
        ConfigError: With the number that is needed.
    """
    for part in (method, estimator):
        if method.min_rollouts and smallest_group < part.min_rollouts:
            raise ConfigError(
                "Expected `num_rollouts` (G), or the batch of an adaptive budget, to be at least "
                f"{part.min_rollouts} for {type(part).__name__}, but got {smallest_group}: a rollout needs the others "
                "of its group."
            )


def check_teacher(loss: TrainingLoss, method: Method, estimator: Estimator, probe: TeacherProbe) -> None:
    """Raise where a teacher is asked that is not there, or has nothing to see.

    Args:
        loss: Says whether there is a teacher.
        method: Says what it sees.
        estimator: May ask for its answers.
        probe: May measure its success.

    Raises:
        ConfigError: With what to change.
    """
    if estimator.num_teacher_rollouts and not loss.needs_teacher:
        raise ConfigError(
            f"Expected an estimator that needs no teacher, since {type(loss).__name__} trains without one, but got "
            f"{type(estimator).__name__}: change `data.estimator`."
        )
    if probe.every_num_rounds and not (loss.needs_teacher and method.signal is Signal.CONTEXT):
        raise ConfigError(
            f"Expected a method whose teacher sees a context with `data.teacher_probe`, but got "
            f"{type(method).__name__}: set `data.teacher_probe.every_num_rounds` to 0."
        )
