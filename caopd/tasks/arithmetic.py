"""Arithmetic: generated questions that a small language model gets right more or less often, as their kind decides."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from caopd.errors import ConfigError
from caopd.tasks.base import SPLITS, Task, check_split
from caopd.types import Example
from caopd.verifiers import Numeric, Verifier

KINDS = ("1+1", "1*1", "2+1", "1+2", "2+2", "3+1", "2*1", "2-1", "3+2", "2*2", "3-2", "3-3", "3*2", "4*2")
"""The kinds of questions that are asked by default: a small language model gets nearly all of the first ones right, and
nearly none of the last."""
HELD_OUT_PERCENT = 10
"""How many of a hundred calculations belong to validation, and how many to the test."""
MAX_TRIES = 5_000
"""Number of tries after which there is no further question of a kind."""
Demonstration = Literal["equation", "worked", "answer"]
"""What a demonstration can show."""
_KIND = re.compile(r"([1-9])([-+*/])([1-9])")


@dataclass(frozen=True, slots=True)
class Calculation:
    """Two numbers of zero or more and what is to be done with them.

    Attributes:
        first: The first number.
        operator: ``+``, ``-``, ``*`` or ``/``; the result is a whole number of zero or more.
        second: The second number.
    """

    first: int
    operator: str
    second: int

    def __str__(self) -> str:
        """Return it as it is asked for, such as ``47 + 385``."""
        return f"{self.first} {self.operator} {self.second}"

    @property
    def result(self) -> int:
        """What it comes to."""
        if self.operator == "+":
            return self.first + self.second
        if self.operator == "-":
            return self.first - self.second
        return self.first * self.second if self.operator == "*" else self.first // self.second

    @property
    def kind(self) -> str:
        """The operator between the numbers of digits of both numbers: ``2+3``."""
        return f"{len(str(self.first))}{self.operator}{len(str(self.second))}"

    @property
    def split(self) -> str:
        """The split that it belongs to, whatever the seed; ``3 + 5`` and ``5 + 3`` are in the same one."""
        numbers = (self.first, self.second)
        first, second = sorted(numbers) if self.operator in "+*" else numbers
        digest = hashlib.blake2b(f"{first}{self.operator}{second}".encode(), digest_size=8).digest()
        percent = int.from_bytes(digest, "big") % 100
        return SPLITS[1 + percent // HELD_OUT_PERCENT] if percent < 2 * HELD_OUT_PERCENT else "train"

    def worked(self) -> str:
        """Return the way to the result, one step on each line and digit by digit of one number; the result is last."""
        whole = f"{self} = {self.result}"
        if self.operator in "+-":
            steps, value = [], self.first
            for part in _by_places(self.second):
                step = Calculation(value, self.operator, part)
                steps.append(f"{step} = {step.result}")
                value = step.result
            return "\n".join([*steps, whole] if len(steps) > 1 else steps)
        factor, divided = (self.first, self.second) if self.operator == "*" else (self.second, self.result)
        parts = _by_places(divided)
        products = [f"{factor} * {part} = {factor * part}" for part in parts]
        if self.operator == "/":
            return "\n".join([*products, whole])
        added = " + ".join(str(factor * part) for part in parts)
        return "\n".join([*products, f"{added} = {self.result}", whole] if len(parts) > 1 else products)


def _by_places(number: int) -> list[int]:
    """Return 300, 80 and 5 of 385; only 0 has a part that is 0."""
    digits = str(number)
    parts = [int(digit) * 10 ** (len(digits) - place) for place, digit in enumerate(digits, 1)]
    return [part for part in parts if part] or [0]


def sample_calculation(rng: random.Random, kind: str) -> Calculation:
    """Make a random calculation.

    Args:
        rng: Generator of random numbers.
        kind: Its kind, such as ``2+3``. A difference is taken from the larger number, and a quotient has no remainder.
    """
    (first_low, first_high), operator, (second_low, second_high) = _parsed(kind)
    if operator == "/":
        second = rng.randint(max(second_low, 1), second_high)
        return Calculation(second * rng.randint(-(-first_low // second), first_high // second), operator, second)
    first, second = rng.randint(first_low, first_high), rng.randint(second_low, second_high)
    if operator == "-" and first < second:
        first, second = second, first
    return Calculation(first, operator, second)


def _parsed(kind: str) -> tuple[tuple[int, int], str, tuple[int, int]]:
    """Return the smallest and largest first number, the operator, and the smallest and largest second number.

    Raises:
        ConfigError: There is no such kind.
    """
    found = _KIND.fullmatch(kind)
    if found is None or (found[2] in "-/" and found[1] < found[3]):
        raise ConfigError(
            "Expected each of the `kinds` of Arithmetic to be an operator (+, -, * or /) between the numbers of digits "
            f"of two numbers, each from 1 to 9, and the first no smaller for - and /, as in 3+2, but got {kind!r}."
        )
    first, second = (((10 ** (n - 1)) if n > 1 else 0, 10**n - 1) for n in (int(found[1]), int(found[3])))
    return first, found[2], second


@dataclass(frozen=True)
class Arithmetic(Task):
    """Questions such as "What is 47 + 385?", whose difficulty a model can see. They are generated and unique.

    The category is the kind of question: the operator between the numbers of digits of both numbers, here ``2+3``.
    Kinds take turns, so there are equally many of each; one that has no further question gives all that it has, and
    the others make up for it. Which split a calculation is in depends on nothing but the calculation, so the splits of
    all tasks of this class, whatever their seeds, have none in common.

    Args:
        num_train: Number of training questions.
        num_validation: Number of held-out questions for validation.
        num_test: Number of other held-out questions for testing.
        seed: Seed of the question generator.
        kinds: The kinds of questions; None is :data:`KINDS`.
        demonstration: What a demonstration shows: the question with its answer (``equation``, ``47 + 385 = 432``), the
            steps to it line by line (``worked``), or the ``answer`` alone.
        system: System message; None for none, or for the one that the chat template adds.

    Examples:
        >>> Arithmetic(kinds=["2+3"], demonstration="worked").examples("test")[0].category
        '2+3'
    """

    num_train: int = 8_000
    num_validation: int = 500
    num_test: int = 1_000
    seed: int = 0
    kinds: list[str] | None = None
    demonstration: Demonstration = "equation"
    system: str | None = None
    verifier: Verifier = field(default=Numeric(), init=False)

    def __post_init__(self) -> None:
        for name in ("num_train", "num_validation", "num_test"):
            if getattr(self, name) < 1:
                raise ConfigError(f"Expected `{name}` of Arithmetic to be at least 1, but got {getattr(self, name)}.")
        if self.demonstration not in get_args(Demonstration):
            raise ConfigError(
                f"Expected `demonstration` of Arithmetic to be one of {', '.join(get_args(Demonstration))}, but got "
                f"{self.demonstration!r}."
            )
        if self.kinds is not None and (not self.kinds or len(set(self.kinds)) < len(self.kinds)):
            raise ConfigError(
                "Expected `kinds` of Arithmetic to be different kinds, at least one, or null for the default, but got "
                f"{self.kinds}."
            )
        for kind in self.kinds or ():
            _parsed(kind)

    def examples(self, split: str) -> Sequence[Example]:
        """Return the questions of ``train``, ``validation`` or ``test``; the same ones for the same seed.

        Raises:
            ConfigError: If the split has another name, or the kinds have fewer questions than are asked for.
        """
        check_split(split)
        count = {"train": self.num_train, "validation": self.num_validation, "test": self.num_test}[split]
        rng = random.Random(f"{self.seed}:{split}")
        unique: dict[str, Example] = {}
        left = list(self.kinds or KINDS)
        while len(unique) < count and left:
            for kind in left[: count - len(unique)]:
                calculation = _new(rng, kind, split, unique)
                if calculation is None:
                    left.remove(kind)
                else:
                    unique[str(calculation)] = self._example(calculation)
        if len(unique) < count:
            raise ConfigError(
                f"Arithmetic found only {len(unique)} unique questions for the split {split!r}, but {count} are asked "
                f"for: lower `num_{split}`, or add `kinds`."
            )
        return list(unique.values())

    def _example(self, calculation: Calculation) -> Example:
        answer = str(calculation.result)
        shown = {"equation": f"{calculation} = {answer}", "worked": calculation.worked(), "answer": answer}
        return Example(
            id=str(calculation),
            question=f"What is {calculation}?",
            target=answer,
            system=self.system,
            demonstration=shown[self.demonstration],
            category=calculation.kind,
        )


def _new(rng: random.Random, kind: str, split: str, known: dict[str, Example]) -> Calculation | None:
    """Return a calculation of a split that is not known yet; None where there seems to be none."""
    for _ in range(MAX_TRIES):
        calculation = sample_calculation(rng, kind)
        if calculation.split == split and str(calculation) not in known:
            return calculation
    return None
