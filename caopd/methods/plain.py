"""Distillation from another, stronger model: the teacher sees the question as the student does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from caopd.methods.base import Method
from caopd.types import Example, TeacherContext, TrainSample, VerifiedGroup


@dataclass(frozen=True)
class PlainDistillation(Method):
    """Distillation without privileged context; it needs a teacher that is another model than the student.

    The two stages of the sparse-to-dense bridge (arXiv 2605.12483) are the teacher's rollouts with forward KL, then the
    student's with reverse KL.

    Args:
        rollouts_of: Whose completions are trained on, the student's or the teacher's.
    """

    rollouts_of: Literal["student", "teacher"] = "student"
    privileged = False

    def train_samples(self, group: VerifiedGroup) -> list[TrainSample]:
        """Return every rollout as it was sampled, right or wrong: the teacher has a distribution for both."""
        return [TrainSample(group.example, rollout, context=None) for rollout in group.rollouts]

    def known_context(self, example: Example) -> TeacherContext | None:
        """Return None: the teacher sees the student's prompt."""
        return None

    def check_example(self, example: Example) -> None:
        """Accept every row: nothing but the prompt is needed."""
