"""SDPO (arXiv 2601.20802): the teacher sees a verified correct rollout of the same group."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from caopd.methods.base import Distillation
from caopd.types import Example, TeacherContext, VerifiedRollout

_THINKING = re.compile(r"<think>.*?</think>\s*", re.DOTALL)


@dataclass(frozen=True)
class SDPO(Distillation):
    """Self-distillation policy optimisation: context is the first successful rollout other than the trained one.

    A rollout without such a solution gets weight 0; the share of those is logged. The solution states the confidence
    that it was sampled with.

    Args:
        remove_thinking: Leave out ``<think>...</think>`` of the solution, as the paper does; where the chat template
            opens the thinking in the prompt, what stands before ``</think>``.
    """

    remove_thinking: bool = True
    min_rollouts = 2

    def teacher_context(
        self, example: Example, rollouts: Sequence[VerifiedRollout], index: int
    ) -> TeacherContext | None:
        """Return the first correct rollout other than ``index``; None when the group has no other success."""
        for other, verified in enumerate(rollouts):
            if other != index and verified.verdict.correct:
                body = verified.body
                if self.remove_thinking:
                    body = _THINKING.sub("", body).rpartition("</think>")[2]
                return TeacherContext("solution", body.strip(), verified.reading.value)
        return None

    def known_context(self, example: Example) -> TeacherContext | None:
        """Return None: solutions come from rollouts."""
        return None

    def check_example(self, example: Example) -> None:
        """Accept every row: the context does not come from the data."""
