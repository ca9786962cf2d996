"""Estimators of the empirical confidence mu_hat from the rollouts of one group. No torch here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from caopd.errors import ConfigError
from caopd.types import Verdict


class Estimator(ABC):
    """Estimates the student's success rate on one prompt.

    Attributes:
        num_teacher_rollouts: Completions that the teacher must draw with its context, per prompt.
    """

    num_teacher_rollouts: int = 0

    @abstractmethod
    def estimate(self, verdicts: Sequence[Verdict], teacher_answers: Sequence[str | None] = ()) -> float | None:
        """Return mu_hat in [0, 1]; None where nothing can be said, which gives the group no weight.

        Args:
            verdicts: Of the G rollouts of one prompt.
            teacher_answers: Parsed answers of the teacher's completions, when the estimator asks for them.
        """

    def end_round(self, groups: Sequence[Sequence[Verdict]]) -> None:
        """Learn from a finished round; the groups are the same in every process.

        Args:
            groups: Verdicts of all groups of the round.
        """
        return

    def state_dict(self) -> dict[str, float]:
        """Return what a checkpoint must hold."""
        return {}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Take over what ``state_dict`` returned."""
        return


class MonteCarlo(Estimator):
    """The share of correct rollouts (equation 5 of the paper): unbiased, variance mu (1 - mu) / G.

    Example:
        >>> from caopd.types import AnswerOutcome
        >>> right = Verdict(True, "A", AnswerOutcome.PARSED)
        >>> wrong = Verdict(False, "B", AnswerOutcome.PARSED)
        >>> MonteCarlo().estimate([right, wrong, wrong, right])
        0.5
    """

    def estimate(self, verdicts: Sequence[Verdict], teacher_answers: Sequence[str | None] = ()) -> float:
        """Return the mean of the verdicts."""
        return sum(verdict.correct for verdict in verdicts) / len(verdicts)


@dataclass
class Shrinkage(Estimator):
    """Posterior mean under a Beta(s m, s (1 - m)) prior: (sum R + s m) / (G + s), m the running mean accuracy.

    Args:
        strength: s, the weight of the prior in rollouts; 0 gives the Monte Carlo estimate.
        momentum: Share of the running mean that a round replaces; the first round sets it.
    """

    strength: float = 2.0
    momentum: float = 0.1
    _mean: float | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if self.strength < 0:
            raise ConfigError(f"Expected `strength` of Shrinkage to be 0 or larger, but got {self.strength}.")
        if not 0 < self.momentum <= 1:
            raise ConfigError(f"Expected `momentum` of Shrinkage to be in (0, 1], but got {self.momentum}.")

    def estimate(self, verdicts: Sequence[Verdict], teacher_answers: Sequence[str | None] = ()) -> float:
        """Return the posterior mean; before the first finished round the prior's mean is 1/2."""
        prior_mean = 0.5 if self._mean is None else self._mean
        num_correct = sum(verdict.correct for verdict in verdicts)
        return (num_correct + self.strength * prior_mean) / (len(verdicts) + self.strength)

    def end_round(self, groups: Sequence[Sequence[Verdict]]) -> None:
        """Move the running mean accuracy towards the round's."""
        verdicts = [verdict for group in groups for verdict in group]
        accuracy = sum(verdict.correct for verdict in verdicts) / len(verdicts)
        self._mean = accuracy if self._mean is None else self._mean + self.momentum * (accuracy - self._mean)

    def state_dict(self) -> dict[str, float]:
        """Return the running mean."""
        return {} if self._mean is None else {"mean": self._mean}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Restore the running mean."""
        self._mean = state.get("mean")


@dataclass
class SelfConsistency(Estimator):
    """The share of rollouts that agree with the answer which the teacher, with its context, gives most often.

    For tasks without a verifier. The paper names this "Teacher-Anchored Self-Consistency" without a definition
    (appendix B.6); this reading is ours. Of equally frequent answers the first given counts. If the teacher gives no
    answer at all, mu_hat is unknown and the group has no weight.

    Args:
        num_teacher_rollouts: Completions of the teacher per prompt.
    """

    num_teacher_rollouts: int = 4

    def __post_init__(self) -> None:
        if self.num_teacher_rollouts < 1:
            raise ConfigError(
                "Expected `num_teacher_rollouts` of SelfConsistency to be at least 1, but got "
                f"{self.num_teacher_rollouts}."
            )

    def estimate(self, verdicts: Sequence[Verdict], teacher_answers: Sequence[str | None] = ()) -> float | None:
        """Return the share of the rollouts' answers that equal the teacher's majority answer, None if it gave none."""
        given = Counter(answer for answer in teacher_answers if answer is not None)
        if not given:
            return None
        anchor = given.most_common(1)[0][0]
        return sum(verdict.answer == anchor for verdict in verdicts) / len(verdicts)
