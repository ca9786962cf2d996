"""Policy gradients with group-normalised advantages: GRPO, and RLCR and CAR, which are GRPO with other rewards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import fmean, pstdev
from typing import ClassVar

from caopd.errors import ConfigError, DataError, user_code
from caopd.methods.base import Method
from caopd.methods.rewards import Brier, Correctness, Format, MarginSeparated, Reward
from caopd.types import Example, Signal, TeacherContext, TrainSample, VerifiedGroup, VerifiedRollout

SMALLEST_STD = 1e-6
"""Added to the standard deviation, so that rewards which differ by rounding alone do not give advantages of 1."""


@dataclass(frozen=True)
class GRPO(Method):
    """Group relative policy optimisation (arXiv 2402.03300): trains on every rollout as sampled, by its advantage.

    The reward of a rollout is the weighted sum of ``rewards``; its advantage is (r - mean r) / std r over its group. A
    group whose rewards are all equal has advantages of 0: it stays in the round and in the denominators, and the share
    of such groups is logged as ``rollout/zero_advantage``.

    Args:
        rewards: The rewards that are maximised; a class of your own is named by its ``class_path``. None takes the
            method's own.
        scale_by_std: Whether to divide advantages by the group's standard deviation.

    Raises:
        ConfigError: The list of rewards is empty.
    """

    rewards: list[Reward] | None = None
    scale_by_std: bool = True
    default_rewards: ClassVar[tuple[Reward, ...]] = (Correctness(),)
    signal = Signal.ADVANTAGE
    min_rollouts = 2

    def __post_init__(self) -> None:
        if not self.terms:
            raise ConfigError(
                f"Expected `rewards` of {type(self).__name__} to name at least one reward, but got none: with nothing "
                "to maximise every advantage is 0. Add one of caopd.methods.rewards."
            )

    @property
    def terms(self) -> Sequence[Reward]:
        """The rewards whose weighted sum is maximised."""
        return self.default_rewards if self.rewards is None else self.rewards

    @property
    def named_rewards(self) -> dict[str, Reward]:
        """The rewards by the names of their classes; of several of one class, with their place in the list."""
        names = [type(reward).__name__ for reward in self.terms]
        return {
            name if names.count(name) == 1 else f"{name}_{index}": reward
            for index, (name, reward) in enumerate(zip(names, self.terms, strict=True))
        }

    def train_samples(self, group: VerifiedGroup) -> list[TrainSample]:
        """Return every rollout as sampled, with its advantage over the rest of the group.

        Raises:
            DataError: A reward is not finite.
        """
        earned = [
            self._earned(group.example, rollout) if rollout.rewards is None else rollout.rewards
            for rollout in group.rollouts
        ]
        totals = [self._total(rewards) for rewards in earned]
        if not all(map(isfinite, totals)):
            raise DataError(
                f"Expected finite rewards, but the completions of example {group.example.id!r} earn {totals}: correct "
                f"{', '.join(type(reward).__name__ for reward in self.terms)}, or their weights, so that a completion "
                "that cannot be read earns a number."
            )
        advantages = group_advantages(totals, self.scale_by_std)
        return [
            TrainSample(group.example, rollout, context=None, advantage=advantage, rewards=rewards)
            for rollout, advantage, rewards in zip(group.rollouts, advantages, earned, strict=True)
        ]

    def statistics(self, samples: Sequence[TrainSample]) -> dict[str, float]:
        """Return the group's mean reward, the unweighted mean of each reward, and whether all sums are equal."""
        totals = [self._total(sample.rewards) for sample in samples]
        each = {f"reward_{name}": fmean(sample.rewards[name] for sample in samples) for name in self.named_rewards}
        return {"reward": fmean(totals), **each, "zero_advantage": float(min(totals) == max(totals))}

    def _total(self, rewards: Mapping[str, float]) -> float:
        return sum(reward.weight * rewards[name] for name, reward in self.named_rewards.items())

    def _earned(self, example: Example, rollout: VerifiedRollout) -> dict[str, float]:
        earned = {}
        for name, reward in self.named_rewards.items():
            with user_code(reward, f"a completion of example {example.id!r}"):
                earned[name] = float(reward(example, rollout))
        return earned

    def known_context(self, example: Example) -> TeacherContext | None:
        """Return None: there is no context, and a reference model, where there is one, sees the student's prompt."""
        return None

    def check_example(self, example: Example) -> None:
        """Accept every row: the verifier needs nothing but the target."""


@dataclass(frozen=True)
class RLCR(GRPO):
    """Reinforcement learning with calibration rewards (arXiv 2507.16806): correctness, Brier score and format.

    Args:
        rewards: The rewards that are maximised; None takes the method's own.
        scale_by_std: Whether to divide advantages by the group's standard deviation; the paper's runs do not.
    """

    scale_by_std: bool = False
    default_rewards = (Brier(), Format())


@dataclass(frozen=True)
class CAR(GRPO):
    """Calibration agentic RL (arXiv 2601.07264): GRPO with :class:`~caopd.methods.rewards.MarginSeparated`.

    Scaled advantages are highest for a confidence that is more extreme than the success rate (docs/methods.md); without
    scaling, the reward is proper.

    Args:
        rewards: The rewards that are maximised; None takes the method's own.
        scale_by_std: Whether to divide advantages by the group's standard deviation, as GRPO does.
    """

    default_rewards = (MarginSeparated(),)


def group_advantages(rewards: Sequence[float], scale_by_std: bool) -> list[float]:
    """Return r - mean r, on request over the group's population standard deviation; zeros where all r are equal.

    Args:
        rewards: The rewards r of the rollouts of one prompt.
        scale_by_std: Whether to divide by the standard deviation.

    Example:
        >>> group_advantages([1.0, 0.0, 0.0, 1.0], scale_by_std=False)
        [0.5, -0.5, -0.5, 0.5]
        >>> [round(advantage, 3) for advantage in group_advantages([1.0, 0.0, 0.0, 1.0], scale_by_std=True)]
        [1.0, -1.0, -1.0, 1.0]
    """
    if min(rewards) == max(rewards):
        return [0.0] * len(rewards)
    mean = fmean(rewards)
    scale = pstdev(rewards) + SMALLEST_STD if scale_by_std else 1.0
    return [(reward - mean) / scale for reward in rewards]
