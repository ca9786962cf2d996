"""The size of a rollout round."""

from __future__ import annotations

from dataclasses import dataclass

from caopd.errors import ConfigError
from caopd.methods.estimators import Estimator


@dataclass(frozen=True)
class AdaptiveBudget:
    """Samples a group's rollouts in batches, until its success rate is certain enough or G are sampled.

    A group stops when the estimator's ``deviation``, the posterior's standard deviation, is at most ``max_deviation``.

    Attributes:
        num_rollouts_per_batch: Number of a group's rollouts that are sampled at once; also the size of the smallest
            group.
        max_deviation: Largest standard deviation at which a group stops, in (0, 0.5); the larger, the fewer rollouts.
    """

    num_rollouts_per_batch: int = 4
    max_deviation: float = 0.1

    def __post_init__(self) -> None:
        if self.num_rollouts_per_batch < 1 or not 0 < self.max_deviation < 0.5:
            raise ConfigError(
                "Expected `num_rollouts_per_batch` of the adaptive budget to be at least 1 and `max_deviation` to be "
                f"in (0, 0.5), but got {self}: change `data.round.adaptive`."
            )


@dataclass(frozen=True)
class RoundConfig:
    """Size of a rollout round.

    Attributes:
        num_prompts_per_round: Number of prompts of a round; their rollouts are the data of one epoch.
        num_rollouts: G, the number of completions per prompt; all of them estimate mu_hat.
        num_trained_rollouts: How many of these are trained on; None trains on all.
        adaptive: Samples fewer than G rollouts where the success rate is certain enough; None samples G for every
            prompt.
    """

    num_prompts_per_round: int = 32
    num_rollouts: int = 8
    num_trained_rollouts: int | None = None
    adaptive: AdaptiveBudget | None = None

    def __post_init__(self) -> None:
        if self.num_prompts_per_round < 1:
            raise ConfigError(
                f"Expected `num_prompts_per_round` to be at least 1, but got {self.num_prompts_per_round}."
            )
        if self.num_rollouts < 1:
            raise ConfigError(
                f"Expected `num_rollouts` (G) to be at least 1, but got {self.num_rollouts}: set "
                "`data.round.num_rollouts`; the paper uses 8."
            )
        if self.num_trained_rollouts is not None and not 1 <= self.num_trained_rollouts <= self.num_rollouts:
            raise ConfigError(
                f"Expected `num_trained_rollouts` to be between 1 and num_rollouts = {self.num_rollouts}, or null for "
                f"all, but got {self.num_trained_rollouts}."
            )
        if self.adaptive is not None:
            self._check_adaptive(self.adaptive.num_rollouts_per_batch)

    def _check_adaptive(self, batch: int) -> None:
        if batch > self.num_rollouts or self.num_rollouts % batch:
            raise ConfigError(
                f"Expected `num_rollouts` (G) = {self.num_rollouts} to be a multiple of the adaptive budget's "
                f"`num_rollouts_per_batch`, but got {batch}: change `data.round`."
            )
        if self.num_trained_rollouts is None or self.num_trained_rollouts > batch:
            raise ConfigError(
                "Expected `num_trained_rollouts` with an adaptive budget to be between 1 and the smallest group, "
                f"`num_rollouts_per_batch` = {batch}, so that every round has equally many samples, but got "
                f"{self.num_trained_rollouts}: set `data.round.num_trained_rollouts`."
            )

    def adapted(self, estimator: Estimator) -> Estimator:
        """Return the estimator for groups of this budget.

        Args:
            estimator: The estimator for groups of a fixed size.

        Raises:
            ConfigError: It cannot be right for groups that stop early.
        """
        if self.adaptive is None:
            return estimator
        return estimator.when_stopped(
            self.adaptive.num_rollouts_per_batch, self.num_rollouts, self.adaptive.max_deviation
        )

    @property
    def smallest_group(self) -> int:
        """Number of rollouts that every group has at least."""
        return self.num_rollouts if self.adaptive is None else self.adaptive.num_rollouts_per_batch

    @property
    def num_samples(self) -> int:
        """Number of training samples in a round."""
        return self.num_prompts_per_round * (self.num_trained_rollouts or self.num_rollouts)
