"""Has the method make the training samples of a group, checks them, and says which of their contexts is probed."""

from __future__ import annotations

from collections.abc import Sequence

from caopd.errors import DataError, name_of, user_code
from caopd.methods import Method
from caopd.types import Example, TeacherContext, TrainSample, VerifiedGroup, VerifiedRollout


def is_trained(method: Method, group: VerifiedGroup) -> bool:
    """Return whether so many rollouts of the group have a verdict as the method works with at least.

    Args:
        method: The method that makes the samples.
        group: The rollouts of one prompt.
    """
    return len(group.verdicts) >= min(method.min_rollouts, max(1, len(group.rollouts)))


def train_samples(method: Method, group: VerifiedGroup) -> list[TrainSample]:
    """Return the training samples of a group: one per rollout, or one where the method trains without rollouts.

    The method sees the rollouts that have a verdict. The others have samples of weight 0, so that every round has
    equally many, and so has the whole group where too few are left.

    Args:
        method: The method that makes the samples.
        group: The rollouts of one prompt.

    Raises:
        UserCodeError: The method raised.
        DataError: It returned something else.
    """
    if not is_trained(method, group):
        return [_left_out(group.example, verified) for verified in group.rollouts]
    judged = group.judged
    with user_code(method, f"example {group.example.id!r}"):
        samples = method.train_samples(judged)
    wanted = max(1, len(judged.rollouts))
    if len(samples) != wanted or not all(isinstance(sample, TrainSample) for sample in samples):
        raise DataError(
            f"Expected {name_of(method)} to make {wanted} TrainSamples of example {group.example.id!r}, one of each "
            f"rollout, but got {samples!r:.200}. Correct its `train_samples`; one that is not to count has weight 0."
        )
    if not group.rollouts:
        return samples
    made = iter(samples)
    return [next(made) if each.verdict is not None else _left_out(group.example, each) for each in group.rollouts]


def probed_context(samples: Sequence[TrainSample]) -> TeacherContext | None:
    """Return the first context under which a whole completion is trained; if there is none, the first context, or None.

    Args:
        samples: The training samples of one group.
    """
    shown = [sample for sample in samples if sample.context]
    return next((sample.context for sample in [*(each for each in shown if each.body_weight), *shown]), None)


def _left_out(example: Example, verified: VerifiedRollout) -> TrainSample:
    """Return a sample that adds nothing to any loss: 0 times an advantage that is not known would not be 0."""
    return TrainSample(example, verified, context=None, weight=0.0, advantage=0.0)
