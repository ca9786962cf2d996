"""What the paper's propositions say of a round, measured: how far the teacher's context is above the student. No torch.

R(y) is the verdict, c the confidence that a context z states, T(.|z) the teacher under it. A group's success rate is
that of its rollouts, whatever an estimator makes of them; of an adaptive budget the first batch counts, which no
stopping has selected.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan
from statistics import fmean

from caopd.errors import ConfigError
from caopd.types import TrainSample, VerifiedGroup, VerifiedRollout


@dataclass(frozen=True)
class TeacherProbe:
    """When the teacher completes prompts with its context, to compare its success with the student's.

    Attributes:
        every_num_rounds: Rounds between probes, beginning with round 0; 0 never probes.
        num_rollouts: Completions of the teacher per prompt of the round.

    Raises:
        ConfigError: A negative distance, or no completion.
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
    """Return ``stated_optimism``: mean of c minus the success rate, over groups that train with a context.

    Of a group, c is the mean over its samples. It needs no sampling. For SDFT, whose demonstrations state 1, it is 1
    minus the accuracy; for CaOPD with the Monte Carlo estimate of all rollouts it is 0.

    Args:
        groups: All groups of the round.
        samples: Of each group, with the contexts that the method chose.
    """
    differences = []
    for of_group, success_rate in zip(samples, _success_rates(groups), strict=True):
        contexts = [sample.context for sample in of_group if sample.weight > 0]
        stated = [context.confidence for context in contexts if context and context.confidence is not None]
        if stated:
            differences.append(fmean(stated) - success_rate)
    return {"stated_optimism": fmean(differences)} if differences else {}


def optimism_bias(groups: Sequence[VerifiedGroup], taught: Sequence[Sequence[VerifiedRollout]]) -> dict[str, float]:
    """Return the teacher's success rate under its context, and how far it is above the student's (Proposition 3).

    ``teacher_accuracy`` is the mean of R(y), y ~ T(.|z); ``optimism_bias`` is the mean over groups of the group's
    teacher accuracy minus its success rate. Groups without a context are left out of both.

    Args:
        groups: All groups of the round.
        taught: The teacher's completions per group, none where it had no context.
    """
    pairs = [
        (fmean(verified.verdict.correct for verified in completions), success_rate)
        for success_rate, completions in zip(_success_rates(groups), taught, strict=True)
        if completions
    ]
    if not pairs:
        return {}
    return {
        "teacher_accuracy": fmean(accuracy for accuracy, _ in pairs),
        "optimism_bias": fmean(accuracy - success_rate for accuracy, success_rate in pairs),
    }


def _success_rates(groups: Sequence[VerifiedGroup]) -> list[float]:
    """Of as many rollouts of each group as the smallest one has; NaN where nothing was sampled."""
    smallest = min((len(group.rollouts) for group in groups), default=0)
    if smallest == 0:
        return [nan] * len(groups)
    return [fmean(verified.verdict.correct for verified in group.rollouts[:smallest]) for group in groups]
