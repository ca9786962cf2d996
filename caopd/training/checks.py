"""Checks, before the first rollout, that trainer, method, estimator and loss fit together."""

from __future__ import annotations

import torch
from lightning import Trainer
from lightning.pytorch.accelerators import MPSAccelerator
from lightning.pytorch.callbacks import BatchSizeFinder, GradientAccumulationScheduler, LearningRateFinder
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.utilities import rank_zero_warn

from caopd.errors import ConfigError
from caopd.losses import TrainingLoss
from caopd.methods import Method
from caopd.methods.estimators import Estimator
from caopd.rollouts import Sampling
from caopd.rounds.config import RoundConfig
from caopd.rounds.diagnostics import TeacherProbe
from caopd.rounds.prompts import check_rounds
from caopd.tasks import Task, TaskSequence
from caopd.types import Signal


def check_trainer(trainer: Trainer, tokens_per_batch: int | None) -> None:
    """Raise if an epoch would not sample new rollouts, or a step would not see all samples that its loss is divided by.

    Args:
        trainer: The trainer.
        tokens_per_batch: Limit that cuts an optimizer step into several micro-batches; None for none.

    Raises:
        ConfigError: A setting of the trainer is wrong; the message says what to set.
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
    finder = next((each for each in callbacks if isinstance(each, LearningRateFinder | BatchSizeFinder)), None)
    if finder is not None:
        raise ConfigError(
            f"Expected no {type(finder).__name__}, which trains for some steps on one batch, while every round has its "
            "own rollouts: remove it, and compare short runs with `--model.optimizer.lr` or `--data.batch_size` "
            "of several values; `caopd plan` tells which batches fit."
        )
    strategy = trainer.strategy
    if type(strategy) is ModelParallelStrategy and strategy._save_distributed_checkpoint:
        rank_zero_warn(
            "Expected sharded checkpoints that a kill leaves whole, but ModelParallelStrategy writes shards over those "
            "of the checkpoint that had the name before. Set `trainer.strategy` to "
            "caopd.training.sharded.AtomicModelParallelStrategy, which takes the same arguments."
        )
    limit = trainer.limit_train_batches
    if (trainer.accumulate_grad_batches > 1 or tokens_per_batch is not None) and limit != 1.0:
        raise ConfigError(
            f"Expected whole rounds under gradient accumulation, but got limit_train_batches = {limit} "
            "(fast_dev_run sets it too): lower `data.round.num_prompts_per_round` instead, or set "
            "`trainer.accumulate_grad_batches` to 1 and `data.tokens_per_batch` to null."
        )


def check_gpus(accelerator: object, devices: object) -> None:
    """Raise if the config asks for GPUs that this machine does not have.

    Args:
        accelerator: ``trainer.accelerator`` of the config.
        devices: ``trainer.devices`` of the config.

    Raises:
        ConfigError: There is no GPU, or there are fewer; the message says what to override.
    """
    there = torch.cuda.device_count()
    is_on_mac = accelerator == "gpu" and MPSAccelerator.is_available()
    if accelerator not in ("gpu", "cuda") or is_on_mac:
        return
    if there == 0:
        raise ConfigError(
            f"Expected a GPU, since `trainer.accelerator` is {accelerator}, but torch finds none on this machine. With "
            "`--trainer.accelerator=cpu --trainer.devices=1 --trainer.strategy=auto --trainer.precision=32-true` a "
            "config runs on the processor, which is for small models: `--config quickstart`. `caopd plan` tells what "
            "a GPU will need, and `--dry_run` shows prompts and steps, without one."
        )
    if isinstance(devices, int) and devices > there:
        override = "--trainer.devices=1 --trainer.strategy=auto" if there == 1 else f"--trainer.devices={there}"
        raise ConfigError(
            f"Expected {devices} GPUs, since `trainer.devices` says so, but torch finds {there} on this machine: "
            f"`{override}`, and what the strategy says of their number. `caopd plan` tells whether it fits."
        )


def check_settings(keep_rounds: int | None) -> None:
    """Raise if settings of the data module cannot be.

    Args:
        keep_rounds: Number of rounds whose rollouts stay on disk; None keeps all.

    Raises:
        ConfigError: Something does not fit; the message says what to change.
    """
    if keep_rounds is not None and keep_rounds < 1:
        raise ConfigError(f"Expected `keep_rounds` to be at least 1, or null for all, but got {keep_rounds}.")


def check_baseline(method: Method, round: RoundConfig) -> None:
    """Raise if what a rollout is compared with depends on its own verdict.

    Args:
        method: The method, which says whether rollouts are compared with their group.
        round: The budget, which says whether verdicts decide the size of a group.

    Raises:
        ConfigError: Both are so.
    """
    if method.signal is Signal.ADVANTAGE and round.adaptive is not None:
        raise ConfigError(
            f"Expected groups of a fixed size with {type(method).__name__}, but `data.round.adaptive` stops a group by "
            "its verdicts: the rest of the group, which an advantage is measured against, then depends on the "
            "rollout's own verdict, and the gradient points elsewhere. Set `data.round.adaptive` to null."
        )


def check_greedy(sampling: Sampling, num_rollouts: int) -> None:
    """Raise if the rollouts of a prompt would all be the same one.

    Args:
        sampling: How rollouts are sampled.
        num_rollouts: G.

    Raises:
        ConfigError: Several are sampled greedily.
    """
    if num_rollouts > 1 and (sampling.temperature == 0 or sampling.top_k == 1):
        raise ConfigError(
            f"Expected `data.sampling` to have a temperature above 0 and another `top_k` than 1, but got {sampling}: "
            f"the {num_rollouts} completions of a prompt would all be the same, and mu_hat 0 or 1 whatever the success "
            "rate."
        )


def check_processes(num_prompts: int, world_size: int) -> None:
    """Raise unless every process samples for equally many prompts.

    Args:
        num_prompts: Number of prompts of a round.
        world_size: Number of processes.

    Raises:
        ConfigError: The number of prompts is not a multiple of the number of processes.
    """
    if num_prompts % world_size:
        raise ConfigError(
            f"Expected `num_prompts_per_round` = {num_prompts} to be a multiple of the number of processes, "
            f"{world_size}: groups are kept whole."
        )


def check_stages(task: Task, trainer: Trainer) -> None:
    """Raise unless training ends with the last stage of a sequence of tasks, and every stage with a validation.

    Args:
        task: The task that is trained on; one that is no sequence passes.
        trainer: The trainer, with its number of rounds.

    Raises:
        ConfigError: Something does not fit; the message says the numbers that would.
    """
    if isinstance(task, TaskSequence):
        validates = trainer.limit_val_batches != 0
        check_rounds(task.stages, trainer.max_epochs, trainer.check_val_every_n_epoch if validates else 0)


def check_parts(method: Method, estimator: Estimator, smallest_group: int) -> None:
    """Raise if groups have too few rollouts for the method or the estimator.

    Args:
        method: The method, which makes training samples of groups.
        estimator: The estimator of mu_hat.
        smallest_group: Number of rollouts that every group has at least.

    Raises:
        ConfigError: There are too few; the message says how many are needed.
    """
    for part in (method, estimator):
        if method.min_rollouts and smallest_group < part.min_rollouts:
            raise ConfigError(
                "Expected `num_rollouts` (G), or the batch of an adaptive budget, to be at least "
                f"{part.min_rollouts} for {type(part).__name__}, but got {smallest_group}: a rollout needs the others "
                "of its group."
            )


def check_teacher(loss: TrainingLoss, method: Method, estimator: Estimator, probe: TeacherProbe) -> None:
    """Raise if a teacher is needed but there is none, or if it has no context to see.

    Args:
        loss: The loss, which says whether there is a teacher.
        method: The method, which says what the teacher sees.
        estimator: The estimator, which may ask for the teacher's answers.
        probe: The probe, which may measure the teacher's success.

    Raises:
        ConfigError: Something does not fit; the message says what to change.
    """
    if estimator.num_teacher_rollouts and not loss.needs_teacher:
        raise ConfigError(
            f"Expected an estimator that needs no teacher, since {type(loss).__name__} trains without one, but got "
            f"{type(estimator).__name__}: change `data.estimator`."
        )
    has_context = method.privileged and method.signal is Signal.CONTEXT
    if estimator.num_teacher_rollouts and has_context and type(method).teacher_context is Method.teacher_context:
        raise ConfigError(
            f"Expected {type(method).__name__} to say by `teacher_context` what its teacher sees, since "
            f"{type(estimator).__name__} asks the teacher before there is a training sample, but it has none of its "
            "own: implement it, or change `data.estimator`."
        )
    if probe.every_num_rounds and not (loss.needs_teacher and method.signal is Signal.CONTEXT):
        raise ConfigError(
            f"Expected a method whose teacher sees a context with `data.teacher_probe`, but got "
            f"{type(method).__name__}: set `data.teacher_probe.every_num_rounds` to 0."
        )
