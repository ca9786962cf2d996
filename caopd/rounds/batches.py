"""How a round's samples become optimizer steps: the same for any number of processes."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from caopd.errors import ConfigError
from caopd.losses import Denominators, TrainingLoss
from caopd.rounds.tokens import TokenBatch, TokenizedSample, collate
from caopd.seeds import derive_seed


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """How the samples of one optimizer step are shared out.

    Attributes:
        batch_size: Sequences in a micro-batch of one process.
        accumulate: Micro-batches of one process per optimizer step.
        world_size: Processes.
    """

    batch_size: int
    accumulate: int
    world_size: int

    def check(self, num_samples: int) -> None:
        """Raise unless every process gets equally many full micro-batches.

        Args:
            num_samples: Training samples in a round.

        Raises:
            ConfigError: If ``num_samples`` does not divide.
        """
        share = self.batch_size * self.world_size
        if self.batch_size < 1 or num_samples % share:
            raise ConfigError(
                f"Expected a round's {num_samples} training samples (num_prompts_per_round x num_trained_rollouts) to "
                f"be a multiple of batch_size x processes = {self.batch_size} x {self.world_size}, but it is not: "
                "change `data.batch_size` or `data.round.num_prompts_per_round`."
            )

    def micro_batches(
        self, samples: Sequence[TokenizedSample], rank: int, loss: TrainingLoss, pad_token_id: int
    ) -> list[TokenBatch]:
        """Return the micro-batches of one process, in order; each knows the denominators of its optimizer step.

        An optimizer step takes the next ``batch_size * accumulate * world_size`` samples; a process takes a
        contiguous share of them, so groups stay whole where they fit.

        Args:
            samples: All samples of the round, the same in every process.
            rank: This process.
            loss: Says what the denominators count.
            pad_token_id: Fills shorter sequences.
        """
        step_size = self.batch_size * self.accumulate * self.world_size
        batches = []
        for start in range(0, len(samples), step_size):
            step = samples[start : start + step_size]
            denominators = step_denominators(step, loss)
            share = len(step) // self.world_size
            mine = step[rank * share : (rank + 1) * share]
            for first in range(0, share, self.batch_size):
                batches.append(collate(mine[first : first + self.batch_size], denominators, pad_token_id))
        return batches


def step_denominators(step: Sequence[TokenizedSample], loss: TrainingLoss) -> Denominators:
    """Return the totals over all samples of one optimizer step."""
    lengths = [len(sample.completion.token_ids) for sample in step]
    return loss.denominators(lengths, [sample.weight for sample in step])


def prompt_positions(round_index: int, num_prompts: int) -> range:
    """Return the positions of a round's prompts in the endless stream of shuffled passes over the data."""
    return range(round_index * num_prompts, (round_index + 1) * num_prompts)


def prompt_indices(positions: range, num_examples: int, seed: int) -> list[int]:
    """Return which example stands at each position; every pass is shuffled by its own seed.

    Args:
        positions: Of a round.
        num_examples: Examples in a pass.
        seed: Of the run.
    """
    orders: dict[int, list[int]] = {}
    for number in {position // num_examples for position in positions}:
        orders[number] = list(range(num_examples))
        random.Random(derive_seed(seed, "order", number)).shuffle(orders[number])
    return [orders[position // num_examples][position % num_examples] for position in positions]


class RoundBatches:
    """The micro-batches of a round; begins behind those that a resumed run has already trained on.

    Args:
        batches: What is left to train on in this process.
        num_done: Micro-batches that came before.
    """

    def __init__(self, batches: Sequence[TokenBatch], num_done: int = 0) -> None:
        self._batches = batches
        self._num_done = num_done

    def __len__(self) -> int:
        """Number of micro-batches of the whole round."""
        return self._num_done + len(self._batches)

    def __iter__(self) -> Iterator[TokenBatch]:
        """Yield what is left."""
        yield from self._batches
