"""Has the method make the training samples of a group, and checks them."""

from __future__ import annotations

from caopd.errors import DataError, name_of, user_code
from caopd.methods import Method
from caopd.types import TrainSample, VerifiedGroup


def train_samples(method: Method, group: VerifiedGroup) -> list[TrainSample]:
    """Return the training samples of a group: one per rollout, or one where the method trains without rollouts.

    Args:
        method: The method that makes the samples.
        group: The rollouts of one prompt.

    Raises:
        UserCodeError: The method raised.
        DataError: It returned something else.
    """
    with user_code(method, f"example {group.example.id!r}"):
        samples = method.train_samples(group)
    wanted = max(1, len(group.rollouts))
    if len(samples) == wanted and all(isinstance(sample, TrainSample) for sample in samples):
        return samples
    raise DataError(
        f"Expected {name_of(method)} to make {wanted} TrainSamples of example {group.example.id!r}, one of each "
        f"rollout, but got {samples!r:.200}. Correct its `train_samples`; one that is not to count has weight 0."
    )
