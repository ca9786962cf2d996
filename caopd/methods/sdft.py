"""SDFT (arXiv 2601.19897): the teacher sees a demonstration that states full confidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from caopd.errors import DataError
from caopd.methods.base import Distillation
from caopd.types import Example, TeacherContext, VerifiedRollout


@dataclass(frozen=True)
class SDFT(Distillation):
    """Self-distillation fine-tuning: the teacher's context is the demonstration of the data.

    Args:
        demonstration_confidence: The confidence that the demonstration states; the paper's demonstrations state 1.00.
    """

    demonstration_confidence: float = 1.0

    def teacher_context(
        self, example: Example, rollouts: Sequence[VerifiedRollout], index: int
    ) -> TeacherContext | None:
        """Return the demonstration, the same for every rollout of the group."""
        return self.known_context(example)

    def known_context(self, example: Example) -> TeacherContext | None:
        """Return the demonstration with its confidence."""
        self.check_example(example)
        assert example.demonstration is not None
        return TeacherContext("demonstration", example.demonstration, self.demonstration_confidence)

    def check_example(self, example: Example) -> None:
        """Raise if the row has no demonstration.

        Raises:
            DataError: The demonstration is missing or blank: the teacher would know no more than the student.
        """
        if example.demonstration is None or not example.demonstration.strip():
            raise DataError(
                f"Expected example {example.id!r} to have a demonstration, but it has none: without a teacher context "
                "SDFT has nothing to teach. Add a demonstration to the row, let the task build one from the answer, or "
                "use SDPO, whose context is a verified rollout."
            )
