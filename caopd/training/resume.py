"""Says where a resumed run goes on, and with which settings.

Lightning restores its own counts of batches, but misses two things. The gradients of an unfinished optimizer step are
in no checkpoint, so such a step must begin anew. And a checkpoint after a batch, as ``every_n_train_steps`` writes it,
comes before the validation that is due there and before the hooks of the epoch's end; a resumed run must not leave
these out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lightning import Trainer
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from caopd.errors import ConfigError

_COUNTS = ("ready", "started", "processed", "completed")
_UNSET = ("params", "lr")
"""Keys of a parameter group that are no settings. ``lr`` follows the schedule; the setting is ``initial_lr``."""


def num_batches_done(batches: Mapping[str, Any], num_steps: int, accumulate: int) -> int:
    """Return how many of an epoch's micro-batches the weights have been trained on.

    Args:
        batches: ``batch_progress`` of Lightning's epoch loop, as saved.
        num_steps: Number of optimizer steps of the epoch so far.
        accumulate: Micro-batches per optimizer step.
    """
    current = batches["current"]
    if batches["is_last_batch"] and current["processed"] == current["ready"]:
        return int(current["processed"])  # the last step may have fewer micro-batches
    return num_steps * accumulate


def validation_is_due(trainer: Trainer) -> bool:
    """Return whether a validation follows the current batch.

    Args:
        trainer: The trainer, in training.
    """
    every, interval = trainer.check_val_every_n_epoch, trainer.val_check_batch
    if not trainer.enable_validation or interval is None or (every and (trainer.current_epoch + 1) % every):
        return False
    loop = trainer.fit_loop
    index = loop.total_batch_idx if every is None else loop.batch_idx
    return bool((index + 1) % interval == 0)


def interrupted_hook(fit_loop: Mapping[str, Any]) -> str | None:
    """Return the hook in which callbacks write checkpoints and that is running now; None in any other moment.

    Args:
        fit_loop: ``checkpoint["loops"]["fit_loop"]``, as Lightning has made it.
    """
    epoch, batches = fit_loop["epoch_progress"]["current"], fit_loop["epoch_loop.batch_progress"]
    current = batches["current"]
    if epoch["started"] == epoch["processed"]:
        return "on_train_epoch_end" if epoch["completed"] < epoch["processed"] else None
    if current["ready"] > current["processed"]:
        return None
    if current["completed"] < current["processed"]:
        return "on_train_batch_end"
    return "on_validation_end" if _is_finished(fit_loop["epoch_loop.val_loop.batch_progress"], current) else None


def settle_loops(fit_loop: dict[str, Any], accumulate: int, validation_due: bool) -> None:
    """Rewrite, in place, the saved state of Lightning's loops, so that a resumed run leaves nothing out.

    Args:
        fit_loop: ``checkpoint["loops"]["fit_loop"]``.
        accumulate: Micro-batches per optimizer step.
        validation_due: Whether a validation follows the current batch.
    """
    epoch, batches = fit_loop["epoch_progress"]["current"], fit_loop["epoch_loop.batch_progress"]
    current = batches["current"]
    validation = fit_loop["epoch_loop.val_loop.batch_progress"]
    # Where they differ, as after a validation that a resume began anew, Lightning takes it for an interrupted one.
    validation["total"].update(dict.fromkeys(_COUNTS, validation["total"]["completed"]))
    if epoch["started"] == epoch["processed"] or current["ready"] == 0:
        return
    steps = fit_loop["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]["step"]["current"]["completed"]
    done, logged = num_batches_done(batches, steps, accumulate), fit_loop["epoch_loop.state_dict"]
    if current["ready"] > current["processed"]:  # interrupted within a batch
        ends_a_step = (done + 1) % accumulate == 0 or (batches["is_last_batch"] and done + 1 == current["ready"])
        logged["_batches_that_stepped"] -= ends_a_step  # Lightning adds one on a resume, as if the batch were done
        batches["is_last_batch"] = False
        _shift(batches, done - current["completed"])
    elif done < current["processed"]:  # in the middle of an optimizer step
        _set(batches, done)
    elif validation_due and not _is_finished(validation, current):
        _set(batches, done)
        _begin(validation)
    elif batches["is_last_batch"] and current["completed"] < done:
        _set(batches, done)
        logged["_batches_that_stepped"] += 1


def raise_limit_of_steps(trainer: Trainer) -> int | None:
    """Let a resumed run that has had its last step end its round, and return its ``max_steps``, to be set again then.

    Lightning stops at this limit before it looks at what is left of an epoch: its validation, and its end.

    Args:
        trainer: The trainer with its state restored, before it goes on.

    Returns:
        None where the limit is not reached, or the round has ended.
    """
    loop, epoch = trainer.fit_loop.epoch_loop, trainer.fit_loop.epoch_progress.state_dict()["current"]
    if epoch["started"] == epoch["processed"] or not 0 < loop.max_steps <= trainer.global_step:
        return None
    limit, loop.max_steps = loop.max_steps, trainer.global_step + 1
    return limit


def _shift(batches: Mapping[str, Any], by: int) -> None:
    for counts in (batches["current"], batches["total"]):
        counts.update({name: counts[name] + by for name in _COUNTS})


def _set(batches: Mapping[str, Any], done: int) -> None:
    total = batches["total"]["completed"] + done - batches["current"]["completed"]
    batches["current"].update(dict.fromkeys(_COUNTS, done))
    batches["total"].update(dict.fromkeys(_COUNTS, total))


def _is_finished(validation: Mapping[str, Any], batch: Mapping[str, int]) -> bool:
    current = validation["current"]
    has_begun = batch["completed"] == batch["ready"] and validation["total"]["ready"] > 0
    return has_begun and validation["is_last_batch"] and 0 < current["ready"] == current["completed"]


def _begin(validation: Mapping[str, Any]) -> None:
    """Set the counts, in place, to what Lightning takes for a validation that was interrupted in its first batch."""
    validation["current"].update(dict.fromkeys(_COUNTS, 0))
    validation["total"].update({"ready": 1, "started": 1, "processed": 0, "completed": 0})


def settings_of(optimizer: Optimizer) -> list[dict[str, Any]]:
    """Return the settings of every parameter group, which a checkpoint would overwrite.

    Args:
        optimizer: The optimizer as the config makes it.
    """
    return [{key: value for key, value in group.items() if key not in _UNSET} for group in optimizer.param_groups]


def apply_settings(
    settings: Sequence[Mapping[str, Any]], optimizer: Optimizer, scheduler: LambdaLR
) -> dict[str, tuple[Any, Any]]:
    """Give a restored optimizer the settings of this run's config, and return what changed: name -> (before, now).

    Args:
        settings: The settings of every group, from before the checkpoint was loaded.
        optimizer: The optimizer with the checkpoint's state.
        scheduler: The scheduler of its learning rate.

    Raises:
        ConfigError: The checkpoint is of another optimizer.
    """
    changed: dict[str, tuple[Any, Any]] = {}
    restored = settings_of(optimizer)
    if [set(group) for group in restored] != [set(group) for group in settings]:
        raise ConfigError(
            f"Expected the checkpoint's optimizer to have the settings of `model.optimizer`, "
            f"{', '.join(sorted(settings[0]))}, but it has {', '.join(sorted(restored[0]))}: it was written by a run "
            "with another optimizer. Set `model.optimizer` to that run's, or start anew without `ckpt_path`."
        )
    for number, (group, wanted, found) in enumerate(zip(optimizer.param_groups, settings, restored, strict=True)):
        differ = {key: (found[key], value) for key, value in wanted.items() if found[key] != value}
        group.update({key: now for key, (_, now) in differ.items()})
        scheduler.base_lrs[number] = wanted["initial_lr"]
        # The schedule is this run's, too: it may have another length, or another warm-up.
        group["lr"] = wanted["initial_lr"] * scheduler.lr_lambdas[number](scheduler.last_epoch)
        changed |= {"lr" if key == "initial_lr" else key: values for key, values in differ.items()}
    return changed
