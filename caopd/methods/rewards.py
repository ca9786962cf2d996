"""Rewards of completions, which policy-gradient methods maximise. No torch here."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass

from caopd.errors import ConfigError
from caopd.reading.thinking import hidden, is_marker
from caopd.types import Example, Form, Verdict, VerifiedRollout


class Reward(ABC):
    """Scores one completion. A reward of your own is one small class; its constructor's arguments are its settings.

    Examples:
        >>> from caopd.types import AnswerOutcome, ConfidenceReading, Rollout, StopReason, Verdict
        >>> class Brevity(Reward):
        ...     def __call__(self, example, rollout):
        ...         return -len(rollout.rollout.token_ids) / 100
        >>> rollout = VerifiedRollout(
        ...     Rollout((5, 6), "B", StopReason.EOS, (-1.0, -0.1), 0),
        ...     Verdict(True, "B", AnswerOutcome.PARSED),
        ...     ConfidenceReading(None, None, ConfidenceOutcome.MISSING),
        ... )
        >>> Brevity()(Example("1", "Q", "B"), rollout)
        -0.02
    """

    weight: float = 1.0
    """The reward's factor in the weighted sum of rewards."""

    @abstractmethod
    def __call__(self, example: Example, rollout: VerifiedRollout) -> float:
        """Return the reward of a completion, before it is weighted.

        Args:
            example: The prompt's row.
            rollout: The completion with its verdict, which all that are rewarded have, and its confidence reading.
        """


def verdict_of(rollout: VerifiedRollout) -> Verdict:
    """Return the verdict of a rollout that is rewarded."""
    assert rollout.verdict is not None
    return rollout.verdict


@dataclass(frozen=True)
class Correctness(Reward):
    """The verdict R: 1 for a correct answer, 0 for a wrong one or none.

    Args:
        weight: The reward's factor in the weighted sum of rewards.
    """

    weight: float = 1.0

    def __call__(self, example: Example, rollout: VerifiedRollout) -> float:
        """Return 1 or 0; arguments as in :meth:`Reward.__call__`."""
        return float(verdict_of(rollout).correct)


@dataclass(frozen=True)
class Format(Reward):
    """1 for a completion whose answer and confidence are in the form asked for, else 0.

    Args:
        tags: Elements that the completion must hold besides, in this order: ``<tag>...</tag>``.
        weight: The reward's factor in the weighted sum of rewards.
    """

    tags: tuple[str, ...] = ()
    weight: float = 1.0

    def __call__(self, example: Example, rollout: VerifiedRollout) -> float:
        """Return 1 or 0; arguments as in :meth:`Reward.__call__`."""
        outcomes = (verdict_of(rollout).outcome, rollout.reading.outcome)
        return float(all(outcome.form is Form.ASKED for outcome in outcomes) and self._has_tags(rollout))

    def _has_tags(self, rollout: VerifiedRollout) -> bool:
        text = rollout.rollout.text
        position, heard = 0, hidden(text, rollout.thoughts)
        for tag in self.tags:
            for edge in (f"<{tag}>", f"</{tag}>"):
                # A tag within a thought does not count, but the tags of the thought itself may be asked for.
                found = re.compile(re.escape(edge), re.IGNORECASE).search(text if is_marker(edge) else heard, position)
                if found is None:
                    return False
                position = found.end()
        return True


@dataclass(frozen=True)
class Brier(Reward):
    """R - (q - R)^2, correctness minus the Brier score of the stated confidence q (RLCR, arXiv 2507.16806).

    Its expectation is largest where q is the probability of being right. A completion whose answer or whose confidence
    cannot be read earns 0, whether it is correct or not: otherwise it would pay to state none.

    Args:
        weight: The reward's factor in the weighted sum of rewards.
    """

    weight: float = 1.0

    def __call__(self, example: Example, rollout: VerifiedRollout) -> float:
        """Return a reward in [-1, 1]; arguments as in :meth:`Reward.__call__`."""
        confidence, verdict = rollout.reading.value, verdict_of(rollout)
        if confidence is None or verdict.outcome.form is Form.NONE:
            return 0.0
        correct = float(verdict.correct)
        return correct - (confidence - correct) ** 2


@dataclass(frozen=True)
class MarginSeparated(Reward):
    """Every correct answer earns more than every wrong one, and each of them earns more with a better confidence q.

    Correct: 1 + correct_bonus (1 - (1 - q)^2). Wrong: -wrong_penalty q^2. A confidence that cannot be read counts as a
    wrong answer with q = 1. These are the known properties of the reward of CAR (arXiv 2601.07264); its formula could
    not be retrieved, and this one is a choice of this package.

    Args:
        correct_bonus: What full confidence adds to a correct answer, 0 or more.
        wrong_penalty: What full confidence costs a wrong one, 0 or more.
        weight: The reward's factor in the weighted sum of rewards.
    """

    correct_bonus: float = 1.0
    wrong_penalty: float = 1.0
    weight: float = 1.0

    def __post_init__(self) -> None:
        for name in ("correct_bonus", "wrong_penalty"):
            if not getattr(self, name) >= 0:
                raise ConfigError(
                    f"Expected `{name}` of MarginSeparated to be 0 or larger, but got {getattr(self, name)}: a wrong "
                    "answer could earn more than a correct one."
                )

    def __call__(self, example: Example, rollout: VerifiedRollout) -> float:
        """Return the reward; arguments as in :meth:`Reward.__call__`."""
        confidence = rollout.reading.value
        if confidence is None:
            return -self.wrong_penalty
        if verdict_of(rollout).correct:
            return 1.0 + self.correct_bonus * (1.0 - (1.0 - confidence) ** 2)
        return -self.wrong_penalty * confidence**2
