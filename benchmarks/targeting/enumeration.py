"""The mean confidence that a form teaches for prompts of one success rate, exact: all groups are enumerated."""

from __future__ import annotations

from math import comb

from caopd.methods import CaOPD
from caopd.methods.estimators import MonteCarlo
from caopd.types import (
    AnswerOutcome,
    ConfidenceOutcome,
    ConfidenceReading,
    Example,
    Rollout,
    StopReason,
    Verdict,
    VerifiedGroup,
    VerifiedRollout,
)

RATES = (0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
SIZES = (2, 4, 8, 16, 32)


def rollout(correct: bool) -> VerifiedRollout:
    """Return a completion of one token with this verdict."""
    sampled = Rollout((0,), "A", StopReason.EOS, (0.0,), policy_version=0)
    reading = ConfidenceReading(None, None, ConfidenceOutcome.MISSING)
    return VerifiedRollout(sampled, Verdict(correct, "A", AnswerOutcome.PARSED), reading)


def group(verdicts: list[bool]) -> VerifiedGroup:
    """Return a group with these verdicts, whose mu_hat is the Monte Carlo estimate."""
    rollouts = tuple(map(rollout, verdicts))
    mu_hats = MonteCarlo().estimate_each([each.verdict for each in rollouts if each.verdict], [])
    return VerifiedGroup(Example("1", "Q", "A"), (0,), rollouts, tuple(mu_hats))


def taught(method: CaOPD, rate: float, size: int) -> tuple[float, float]:
    """Return the mean confidence that is taught, and the share of rollouts whose confidence tokens are trained.

    Every rollout's segment counts by its sample's weight, as with ``token_mean``.
    """
    total = weight = 0.0
    for successes in range(size + 1):
        probability = comb(size, successes) * rate**successes * (1 - rate) ** (size - successes)
        for sample in method.train_samples(group([True] * successes + [False] * (size - successes))):
            if sample.confidence is not None:
                total += probability * sample.weight * sample.confidence
                weight += probability * sample.weight
    return total / weight, weight / size
