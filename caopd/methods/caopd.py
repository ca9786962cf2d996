"""CaOPD (arXiv 2604.16830): teaches the student its own success rate as the confidence to state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import inf
from statistics import fmean

from caopd.errors import ConfigError
from caopd.methods.base import Distillation
from caopd.methods.sdft import SDFT
from caopd.types import ConfidenceOutcome, Example, TeacherContext, TrainSample, VerifiedGroup, VerifiedRollout

_NOTE_ALONE = TeacherContext("solution", response=None, confidence=None)
"""A context without a solution; the empirical confidence and its note are added."""


@dataclass(frozen=True)
class CaOPD(Distillation):
    """Wraps any distillation method, its *backbone*, and calibrates it.

    Every completion's confidence segment is overwritten with mu_hat of its group, and so is the confidence in the
    teacher's context (steps 3 and 4 of the paper); the rest of completion and context are the backbone's.

    A rollout that the backbone has no context for is taught mu_hat all the same: the teacher sees the question and the
    note of the empirical confidence, and the tokens of the confidence segment alone are trained. ``SDPO`` has contexts
    only where another rollout succeeded; training on those alone teaches too high a confidence, by selection.

    Args:
        backbone: The method that chooses the teacher's context.
        num_levels: mu_hat is rounded, before it is stated, to the nearest of so many equally spaced values from 0 to 1;
            9 are the eighths that G = 8 has by itself. None states it to two decimals.
        calibrate_all: Whether mu_hat is taught without a context of the backbone, too; false is the paper's form.
        gain: How far the taught confidence lies from the mean c that the group's rollouts state (0) to mu_hat (1, the
            paper's form). At 1 the student learns to state mu_hat with all its scatter, that of k / G and that of
            prompts which it cannot tell apart. Below 1 what it states gathers around the same mean, which is reached
            more slowly. A group that states none is taught mu_hat.
        body_weight: Weight of a token outside the confidence segment, where one inside has 1. Below 1 how sure to be is
            learnt sooner than what to answer.

    Raises:
        ConfigError: Fewer than two levels, a gain outside (0, 1], or a weight below 0.
    """

    backbone: Distillation = field(default_factory=SDFT)
    num_levels: int | None = None
    calibrate_all: bool = True
    gain: float = 1.0
    body_weight: float = 1.0
    revises = True

    def __post_init__(self) -> None:
        if self.num_levels is not None and self.num_levels < 2:
            raise ConfigError(
                f"Expected `num_levels` of CaOPD to be at least 2 (0 and 1), or null for two decimals, but got "
                f"{self.num_levels}: set `model.method.num_levels`; 9 are eighths, 11 tenths."
            )
        if not 0 < self.gain <= 1:
            raise ConfigError(
                f"Expected `gain` of CaOPD to be in (0, 1], but got {self.gain}: set `model.method.gain`."
            )
        if not 0 <= self.body_weight < inf:
            raise ConfigError(
                f"Expected `body_weight` of CaOPD to be 0 or larger, but got {self.body_weight}: set "
                "`model.method.body_weight`."
            )

    @property
    def min_rollouts(self) -> int:  # type: ignore[override]
        """Smallest G that the backbone can work with."""
        return self.backbone.min_rollouts

    def train_samples(self, group: VerifiedGroup) -> list[TrainSample]:
        """Return the backbone's samples with mu_hat in completion and context; with weight 0 where it is unknown."""
        stated = [each.reading.value for each in group.rollouts if each.reading.value is not None]
        mean = fmean(stated) if stated else None
        return [
            self._calibrated(sample, self.stated_confidence(self._towards(mu_hat, mean)))
            for sample, mu_hat in zip(self.backbone.train_samples(group), group.mu_hats, strict=True)
        ]

    def stated_confidence(self, mu_hat: float | None) -> float | None:
        """Return the level nearest to mu_hat (of two equally near ones the even one), or mu_hat without levels."""
        if mu_hat is None or self.num_levels is None:
            return mu_hat
        num_steps = self.num_levels - 1
        return round(mu_hat * num_steps) / num_steps

    def teacher_context(
        self, example: Example, rollouts: Sequence[VerifiedRollout], index: int
    ) -> TeacherContext | None:
        """Return the backbone's context, before mu_hat is known."""
        return self.backbone.teacher_context(example, rollouts, index)

    def known_context(self, example: Example) -> TeacherContext | None:
        """Return the backbone's context, with the note that CaOPD adds to it."""
        context = self.backbone.known_context(example)
        return context and context.with_empirical_confidence(1.0)

    def check_example(self, example: Example) -> None:
        """Raise if the backbone cannot use the row."""
        self.backbone.check_example(example)

    def _towards(self, mu_hat: float | None, stated: float | None) -> float | None:
        """Return what lies ``gain`` of the way from the stated mean to mu_hat; mu_hat where nothing is stated."""
        if mu_hat is None or stated is None:
            return mu_hat
        return self.gain * mu_hat + (1 - self.gain) * stated

    def _calibrated(self, sample: TrainSample, confidence: float | None) -> TrainSample:
        """Return the sample with this confidence in completion and context; with weight 0 where it is None."""
        if confidence is None:
            return replace(sample, weight=0.0)
        if self.calibrate_all and sample.context is None and sample.weight == 0 and _is_finished(sample):
            sample = replace(sample, context=_NOTE_ALONE, weight=1.0, body_weight=0.0)
        context = sample.context and sample.context.with_empirical_confidence(confidence)
        body_weight = sample.body_weight * self.body_weight
        return replace(sample, confidence=confidence, context=context, body_weight=body_weight)


def _is_finished(sample: TrainSample) -> bool:
    """Return whether the completion can state a confidence: one that ends within its thinking is not revised."""
    return isinstance(sample.rollout, VerifiedRollout) and (
        sample.rollout.reading.outcome is not ConfidenceOutcome.UNFINISHED
    )
