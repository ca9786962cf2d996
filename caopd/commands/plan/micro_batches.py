"""The micro-batches of a typical round, laid out as training lays them out: by the functions that it calls itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

from caopd.models.layout import PackingCost, lay_out
from caopd.rounds.batches import BatchPlan
from caopd.rounds.filling import Share, TokenizedSample
from caopd.rounds.splice import Completion


@dataclass(frozen=True)
class RowLengths:
    """Lengths, in tokens, of what is read of one row of a task.

    Attributes:
        student: Of the student's prompt.
        teacher: Of the teacher's prompt.
        completion: Of its completions in the mean.
        longest_completion: Of the longest of them.
        shows_rollout: Whether the teacher sees a rollout of the group, which itself is shown another one.
    """

    student: int
    teacher: int
    completion: int
    longest_completion: int
    shows_rollout: bool = False


@dataclass(frozen=True)
class Rows:
    """The rows that a model reads at once.

    Attributes:
        num_rows: Number of rows.
        length: Their length, padding included.
        is_plain: Whether each is a single sequence, which needs no mask.
        num_tokens: Number of positions that hold a token.
    """

    num_rows: int
    length: int
    is_plain: bool
    num_tokens: int

    @property
    def positions(self) -> int:
        """Number of positions, padding included."""
        return self.num_rows * self.length

    @property
    def pairs(self) -> int:
        """Number of pairs of positions in the same row, which is what masks and scores are made of."""
        return self.num_rows * self.length**2


@dataclass(frozen=True)
class MicroBatch:
    """What is read and trained on at once.

    Attributes:
        num_sequences: Number of completions.
        num_completion_tokens: Number of their tokens, which have logits.
        student: The rows that the student reads.
        teacher: The rows that the teacher reads.
    """

    num_sequences: int
    num_completion_tokens: int
    student: Rows
    teacher: Rows


@dataclass(frozen=True)
class RoundShape:
    """How the samples of a round are made and shared out.

    Attributes:
        num_prompts: Prompts of a round.
        num_trained: Training samples of each of them.
        plan: Shares the samples out to steps, processes and micro-batches.
        student: What reading rows costs the student; None where it cannot share a prompt.
        teacher: The same of the teacher.
    """

    num_prompts: int
    num_trained: int
    plan: BatchPlan
    student: PackingCost | None
    teacher: PackingCost | None

    @property
    def num_samples(self) -> int:
        """Number of training samples of a round."""
        return self.num_prompts * self.num_trained

    def typical(self, rows: Sequence[RowLengths]) -> list[MicroBatch]:
        """Return the micro-batches of all processes in a round of rows that are spread over those measured.

        Args:
            rows: Lengths of the rows that were measured, at least one.

        Raises:
            ConfigError: If the samples cannot be shared out.
        """
        self.plan.check(self.num_samples)
        chosen = [rows[number * len(rows) // self.num_prompts] for number in range(self.num_prompts)]
        samples = [sample for number, row in enumerate(chosen) for sample in _group(number, row, self.num_trained)]
        shares = chain.from_iterable(chain.from_iterable(self.plan.steps(samples)))
        return [self._micro_batch(share) for share in shares]

    def largest(self, rows: Sequence[RowLengths]) -> list[MicroBatch]:
        """Return the micro-batches of two rounds whose completions are all as long as they may be.

        One round is of typical prompts, which a limit of tokens can fill best; one is of the longest.

        Args:
            rows: As in :meth:`typical`.

        Raises:
            ConfigError: If the samples cannot be shared out.
        """
        full = [replace(row, completion=row.longest_completion) for row in rows]
        by_length = sorted(full, key=lambda row: -(max(row.student, row.teacher) + row.completion))
        return [*self.typical(full), *self.typical(by_length[: self.num_prompts])]

    def _micro_batch(self, share: Share) -> MicroBatch:
        lengths = [len(sample.completion.token_ids) for sample in share]
        student = _rows([sample.student_prompt_ids for sample in share], lengths, self.student)
        teacher = _rows([sample.teacher_prompt_ids for sample in share], lengths, self.teacher)
        return MicroBatch(len(share), sum(lengths), student, teacher)


def _group(number: int, row: RowLengths, size: int) -> list[TokenizedSample]:
    """Return the samples of one prompt, whose ids say which one it is."""
    length, student = row.completion, (number,) * row.student
    completion = Completion((0,) * length, (False,) * length, (None,) * length)
    contexts = [(0, *(number,) * (row.teacher - 1))] * size
    if row.shows_rollout:
        contexts[-1] = (1, *contexts[-1][1:])
    return [TokenizedSample(student, context, completion, (1.0,) * length, False) for context in contexts]


def _rows(prompts: Sequence[tuple[int, ...]], lengths: Sequence[int], cost: PackingCost | None) -> Rows:
    layout = lay_out(prompts, lengths, cost)
    trees = [tree for row in layout.rows for tree in row]
    num_tokens = sum(len(prompts[tree[0]]) for tree in trees) + sum(lengths)
    return Rows(len(layout.rows), layout.length, layout.is_plain, num_tokens)
