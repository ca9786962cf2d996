"""What the paper's propositions say of a round, measured: how far the teacher's context is above the student. No torch.

R(y) is the verdict, c the confidence that a context z states, T(.|z) the teacher under it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from caopd.errors import ConfigError
from caopd.methods import Method
from caopd.types import VerifiedGroup, VerifiedRollout


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


def stated_optimism(groups: Sequence[VerifiedGroup], method: Method) -> dict[str, float]:
    """Return ``stated_optimism``: mean of c - mu_hat, over groups with both; of a group, the mean over its samples.

    It needs no sampling. 1 - mean mu_hat for SDFT, whose demonstrations state 1; 0 for CaOPD.

    Args:
        groups: All groups of the round.
        method: Chooses the contexts.
    """
    differences = []
    for group in groups:
        if group.mu_hat is None:
            continue
        contexts = [sample.context for sample in method.train_samples(group)]
        stated = [context.confidence for context in contexts if context and context.confidence is not None]
        if stated:
            differences.append(fmean(stated) - group.mu_hat)
    return {"stated_optimism": fmean(differences)} if differences else {}


def optimism_bias(groups: Sequence[VerifiedGroup], taught: Sequence[Sequence[VerifiedRollout]]) -> dict[str, float]:
    """Return the teacher's success rate under its context, and how far it is above mu_hat (Proposition 3).

    ``teacher_accuracy`` is the mean of R(y), y ~ T(.|z); ``optimism_bias`` is the mean over groups of the group's
    teacher accuracy minus mu_hat. Groups without a context or an estimate are left out of both.

    Args:
        groups: All groups of the round.
        taught: The teacher's completions per group, none where it had no context.
    """
    pairs = [
        (fmean(verified.verdict.correct for verified in completions), group.mu_hat)
        for group, completions in zip(groups, taught, strict=True)
        if completions and group.mu_hat is not None
    ]
    if not pairs:
        return {}
    return {
        "teacher_accuracy": fmean(accuracy for accuracy, _ in pairs),
        "optimism_bias": fmean(accuracy - mu_hat for accuracy, mu_hat in pairs),
    }
