"""An estimator of mu_hat whose prior is the mean accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from caopd.errors import ConfigError
from caopd.methods.estimators.base import Estimator
from caopd.methods.estimators.monte_carlo import MonteCarlo
from caopd.types import Verdict


@dataclass
class Shrinkage(Estimator):
    """Posterior mean under a Beta(s m, s (1 - m)) prior: (sum R + s m) / (G + s), m the running mean accuracy.

    Under an adaptive budget m is learned from the first batch of every group: stopping biases the mean of whole ones.

    Args:
        strength: s, the weight of the prior as a number of rollouts; 0 gives the Monte Carlo estimate, also under an
            adaptive budget.
        momentum: Share of the running mean that each round replaces; the first round sets it.
    """

    strength: float = 2.0
    momentum: float = 0.1
    _mean: float | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if self.strength < 0:
            raise ConfigError(f"Expected `strength` of Shrinkage to be 0 or larger, but got {self.strength}.")
        if not 0 < self.momentum <= 1:
            raise ConfigError(f"Expected `momentum` of Shrinkage to be in (0, 1], but got {self.momentum}.")

    def when_stopped(self, batch: int, num_rollouts: int, max_deviation: float) -> Estimator:
        """Return itself, whose posterior stopping does not change; without a prior, Monte Carlo."""
        return self if self.strength else MonteCarlo().when_stopped(batch, num_rollouts, max_deviation)

    def estimate(self, verdicts: Sequence[Verdict], teacher_answers: Sequence[str | None] = ()) -> float:
        """Return the posterior mean; before the first finished round the prior's mean is 1/2."""
        prior_mean = 0.5 if self._mean is None else self._mean
        num_correct = sum(verdict.correct for verdict in verdicts)
        return (num_correct + self.strength * prior_mean) / (len(verdicts) + self.strength)

    def end_round(self, groups: Sequence[Sequence[Verdict]]) -> None:
        """Move the running mean accuracy towards the round's, in which every prompt counts alike."""
        accuracy = fmean(fmean(verdict.correct for verdict in group) for group in groups)
        self._mean = accuracy if self._mean is None else self._mean + self.momentum * (accuracy - self._mean)

    def state_dict(self) -> dict[str, float]:
        """Return the running mean."""
        return {} if self._mean is None else {"mean": self._mean}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Restore the running mean."""
        self._mean = state.get("mean")
