"""Chooses the loss and the teacher that go with a method."""

from __future__ import annotations

from lightning.pytorch.utilities import rank_zero_warn

from caopd.errors import ConfigError
from caopd.losses import LOSSES, TrainingLoss
from caopd.methods import Method
from caopd.models import EMA, Frozen, Teacher, TrustRegion
from caopd.types import Signal


def loss_for(method: Method, loss: TrainingLoss | None) -> TrainingLoss:
    """Return the loss that trains on the method's samples: the given one if it is for their signal, else the default.

    Args:
        method: The method, which makes the samples.
        loss: The loss of the config; None takes the default. A loss for another signal gives a warning and is not used.

    Raises:
        ConfigError: If completions are not the student's samples where the loss needs them.
    """
    if loss is not None and loss.signal == method.signal:
        if loss.needs_sampled and (method.revises or method.rollouts_of != "student"):
            does = "revises them" if method.revises else "samples them from the teacher"
            raise ConfigError(
                f"Expected completions as the student sampled them, since {type(loss).__name__} as it is set needs "
                f"every token's sampled probability, but {type(method).__name__} {does}. Use DistillationLoss without "
                "`importance_sampling`, or another method."
            )
        return loss
    default = LOSSES[method.signal]()
    if loss is not None:
        rank_zero_warn(
            f"`model.loss` is {type(loss).__name__}, which {type(method).__name__} has no use for: its samples are "
            f"trained on with {type(default).__name__} and its default settings. Set `model.loss` to change them."
        )
    return default


def teacher_for(method: Method, loss: TrainingLoss, teacher: Teacher | None) -> Teacher:
    """Return the teacher: the given one, or the default for the method's signal.

    Args:
        method: The method, which says what the teacher sees.
        loss: The loss, which says whether there is a teacher.
        teacher: The teacher of the config; None takes the default.

    Raises:
        ConfigError: If a method without privileged context has no other model as its teacher.
    """
    is_reference = method.signal is Signal.ADVANTAGE
    if teacher is None:
        teacher = Frozen() if is_reference else EMA()
    if is_reference and loss.needs_teacher and isinstance(teacher, EMA | TrustRegion) and teacher.rate > 0:
        rank_zero_warn(
            f"The reference of {type(method).__name__} follows the student, as {teacher} says: the divergence from it "
            "bounds how fast the student moves, not how far. Set `model.teacher` to Frozen, as the papers do."
        )
    if not method.privileged and not teacher.external:
        raise ConfigError(
            f"Expected another model as the teacher of {type(method).__name__}, whose teacher sees no more than the "
            f"student, but got {teacher}: set `model.teacher` to External with the `source` of a stronger model."
        )
    return teacher
