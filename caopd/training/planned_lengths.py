"""The lengths of prompts and completions that a plan counts with, measured on the task's rows or stated."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

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
        student: Of the student's prompts.
        teacher: Of the teacher's prompts.
        completions: Of completions.
        sources: Sentences for the reader.
    """

    student: Lengths
    teacher: Lengths
    completions: Lengths
    sources: Sequence[str]

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
        return replace(self, completions=Lengths(tokens, longest), sources=sources)


def stated_lengths(data: RolloutDataModule, options: argparse.Namespace) -> PlannedLengths:
    """Return the lengths that the command's options state.

    Args:
        data: Says the length of the longest completion.
        options: The options.
    """
    longest, prompt = data.sampling.max_new_tokens, options.prompt_tokens
    teacher = options.teacher_prompt_tokens or prompt + longest
    said = f"prompts: {prompt} tokens, the teacher's {teacher}, as stated"
    return PlannedLengths(Lengths(prompt, prompt), Lengths(teacher, teacher), *_sampled(longest, said))


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
    student = _lengths(map(len, encoder.student_prompts(examples)))
    longest = encoder.longest_completion if model.method.revises else sampling.max_new_tokens
    is_shown = model.loss.needs_teacher and model.method.signal is Signal.CONTEXT and model.method.privileged
    teacher = _lengths(_teacher_lengths(encoder, model, examples, longest)) if is_shown else student
    shown = f", the teacher's {teacher.mean:.0f} and {teacher.longest}" if is_shown else ""
    said = f"prompts of {len(examples)} rows: {student.mean:.0f} tokens in the mean, {student.longest} at most{shown}"
    return PlannedLengths(student, teacher, *_sampled(longest, said))


def _of_written(encoder: SampleEncoder, model: DistillationModule, examples: Sequence[Example]) -> PlannedLengths:
    """Return the lengths of what a method without rollouts trains on, which is known before training."""
    pairs = [
        (each, group.prompt_ids) for group in encoder.unsampled(examples) for each in train_samples(model.method, group)
    ]
    encoded = encoder.encode([sample for sample, _ in pairs], [prompt for _, prompt in pairs])
    student = _lengths(len(each.student_prompt_ids) for each in encoded)
    teacher = _lengths(len(each.teacher_prompt_ids) for each in encoded)
    completions = _lengths(len(each.completion.token_ids) for each in encoded)
    said = (
        f"prompts and texts of {len(examples)} rows: {student.mean:.0f} and {completions.mean:.0f} tokens in the mean"
    )
    return PlannedLengths(student, teacher, completions, [said])


def _teacher_lengths(
    encoder: SampleEncoder, model: DistillationModule, examples: Sequence[Example], longest: int
) -> list[int]:
    """Return the lengths of the teacher's prompts; a context that a rollout will make is as long as the longest one."""
    known = [model.method.known_context(example) for example in examples]
    shown = [context or TeacherContext("solution", "", 1.0, empirical=True) for context in known]
    extra = [longest if context is None else 0 for context in known]
    prompts = encoder.teacher_prompts(list(zip(examples, shown, strict=True)), [longest + each for each in extra])
    return [len(prompt) + each for prompt, each in zip(prompts, extra, strict=True)]


def _sampled(longest: int, said: str) -> tuple[Lengths, list[str]]:
    return Lengths(longest, longest), [
        said,
        f"completions: {longest} tokens each, the most (--completion_tokens: the mean)",
    ]


def _lengths(values: Iterable[int]) -> Lengths:
    every = list(values)
    return Lengths(sum(every) / len(every), max(every))
