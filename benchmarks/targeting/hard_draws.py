"""``DrawTask`` with questions that nobody can answer: their success rate is .10, whatever the student says."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from caopd.tasks import DrawTask
from caopd.tasks.draw import KINDS
from caopd.types import Example

HARD, HARD_SHARE = "e=0", 0.3


@dataclass(frozen=True)
class HardDraws(DrawTask):
    """Some questions list no digit that fits, and any of the ten was drawn.

    Args:
        hard_share: Share of these questions.
    """

    hard_share: float = HARD_SHARE

    def examples(self, split: str) -> Sequence[Example]:
        """Return the questions of a split."""
        rng = random.Random(f"hard:{self.seed}:{split}")
        return [
            _hard(rng, number) if rng.random() < self.hard_share else example
            for number, example in enumerate(super().examples(split))
        ]


def _hard(rng: random.Random, number: int) -> Example:
    kind = rng.choice(tuple(KINDS))
    others = [digit for digit in range(10) if not KINDS[kind](digit)]
    listed = "".join(str(rng.choice(others)) for _ in range(rng.choice((5, 6))))
    drawn = str(rng.randrange(10))
    question = f"Which {kind} digit was drawn from {listed}?"
    return Example(f"{kind}-{listed}-{number}", question, target=drawn, demonstration=drawn, category=HARD)
