"""Measures what the paper's propositions are about: how optimistic the teacher's context is. No torch here.

R(y) is the verdict on the completion y, c the confidence that a context z states, T(.|z) the teacher under z. The
success rate of a group is the share of correct rollouts among those with a verdict, whatever an estimator makes of
them. Under an adaptive budget only the first batch of a group counts, which no stopping rule has selected.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from caopd.errors import ConfigError
from caopd.types import TrainSample, VerifiedGroup, VerifiedRollout, verdicts_of


@dataclass(frozen=True)
class TeacherProbe:
    """Says when the teacher completes prompts with its context, to compare its success with the student's.

    Attributes:
        every_num_rounds: Number of rounds from one probe to the next, beginning with round 0; 0 never probes.
        num_rollouts: Number of the teacher's completions of each prompt of the round.

    Raises:
        ConfigError: ``every_num_rounds`` is negative, or ``num_rollouts`` is below 1.
    """

    every_num_rounds: int = 0
    num_rollouts: int = 4

    def __post_init__(self) -> None:
        if self.every_num_rounds < 0 or self.num_rollouts < 1:
            raise ConfigError(
                "Expected `every_num_rounds` of the teacher's probe to be 0 (never) or larger and `num_rollouts` to be "
                f"at least 1, but got {self}: change `data.teacher_probe`."
            )

    def is_due(self, number: int) -> bool:
        """Return whether the round with this number is probed."""
        return self.every_num_rounds > 0 and number % self.every_num_rounds == 0


def stated_optimism(groups: Sequence[VerifiedGroup], samples: Sequence[Sequence[TrainSample]]) -> dict[str, float]:
    """Return ``stated_optimism``: the mean of c over the samples that train with a context, minus the success rate.

    The success rate is the mean over all groups, those among them that teach nothing: a method that finds contexts for
    easy prompts alone is optimistic, however right it is about these. This needs no further completions. For SDFT,
    whose demonstrations state 1, it is 1 minus the accuracy; for CaOPD, which teaches every rollout its group's success
    rate, it is 0.

    Args:
        groups: All groups of the round.
        samples: The training samples of each group, with the contexts that the method chose.
    """
    size = _smallest(groups)
    contexts = [sample.context for of_group in samples for sample in of_group[:size] if sample.weight > 0]
    stated = [context.confidence for context in contexts if context and context.confidence is not None]
    success_rates = [rate for rate in _success_rates(groups) if rate is not None]
    return {"stated_optimism": fmean(stated) - fmean(success_rates)} if stated and success_rates else {}


def optimism_bias(groups: Sequence[VerifiedGroup], taught: Sequence[Sequence[VerifiedRollout]]) -> dict[str, float]:
    """Return the teacher's success rate under its context, and how far it is above the student's (Proposition 3).

    ``teacher_accuracy`` is the mean of R(y), y ~ T(.|z); ``optimism_bias`` is the mean over groups of the group's
    teacher accuracy minus its success rate. Where the method has no context, z is empty: the teacher sees the question.

    Args:
        groups: All groups of the round.
        taught: The teacher's completions for each group.
    """
    pairs = [
        (fmean(verdict.correct for verdict in verdicts), success_rate)
        for success_rate, completions in zip(_success_rates(groups), taught, strict=True)
        if (verdicts := verdicts_of(completions)) and success_rate is not None
    ]
    if not pairs:
        return {}
    return {
        "teacher_accuracy": fmean(accuracy for accuracy, _ in pairs),
        "optimism_bias": fmean(accuracy - success_rate for accuracy, success_rate in pairs),
    }


def _success_rates(groups: Sequence[VerifiedGroup]) -> list[float | None]:
    """Return each group's success rate, over as many rollouts as the smallest group has; None without a verdict."""
    size = _smallest(groups)
    each = [verdicts_of(group.rollouts[:size]) for group in groups]
    return [fmean(verdict.correct for verdict in verdicts) if verdicts else None for verdicts in each]


def _smallest(groups: Sequence[VerifiedGroup]) -> int:
    return min((len(group.rollouts) for group in groups), default=0)
