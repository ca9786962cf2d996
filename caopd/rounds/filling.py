"""Fills micro-batches by tokens: whole groups go together as long as they fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from caopd.rounds.splice import Completion


@dataclass(frozen=True, slots=True)
class TokenizedSample:
    """One training sample as token ids: a completion, with the prompt of the student and that of the teacher.

    Attributes:
        student_prompt_ids: Ids of the student's prompt.
        teacher_prompt_ids: Ids of the teacher's prompt, with its privileged context.
        completion: The completion, which follows either prompt.
        weights: Weight of every token of the completion in the loss.
        copies_context: Whether the completion states the confidence that stands in the teacher's context.
        advantage: Advantage of the sample, None where the method gives none.
    """

    student_prompt_ids: tuple[int, ...]
    teacher_prompt_ids: tuple[int, ...]
    completion: Completion
    weights: tuple[float, ...]
    copies_context: bool
    advantage: float | None = None


Share = list[TokenizedSample]
"""Samples of a micro-batch, or what one process trains on in an optimizer step."""


def num_tokens(samples: Sequence[TokenizedSample]) -> int:
    """Return how many tokens the student or, where those are more, the teacher reads; equal prompts count once.

    Args:
        samples: The samples of a micro-batch.
    """
    of_completions = sum(len(sample.completion.token_ids) for sample in samples)
    student = {sample.student_prompt_ids for sample in samples}
    teacher = {sample.teacher_prompt_ids for sample in samples}
    return of_completions + max(sum(map(len, student)), sum(map(len, teacher)))


def fill(samples: Sequence[TokenizedSample], max_tokens: int) -> list[Share]:
    """Return micro-batches of at most so many tokens, in which groups are whole where they fit.

    Groups follow each other by decreasing size, so that rows of a micro-batch are about equally long. A sample that is
    longer than the limit has a micro-batch of its own.

    Args:
        samples: What a process trains on in one optimizer step, group by group.
        max_tokens: Largest number of tokens of a micro-batch.
    """
    units: list[Share] = []
    for _, group in groupby(samples, key=lambda sample: sample.student_prompt_ids):
        units.append([])
        for sample in group:
            if units[-1] and num_tokens([*units[-1], sample]) > max_tokens:
                units.append([])
            units[-1].append(sample)
    filled: list[Share] = []
    for unit in sorted(units, key=lambda unit: -num_tokens(unit)):
        if filled and num_tokens([*filled[-1], *unit]) <= max_tokens:
            filled[-1] += unit
        else:
            filled.append(unit)
    return filled


def split(shares: Sequence[Share], count: int) -> list[Share]:
    """Return so many micro-batches, by cutting those of most samples; between two groups where there are several.

    Args:
        shares: At most ``count`` micro-batches, with at least as many samples together.
        count: How many there are to be.
    """
    made = list(shares)
    while len(made) < count:
        largest = max(range(len(made)), key=lambda number: len(made[number]))
        made[largest : largest + 1] = _halves(made[largest])
    return made


def _halves(share: Share) -> tuple[Share, Share]:
    starts = [n for n in range(1, len(share)) if share[n].student_prompt_ids != share[n - 1].student_prompt_ids]
    middle = min(starts or range(1, len(share)), key=lambda start: abs(2 * start - len(share)))
    return share[:middle], share[middle:]
