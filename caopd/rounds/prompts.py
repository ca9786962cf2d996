"""Decides which prompts a round trains on: a stage has an endless stream of shuffled passes over its training split."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from caopd.errors import ConfigError
from caopd.seeds import derive_seed
from caopd.tasks import Stage, examples_of, verifier_of
from caopd.types import Example
from caopd.verifiers import Verifier


@dataclass(frozen=True)
class RoundPrompts:
    """The prompts that a round samples rollouts for.

    Attributes:
        examples: The rows, in order.
        seeds: The seed of each row's group.
        verifier: The verifier of the stage's task.
    """

    examples: Sequence[Example]
    seeds: Sequence[int]
    verifier: Verifier

    def share(self, rank: int, world_size: int) -> RoundPrompts:
        """Return the prompts that one of several processes samples for."""
        size = len(self.examples) // world_size
        return self.only(range(rank * size, (rank + 1) * size))

    def only(self, indices: Sequence[int]) -> RoundPrompts:
        """Return the prompts at some positions, in their order."""
        return RoundPrompts([self.examples[i] for i in indices], [self.seeds[i] for i in indices], self.verifier)

    def reseeded(self, name: str) -> RoundPrompts:
        """Return the same prompts with other seeds, derived from theirs and a name."""
        return replace(self, seeds=[derive_seed(seed, name) for seed in self.seeds])


class Curriculum:
    """The training prompts of one stage, or of several one after the other; a round's number decides its prompts.

    Args:
        stages: The stages, in their order; the last one never ends.
        num_prompts: Number of prompts of a round.
        seed: The order of prompts and the seeds of their groups are derived from it.
    """

    def __init__(self, stages: Sequence[Stage], num_prompts: int, seed: int) -> None:
        self._stages = stages
        self._num_prompts = num_prompts
        self._seed = seed
        self._examples: list[Sequence[Example]] = []

    def load(self, check: Callable[[Sequence[Example]], None]) -> None:
        """Read every stage's training split.

        Args:
            check: Called with the examples of each; raises where one cannot be trained on.

        Raises:
            ConfigError: A split has fewer examples than a round has prompts.
        """
        self._examples = [examples_of(stage.task, "train") for stage in self._stages]
        for stage, examples in zip(self._stages, self._examples, strict=True):
            if self._num_prompts > len(examples):
                raise ConfigError(
                    f"Expected at least `num_prompts_per_round` = {self._num_prompts} training examples, but the task"
                    f"{stage.name and f' of stage {stage.name!r}'} has {len(examples)}: lower "
                    "`data.round.num_prompts_per_round` or add data."
                )
            check(examples)

    def round(self, number: int) -> RoundPrompts:
        """Return the prompts of a round, for all processes together.

        Args:
            number: Number of the round, counted from 0.
        """
        starts = stage_starts(self._stages)
        index = max(index for index, start in enumerate(starts) if start <= number)
        examples = self._examples[index]
        indices = prompt_indices(prompt_positions(number - starts[index], self._num_prompts), len(examples), self._seed)
        seeds = [derive_seed(self._seed, "rollout", each) for each in prompt_positions(number, self._num_prompts)]
        return RoundPrompts([examples[each] for each in indices], seeds, verifier_of(self._stages[index].task))


def stage_starts(stages: Sequence[Stage]) -> list[int]:
    """Return the number of the first round of each stage."""
    return list(accumulate((stage.num_rounds for stage in stages[:-1]), initial=0))


def stage_ends(stages: Sequence[Stage]) -> list[int]:
    """Return, for each stage, how many rounds there are up to its end."""
    return list(accumulate(stage.num_rounds for stage in stages))


def check_rounds(stages: Sequence[Stage], max_epochs: int | None, validates_every: int | None) -> None:
    """Raise unless training ends with the last stage, and every stage ends with a validation.

    Args:
        stages: The stages of a sequence of tasks.
        max_epochs: The trainer's ``max_epochs``.
        validates_every: The trainer's ``check_val_every_n_epoch``; 0 where nothing is validated.

    Raises:
        ConfigError: They do not fit; the message has the numbers that would.
    """
    ends = stage_ends(stages)
    if max_epochs != ends[-1]:
        rounds = ", ".join(f"{stage.name} {stage.num_rounds}" for stage in stages)
        raise ConfigError(
            f"Expected `trainer.max_epochs` to be the rounds of all stages, {ends[-1]} ({rounds}), but got "
            f"{max_epochs}: change it, or `num_rounds` in `data.task.stages`."
        )
    for stage, end in zip(stages, ends, strict=True):
        if validates_every is None or (validates_every and end % validates_every):
            raise ConfigError(
                f"Expected every stage to end with a validation, but stage {stage.name!r} ends after round {end} and "
                f"`trainer.check_val_every_n_epoch` is {validates_every}: take a divisor of "
                f"{', '.join(map(str, ends))}."
            )


def prompt_positions(round_index: int, num_prompts: int) -> range:
    """Return the positions of a round's prompts in the endless stream of shuffled passes over the data."""
    return range(round_index * num_prompts, (round_index + 1) * num_prompts)


def prompt_indices(positions: range, num_examples: int, seed: int) -> list[int]:
    """Return which example stands at each position; every pass is shuffled by its own seed.

    Args:
        positions: Positions of a round's prompts in the stream.
        num_examples: Number of examples in a pass.
        seed: Seed of the run.
    """
    orders: dict[int, list[int]] = {}
    for number in {position // num_examples for position in positions}:
        orders[number] = list(range(num_examples))
        random.Random(derive_seed(seed, "order", number)).shuffle(orders[number])
    return [orders[position // num_examples][position % num_examples] for position in positions]
