"""The lengths of prompts and completions that a plan counts with, measured on the task's rows or stated."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace

from caopd.commands.plan.micro_batches import RowLengths
from caopd.commands.plan.setup import Lengths
from caopd.errors import CaopdError, ConfigError
from caopd.rounds.encoding import SampleEncoder
from caopd.rounds.samples import train_samples
from caopd.tasks import examples_of
from caopd.training.datamodule import RolloutDataModule
from caopd.training.module import DistillationModule
from caopd.types import Example, Signal, TeacherContext

MAX_ROWS = 512
"""Rows of each task whose prompts are measured, the first ones."""


@dataclass(frozen=True)
class PlannedLengths:
    """Lengths in tokens, and where they come from.

    Attributes:
        rows: Of prompts and completions, row by row.
        sources: Sentences for the reader.
    """

    rows: Sequence[RowLengths]
    sources: Sequence[str]

    @property
    def student(self) -> Lengths:
        """Lengths of the student's prompts."""
        return _lengths([row.student for row in self.rows])

    @property
    def teacher(self) -> Lengths:
        """Lengths of the teacher's prompts."""
        return _lengths([row.teacher for row in self.rows])

    @property
    def completions(self) -> Lengths:
        """Lengths of completions."""
        mean = sum(row.completion for row in self.rows) / len(self.rows)
        return Lengths(mean, max(row.longest_completion for row in self.rows))

    def with_mean_completion(self, tokens: int) -> PlannedLengths:
        """Return the same with another mean length of completions.

        Args:
            tokens: The mean length.

        Raises:
            ConfigError: If it is more than the longest.
        """
        longest = self.completions.longest
        if tokens > longest:
            raise ConfigError(
                f"Expected `--completion_tokens`, the mean length, to be at most that of the longest completion, "
                f"{longest} (`data.sampling.max_new_tokens`), but got {tokens}."
            )
        said = f"completions: {tokens} tokens in the mean, as stated, {longest} at most"
        sources = [*(each for each in self.sources if not each.startswith("completions")), said]
        return PlannedLengths([replace(row, completion=tokens) for row in self.rows], sources)


def stated_lengths(data: RolloutDataModule, options: argparse.Namespace) -> PlannedLengths:
    """Return the lengths that the command's options state.

    Args:
        data: Says the length of the longest completion.
        options: The options.
    """
    longest, prompt = data.sampling.max_new_tokens, options.prompt_tokens
    teacher = options.teacher_prompt_tokens or prompt + longest
    said = f"prompts: {prompt} tokens, the teacher's {teacher}, as stated"
    return PlannedLengths([RowLengths(prompt, teacher, longest, longest)], [said, _sampled(longest)])


def measured_lengths(model: DistillationModule, data: RolloutDataModule) -> PlannedLengths:
    """Return the lengths of the prompts of the task's first rows, and of the longest completions.

    Args:
        model: Has the tokenizer, and the method that says what the teacher sees.
        data: Has the tasks.

    Raises:
        ConfigError: If rows or tokenizer are not at hand.
    """
    try:
        tokenizer = model.tokenizer
        examples = [example for stage in data.stages for example in examples_of(stage.task, "train")[:MAX_ROWS]]
    except (CaopdError, OSError) as error:
        raise ConfigError(
            "Expected the tokenizer and the task's training rows to be at hand, to measure the prompts' lengths, but "
            f"they are not: {error}\nFetch them, or state `--prompt_tokens` and `--teacher_prompt_tokens`."
        ) from error
    sampling = data.sampling
    encoder = SampleEncoder(
        tokenizer, data.confidence, data.template_arguments, model.max_length, sampling.max_new_tokens
    )
    if model.method.min_rollouts == 0:
        return _of_written(encoder, model, examples)
    student = list(map(len, encoder.student_prompts(examples)))
    longest = encoder.longest_completion if model.method.revises else sampling.max_new_tokens
    is_shown = model.loss.needs_teacher and model.method.signal is Signal.CONTEXT and model.method.privileged
    teacher = _teacher_lengths(encoder, model, examples, longest) if is_shown else student
    unknown = [is_shown and model.method.known_context(example) is None for example in examples]
    rows = [
        RowLengths(own, its, longest, longest, shows_rollout=made)
        for own, its, made in zip(student, teacher, unknown, strict=True)
    ]
    of_student, of_teacher = _lengths(student), _lengths(teacher)
    shown = f", the teacher's {of_teacher.mean:.0f} and {of_teacher.longest}" if is_shown else ""
    said = f"{of_student.mean:.0f} tokens in the mean, {of_student.longest} at most{shown}"
    return PlannedLengths(rows, [f"prompts of {len(examples)} rows: {said}", _sampled(longest)])


def _of_written(encoder: SampleEncoder, model: DistillationModule, examples: Sequence[Example]) -> PlannedLengths:
    """Return the lengths of what a method without rollouts trains on, which is known before training."""
    pairs = [
        (each, group.prompt_ids) for group in encoder.unsampled(examples) for each in train_samples(model.method, group)
    ]
    encoded = encoder.encode([sample for sample, _ in pairs], [prompt for _, prompt in pairs])
    lengths = [len(each.completion.token_ids) for each in encoded]
    rows = [
        RowLengths(len(each.student_prompt_ids), len(each.teacher_prompt_ids), length, length)
        for each, length in zip(encoded, lengths, strict=True)
    ]
    made = PlannedLengths(rows, [])
    said = f"{made.student.mean:.0f} and {made.completions.mean:.0f} tokens in the mean"
    return PlannedLengths(rows, [f"prompts and texts of {len(examples)} rows: {said}"])


def _teacher_lengths(
    encoder: SampleEncoder, model: DistillationModule, examples: Sequence[Example], longest: int
) -> list[int]:
    """Return the lengths of the teacher's prompts; a context that a rollout will make is as long as the longest one."""
    known = [model.method.known_context(example) for example in examples]
    shown = [context or TeacherContext("solution", "", 1.0, empirical=True) for context in known]
    extra = [longest if context is None else 0 for context in known]
    prompts = encoder.teacher_prompts(list(zip(examples, shown, strict=True)), [longest + each for each in extra])
    return [len(prompt) + each for prompt, each in zip(prompts, extra, strict=True)]


def _sampled(longest: int) -> str:
    return f"completions: {longest} tokens each, the most (--completion_tokens: the mean)"


def _lengths(values: Sequence[int]) -> Lengths:
    return Lengths(sum(values) / len(values), max(values))
