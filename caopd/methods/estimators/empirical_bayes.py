"""An estimator of mu_hat whose prior over success rates is learned from past rounds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import sqrt

from caopd.errors import ConfigError
from caopd.methods.estimators.base import Estimator, count
from caopd.types import Verdict

NUM_EM_STEPS = 50
"""Steps of expectation-maximisation that fit the prior of :class:`EmpiricalBayes`."""


@dataclass
class EmpiricalBayes(Estimator):
    """Posterior mean under a prior over success rates that is learned from past rounds.

    The prior is a histogram w over the rates p_j = j / (size - 1), flat before the first round. After every round it is
    fitted to all past groups (k of n correct), which fade by 1 - momentum a round, from the flat one in
    ``NUM_EM_STEPS`` steps of expectation-maximisation:

        w_j <- mean over groups of P(p_j | k, n),   P(p_j | k, n) proportional to w_j p_j^k (1 - p_j)^(n - k).

    Neither posterior nor prior depends on why sampling stopped: the likelihood of k of n is p^k (1 - p)^(n - k) times a
    factor without p. So both stay right under an adaptive budget, and whole groups are learned from. Empirical Bayes is
    by Robbins (1956); the fit is Laird's (1978) on a grid, stopped early.

    Args:
        size: Number of rates p_j.
        momentum: Share of the past that each round replaces; the first round sets it.
        floor: Share of the flat prior that is mixed in, so that no rate becomes impossible.
    """

    learns_from_stopped = True
    size: int = 21
    momentum: float = 0.1
    floor: float = 0.01
    _groups: dict[tuple[int, int], float] = field(default_factory=dict, init=False)
    """(k, n) -> weight of the past groups with k of n rollouts correct."""
    _prior: list[float] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        if self.size < 3:
            raise ConfigError(f"Expected `size` of EmpiricalBayes to be at least 3, but got {self.size}.")
        for name, share in (("momentum", self.momentum), ("floor", self.floor)):
            if not 0 < share <= 1:
                raise ConfigError(f"Expected `{name}` of EmpiricalBayes to be in (0, 1], but got {share}.")
        self._fit()

    def estimate(self, verdicts: Sequence[Verdict], teacher_answers: Sequence[str | None] = ()) -> float:
        """Return the posterior mean."""
        return self._expectation(self._posterior(self._prior, *count(verdicts)))

    def deviation(self, verdicts: Sequence[Verdict]) -> float:
        """Return the posterior's standard deviation."""
        posterior = self._posterior(self._prior, *count(verdicts))
        mean = self._expectation(posterior)
        return sqrt(sum(weight * (rate - mean) ** 2 for weight, rate in zip(posterior, self._rates, strict=True)))

    def end_round(self, groups: Sequence[Sequence[Verdict]]) -> None:
        """Let past groups fade, add the round's, and fit the prior."""
        self._groups = {key: weight * (1 - self.momentum) for key, weight in self._groups.items()}
        for key, number in Counter(map(count, groups)).items():
            self._groups[key] = self._groups.get(key, 0.0) + self.momentum * number / len(groups)
        self._fit()

    def state_dict(self) -> dict[str, float]:
        """Return the weights of past groups."""
        return {f"{correct}/{size}": weight for (correct, size), weight in self._groups.items()}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Restore the past groups and the prior.

        Raises:
            ConfigError: If the state is that of another estimator.
        """
        try:
            self._groups = {(int(key.split("/")[0]), int(key.split("/")[1])): state[key] for key in state}
        except (ValueError, IndexError) as error:
            raise ConfigError(
                f"Expected the checkpoint's estimator to be EmpiricalBayes, but got a state of {sorted(state)}: resume "
                "with the `data.estimator` of the run that wrote it."
            ) from error
        self._fit()

    def _fit(self) -> None:
        prior = [1 / self.size] * self.size
        total = sum(self._groups.values())
        for _ in range(NUM_EM_STEPS if self._groups else 0):
            fitted = [0.0] * self.size
            for key, weight in self._groups.items():
                for index, share in enumerate(self._posterior(prior, *key)):
                    fitted[index] += weight / total * share
            prior = fitted
        self._prior = [(1 - self.floor) * weight + self.floor / self.size for weight in prior]

    @property
    def _rates(self) -> list[float]:
        return [index / (self.size - 1) for index in range(self.size)]

    def _posterior(self, prior: Sequence[float], correct: int, size: int) -> list[float]:
        joint = [w * p**correct * (1 - p) ** (size - correct) for w, p in zip(prior, self._rates, strict=True)]
        total = sum(joint)
        return [weight / total for weight in joint]

    def _expectation(self, posterior: Sequence[float]) -> float:
        return sum(weight * rate for weight, rate in zip(posterior, self._rates, strict=True))
