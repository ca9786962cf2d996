"""The task of the embedded model: questions whose answer only the privileged context reveals.

"Which even digit was drawn from 38526?" lists five or six distinct digits; ``e`` of them are even and one of those,
at random, was drawn. From the question alone nobody can do better than 1/e, so 1/e is the right confidence: the
paper's information asymmetry in the small. With the probabilities .4, .3, .2, .1 of e = 1, 2, 3, 4, the best possible
accuracy is .642 and the best Brier score .138.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from caopd.errors import ConfigError
from caopd.tasks.base import Task, check_split
from caopd.types import Example
from caopd.verifiers import ExactMatch, Verifier

KINDS: dict[str, Callable[[int], bool]] = {
    "even": lambda digit: digit % 2 == 0,
    "odd": lambda digit: digit % 2 == 1,
    "low": lambda digit: digit < 5,
    "high": lambda digit: digit >= 5,
}
"""The four kinds of digits; each holds five of the ten."""
NUM_FITTING_WEIGHTS = {1: 0.4, 2: 0.3, 3: 0.2, 4: 0.1}
"""Probability of ``e``, the number of listed digits that fit the kind."""
HELD_OUT_PERCENT = 10
MAX_TRIES = 5_000
"""Number of tries after which the search for a new question is given up."""
_FITTING = {kind: [digit for digit in range(10) if fits(digit)] for kind, fits in KINDS.items()}
_OTHERS = {kind: [digit for digit in range(10) if not fits(digit)] for kind, fits in KINDS.items()}


@dataclass(frozen=True, slots=True)
class Draw:
    """One question of the task, as fields."""

    kind: str
    digits: tuple[int, ...]
    drawn: int

    @property
    def num_fitting(self) -> int:
        """``e``: how many listed digits could have been drawn; 1/e is the best possible accuracy."""
        return sum(KINDS[self.kind](digit) for digit in self.digits)

    @property
    def id(self) -> str:
        """Identifies the question, whichever digit was drawn."""
        return f"{self.kind}-{self.listed}"

    @property
    def listed(self) -> str:
        """The listed digits as they stand in the question."""
        return "".join(map(str, self.digits))

    @property
    def held_out(self) -> bool:
        """Whether the question belongs to the 10 % that training and warm start never see."""
        digest = hashlib.blake2b(f"{self.kind}:{self.listed}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") % 100 < HELD_OUT_PERCENT

    def example(self) -> Example:
        """Render the question as a task row; the drawn digit is the demonstration."""
        return Example(
            id=self.id,
            question=f"Which {self.kind} digit was drawn from {self.listed}?",
            target=str(self.drawn),
            demonstration=str(self.drawn),
            category=f"e={self.num_fitting}",
        )


def sample_num_fitting(rng: random.Random) -> int:
    """Choose ``e`` at random by its probabilities."""
    return rng.choices(tuple(NUM_FITTING_WEIGHTS), weights=tuple(NUM_FITTING_WEIGHTS.values()))[0]


def sample_draw(rng: random.Random, num_fitting: int, kinds: Sequence[str] = tuple(KINDS)) -> Draw:
    """Make one random question: a kind, ``e`` fitting and some other digits in random order, one of the fitting drawn.

    Args:
        rng: Generator of random numbers.
        num_fitting: ``e``, the number of listed digits that fit the kind.
        kinds: The kinds of which one is chosen.
    """
    kind = rng.choice(kinds)
    chosen = rng.sample(_FITTING[kind], num_fitting)
    digits = chosen + rng.sample(_OTHERS[kind], rng.choice((5, 6)) - num_fitting)
    rng.shuffle(digits)
    return Draw(kind, tuple(digits), rng.choice(chosen))


@dataclass(frozen=True)
class DrawTask(Task):
    """The task of the embedded model. Questions are generated, unique, and split by a hash of their text.

    Args:
        num_train: Number of training questions.
        num_validation: Number of held-out questions for validation.
        num_test: Number of further held-out questions for testing.
        seed: Seed of the question generator.
        kinds: Which of the kinds of questions in :data:`KINDS`; None is all four. One kind alone has about 14,000
            training and 1,600 held-out questions.
    """

    num_train: int = 25_600
    num_validation: int = 2_000
    num_test: int = 2_000
    seed: int = 0
    kinds: list[str] | None = None
    verifier: Verifier = field(default=ExactMatch(), init=False)

    def __post_init__(self) -> None:
        for name in ("num_train", "num_validation", "num_test"):
            if getattr(self, name) < 1:
                raise ConfigError(f"Expected `{name}` of DrawTask to be at least 1, but got {getattr(self, name)}.")
        if self.kinds is not None and (not self.kinds or set(self.kinds) - set(KINDS)):
            raise ConfigError(
                f"Expected `kinds` of DrawTask to be some of {', '.join(KINDS)}, or null for all, but got {self.kinds}."
            )

    def examples(self, split: str) -> Sequence[Example]:
        """Return the questions of ``train``, ``validation`` or ``test``; the same ones for the same seed.

        Raises:
            ConfigError: If the split has another name, or the task has no further unique questions.
        """
        check_split(split)
        held_out = split != "train"
        skip = self.num_validation if split == "test" else 0
        count = {"train": self.num_train, "validation": self.num_validation, "test": self.num_test}[split]
        return self._unique(held_out, skip + count)[skip:]

    def _unique(self, held_out: bool, count: int) -> list[Example]:
        """Make unique questions; ``e`` keeps its probabilities, however few questions of some ``e`` are left."""
        rng = random.Random(f"{self.seed}:{held_out}")
        kinds = tuple(KINDS) if self.kinds is None else tuple(self.kinds)
        unique: dict[str, Example] = {}
        while len(unique) < count:
            num_fitting = sample_num_fitting(rng)
            for _ in range(MAX_TRIES):
                draw = sample_draw(rng, num_fitting, kinds)
                if draw.held_out == held_out and draw.id not in unique:
                    unique[draw.id] = draw.example()
                    break
            else:
                raise ConfigError(
                    f"DrawTask found only {len(unique)} unique {'held-out' if held_out else 'training'} questions, but "
                    f"{count} are asked for: lower `num_train`, or `num_validation` and `num_test`, or add `kinds`."
                )
        return list(unique.values())
