"""The size of a rollout round, and what it is judged by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from caopd.errors import ConfigError, DataError, name_of, user_code
from caopd.methods import Method
from caopd.types import (
    AnswerOutcome,
    ConfidenceOutcome,
    StopReason,
    TeacherContext,
    TrainSample,
    VerifiedGroup,
)

_WITHOUT_SEGMENT = (ConfidenceOutcome.MISSING, ConfidenceOutcome.UNFINISHED)


@dataclass(frozen=True)
class AdaptiveBudget:
    """Draws a group's rollouts in batches, until its success rate is certain enough or G are drawn.

    A group stops when the estimator's ``deviation``, the posterior's standard deviation, is at most ``max_deviation``.

    Attributes:
        num_rollouts_per_batch: Rollouts of a group that are drawn at once; the smallest group.
        max_deviation: In (0, 0.5); the larger, the fewer rollouts.
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
        num_prompts_per_round: Prompts whose rollouts make one epoch's data.
        num_rollouts: G, completions per prompt; all of them estimate mu_hat.
        num_trained_rollouts: How many of them are trained on; None trains on all.
        adaptive: Draws fewer than G where fewer are certain enough; None draws G for every prompt.
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

    @property
    def smallest_group(self) -> int:
        """Rollouts that every group has."""
        return self.num_rollouts if self.adaptive is None else self.adaptive.num_rollouts_per_batch

    @property
    def num_samples(self) -> int:
        """Training samples in a round."""
        return self.num_prompts_per_round * (self.num_trained_rollouts or self.num_rollouts)


def train_samples(method: Method, group: VerifiedGroup) -> list[TrainSample]:
    """Return what the method makes of a group: one sample per rollout, or one where it trains without rollouts.

    Args:
        method: Makes the samples.
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


def shown_context(method: Method, group: VerifiedGroup) -> TeacherContext | None:
    """Return the first context that the method shows its teacher for a group; None if the group offers nothing.

    Args:
        method: Chooses the context.
        group: Without mu_hat, the context is the one that is known before it.
    """
    samples = train_samples(method, group)
    return next((sample.context for sample in samples if sample.context is not None), None)


def method_statistics(groups: Sequence[VerifiedGroup], method: Method) -> dict[str, float]:
    """Return the means over the groups of what the method says of each.

    Args:
        groups: All groups of the round.
        method: Trains on them.
    """
    each = []
    for group in groups:
        with user_code(method, f"example {group.example.id!r}"):
            each.append(method.statistics(group))
    return {name: fmean(statistics[name] for statistics in each) for name in each[0]}


def round_statistics(groups: Sequence[VerifiedGroup], samples: Sequence[TrainSample]) -> dict[str, float]:
    """Return what a round is judged by; what no rollout says is absent, such as a mean confidence where none is stated.

    Shares and means of rollouts are over as many of every group as the smallest one has: an adaptive budget draws more
    where the student is unsure, and those would count for more.

    Args:
        groups: All groups of the round.
        samples: What is trained on.
    """
    smallest = min(len(group.rollouts) for group in groups)
    rollouts = [verified for group in groups for verified in group.rollouts[:smallest]]
    estimates = [group.mu_hat for group in groups if group.mu_hat is not None]
    stated = [verified.reading.value for verified in rollouts if verified.reading.value is not None]
    outcomes = [verified.reading.outcome for verified in rollouts]
    without_weight = fmean(sample.weight == 0 for sample in samples)
    if not rollouts:
        return {"without_weight": without_weight}
    statistics = {
        "accuracy": fmean(verified.verdict.correct for verified in rollouts),
        "format_adherence": len(stated) / len(rollouts),
        "decimal_format": fmean(outcome is ConfidenceOutcome.DECIMAL for outcome in outcomes),
        "missing_segment": fmean(outcome in _WITHOUT_SEGMENT for outcome in outcomes),
        "unfinished_thinking": fmean(outcome is ConfidenceOutcome.UNFINISHED for outcome in outcomes),
        "answer_parse_rate": fmean(v.verdict.outcome is AnswerOutcome.PARSED for v in rollouts),
        "truncated": fmean(v.rollout.stop_reason is StopReason.LENGTH for v in rollouts),
        "num_rollouts": fmean(len(group.rollouts) for group in groups),
        "num_tokens": float(sum(len(v.rollout.token_ids) for group in groups for v in group.rollouts)),
        "num_tokens_mean": fmean(len(verified.rollout.token_ids) for verified in rollouts),
        "without_weight": without_weight,
    }
    if stated:
        statistics["mean_confidence"] = fmean(stated)
    if estimates:
        statistics["mu_hat"] = fmean(estimates)
    return statistics
