"""CaOPD (arXiv 2604.16830): distil the student's own success rate as its stated confidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from caopd.methods.base import Distillation
from caopd.methods.sdft import SDFT
from caopd.types import Example, TeacherContext, TrainSample, VerifiedGroup, VerifiedRollout


@dataclass(frozen=True)
class CaOPD(Distillation):
    """Wraps any distillation method and calibrates it.

    Every completion's confidence segment is overwritten with mu_hat of its group, and so is the confidence in the
    teacher's context (steps 3 and 4 of the paper); the answer and the rest of the context are the backbone's.

    Args:
        backbone: Chooses the teacher's context.
    """

    backbone: Distillation = field(default_factory=SDFT)
    revises = True

    @property
    def min_rollouts(self) -> int:  # type: ignore[override]
        """The backbone's."""
        return self.backbone.min_rollouts

    def train_samples(self, group: VerifiedGroup) -> list[TrainSample]:
        """Return the backbone's samples with mu_hat in completion and context; weight 0 where it is unknown."""
        return [
            _calibrated(sample, group.mu_hat_of(index))
            for index, sample in enumerate(self.backbone.train_samples(group))
        ]

    def teacher_context(
        self, example: Example, rollouts: Sequence[VerifiedRollout], index: int
    ) -> TeacherContext | None:
        """Return the backbone's context, before mu_hat is known."""
        return self.backbone.teacher_context(example, rollouts, index)

    def known_context(self, example: Example) -> TeacherContext | None:
        """Return the backbone's, with the note that calibration adds."""
        context = self.backbone.known_context(example)
        return context and context.with_empirical_confidence(1.0)

    def check_example(self, example: Example) -> None:
        """Ask the backbone."""
        self.backbone.check_example(example)


def _calibrated(sample: TrainSample, mu_hat: float | None) -> TrainSample:
    """Return the sample with mu_hat in completion and context, or without weight."""
    if mu_hat is None:
        return replace(sample, weight=0.0)
    context = sample.context and sample.context.with_empirical_confidence(mu_hat)
    return replace(sample, confidence=mu_hat, context=context)
