"""What every estimator of the empirical confidence mu_hat answers to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

from caopd.methods.estimators.stopping import jeffreys_deviation
from caopd.types import Verdict


class Estimator(ABC):
    """Estimates the student's success rate on one prompt.

    Attributes:
        num_teacher_rollouts: How many completions of each prompt the teacher must sample with its context.
        min_rollouts: Smallest G that the estimator can work with.
        learns_from_stopped: Whether what :meth:`end_round` learns stays right where a group's verdicts decided how many
            it has. Where not, it is given the first batch of each group alone, whose size is fixed.
    """

    num_teacher_rollouts: int = 0
    min_rollouts: int = 1
    learns_from_stopped: ClassVar[bool] = False

    @abstractmethod
    def estimate(self, verdicts: Sequence[Verdict], teacher_answers: Sequence[str | None] = ()) -> float | None:
        """Return the group's mu_hat in [0, 1]; None where nothing can be said, which gives the group no weight.

        Args:
            verdicts: The verdicts of the rollouts of one prompt, G but for those that have none, and at least
                ``min_rollouts``.
            teacher_answers: Parsed answers of the teacher's completions, when the estimator asks for them.
        """

    def estimate_each(
        self, verdicts: Sequence[Verdict], teacher_answers: Sequence[str | None] = ()
    ) -> tuple[float | None, ...]:
        """Return mu_hat for every rollout; by default all of them have that of the group.

        Args:
            verdicts: The verdicts, as in :meth:`estimate`; a rollout without one has no mu_hat.
            teacher_answers: Parsed answers of the teacher's completions, as in :meth:`estimate`.
        """
        return (self.estimate(verdicts, teacher_answers),) * len(verdicts)

    def deviation(self, verdicts: Sequence[Verdict]) -> float:
        """Return how uncertain the success rate is: the standard deviation of its posterior.

        By default the posterior is Beta(k + 1/2, n - k + 1/2), with k of n rollouts correct. It comes from Jeffreys'
        prior, under which no number of equal verdicts gives certainty.

        Args:
            verdicts: The verdicts of the rollouts that are sampled so far.

        Example:
            >>> from caopd.methods.estimators import MonteCarlo
            >>> from caopd.types import AnswerOutcome
            >>> round(MonteCarlo().deviation([Verdict(True, "A", AnswerOutcome.PARSED)] * 4), 4)
            0.1225
        """
        return jeffreys_deviation(*count(verdicts))

    def when_stopped(self, batch: int, num_rollouts: int, max_deviation: float) -> Estimator:
        """Return the estimator for groups that are sampled until they are certain enough; by default itself.

        Args:
            batch: How many rollouts of a group are sampled at once.
            num_rollouts: G, the size of the largest group.
            max_deviation: The :meth:`deviation` at which a group stops.

        Raises:
            ConfigError: Its estimates cannot be right for such groups.
        """
        return self

    def end_round(self, groups: Sequence[Sequence[Verdict]]) -> None:
        """Learn from a finished round; the groups are the same in every process.

        Args:
            groups: The verdicts of all groups of the round that have any; see ``learns_from_stopped``.
        """
        return

    def state_dict(self) -> dict[str, float]:
        """Return the state that a checkpoint must hold."""
        return {}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Restore the state that ``state_dict`` returned."""
        return


def count(verdicts: Sequence[Verdict]) -> tuple[int, int]:
    """Return how many verdicts are correct, and how many there are."""
    return sum(verdict.correct for verdict in verdicts), len(verdicts)
