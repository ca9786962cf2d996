"""An estimator of mu_hat for tasks without a verifier: the teacher's most frequent answer decides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from caopd.errors import ConfigError
from caopd.methods.estimators.base import Estimator
from caopd.types import Verdict


@dataclass
class SelfConsistency(Estimator):
    """The share of rollouts whose answer is the one that the teacher, with its context, gives most often.

    For tasks without a verifier. The paper names this "Teacher-Anchored Self-Consistency" without a definition
    (appendix B.6); this reading is ours. Of equally frequent answers the first given counts. If the teacher gives no
    answer at all, mu_hat is unknown and the group has no weight.

    Args:
        num_teacher_rollouts: Number of the teacher's completions of each prompt.
    """

    num_teacher_rollouts: int = 4

    def __post_init__(self) -> None:
        if self.num_teacher_rollouts < 1:
            raise ConfigError(
                "Expected `num_teacher_rollouts` of SelfConsistency to be at least 1, but got "
                f"{self.num_teacher_rollouts}."
            )

    def when_stopped(self, batch: int, num_rollouts: int, max_deviation: float) -> Estimator:
        """Refuse: when a group stops is decided before the teacher has answered.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError(
            "Expected an estimator that judges by verdicts with `data.round.adaptive`, but got SelfConsistency, which "
            "knows nothing before the teacher has answered."
        )

    def estimate(self, verdicts: Sequence[Verdict], teacher_answers: Sequence[str | None] = ()) -> float | None:
        """Return the share of the rollouts' answers that equal the teacher's majority answer, None if it gave none."""
        anchor = majority_answer(teacher_answers)
        if anchor is None:
            return None
        return sum(verdict.answer == anchor for verdict in verdicts) / len(verdicts)


def majority_answer(answers: Sequence[str | None]) -> str | None:
    """Return the most frequent answer, the first given of equally frequent ones; None where there is none.

    Args:
        answers: Canonical answers; None for a completion without a readable one, which has no vote.

    Example:
        >>> majority_answer(["B", None, "A", None, "A", "B", None])
        'B'
    """
    given = Counter(answer for answer in answers if answer is not None)
    return given.most_common(1)[0][0] if given else None
