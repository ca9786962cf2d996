"""SDPO (arXiv 2601.20802): the teacher sees a verified correct rollout of the same group, and feedback on request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from caopd.methods.base import Distillation
from caopd.reading.thinking import said_beside
from caopd.types import Example, TeacherContext, VerifiedRollout


@dataclass(frozen=True)
class SDPO(Distillation):
    """Self-distillation policy optimisation: the context is a correct rollout of the group other than the trained one.

    The first such rollout is shown, as a *solution*. It states the confidence that it was sampled with. With
    ``feedback`` the context also shows what the verifier says of the trained rollout, if it is wrong: beside the
    solution, or alone where there is none. A rollout for which there is neither gets weight 0; the share of those is
    logged.

    Args:
        remove_thinking: Leave the thoughts of the solution out, ``<think>...</think>``, as the paper does; where the
            chat template opens the thinking in the prompt, they are what stands before ``</think>``.
        feedback: Show what the verifier says of a wrong rollout; of the tasks of this package, ``ToolUse`` gives such
            feedback.
    """

    remove_thinking: bool = True
    feedback: bool = False
    min_rollouts = 2

    def teacher_context(
        self, example: Example, rollouts: Sequence[VerifiedRollout], index: int
    ) -> TeacherContext | None:
        """Return the first correct rollout other than ``index``, and feedback; None where there is neither."""
        own = rollouts[index].verdict
        feedback = own.feedback if own is not None and self.feedback else None
        for other, verified in enumerate(rollouts):
            if other != index and verified.verdict is not None and verified.verdict.correct:
                return TeacherContext("solution", self._shown(verified), verified.reading.value, feedback=feedback)
        return None if feedback is None else TeacherContext("solution", None, None, feedback=feedback)

    def known_context(self, example: Example) -> TeacherContext | None:
        """Return None: solutions come from rollouts."""
        return None

    def check_example(self, example: Example) -> None:
        """Accept every row: the context does not come from the data."""

    def _shown(self, solution: VerifiedRollout) -> str:
        if self.remove_thinking:
            return said_beside(solution.rollout.text, solution.thoughts, solution.reading.span).strip()
        return solution.body.strip()
