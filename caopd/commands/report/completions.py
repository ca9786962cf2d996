"""Gathers the completions that a report can be browsed for: no more of them than a page can hold."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from caopd.commands.report.collect import EVENTS, RunRecord, last_round
from caopd.commands.report.sets import RunSet
from caopd.errors import DataError
from caopd.rounds.buffer import load_groups
from caopd.texts import escaped_lines, shortened
from caopd.types import SAMPLED

MAX_BYTES = 10_000_000
"""About how large the completions of a page may be."""
MAX_CHARACTERS = 4000
"""Of texts that are longer, the middle is left out."""

Prompt = tuple[str, str, str, str]
"""Id, category, question and target of a prompt."""


@dataclass(frozen=True, slots=True)
class Completion:
    """A completion as a page shows it; texts are escaped, and long ones are without their middle.

    Attributes:
        prompt: What it completes.
        sample: Its number among those of its prompt, from 0; None where it is the only one.
        response: The completion.
        answer: What the verifier read as its answer; empty where there is none.
        correct: The verdict, None without one.
        confidence: The stated confidence, None where none was read.
        outcome: How the confidence is stated, or why none was read.
        mu_hat: The empirical confidence that it was taught to state; None where it was none of training.
    """

    prompt: Prompt
    sample: int | None
    response: str
    answer: str
    correct: bool | None
    confidence: float | None
    outcome: str
    mu_hat: float | None = None


@dataclass(frozen=True)
class Source:
    """The completions of one file.

    Attributes:
        run: Name of the run.
        step: Name of the folder of the step that predicted, or of the training round.
        event: ``greedy`` or ``sampled``; empty where the name of the file does not say.
        task: Name of the task; empty where a single one is trained on.
        file: The file, which holds all of them.
        total: Number of completions in the file.
        shown: Those that a page shows: the first ones.
    """

    run: str
    step: str
    event: str
    task: str
    file: Path
    total: int
    shown: Sequence[Completion]


def completions_of(sets: Sequence[RunSet], most: int = MAX_BYTES) -> list[Source]:
    """Read the predictions of all runs, and the last round of rollouts of runs without.

    Args:
        sets: The sets of runs.
        most: About how many bytes they may have together; small files are shown whole, and large ones alike.

    Raises:
        DataError: A line of a file is no completion.
        OSError: A file cannot be read.
    """
    files = [(name, file) for each in sets for name, run in each.labelled for file in _files(run)]
    sizes = [file.stat().st_size for _, file in files]
    parts = [None if part == size else part for part, size in zip(shared(sizes, most), sizes, strict=True)]
    return [_source(name, file, part) for (name, file), part in zip(files, parts, strict=True)]


def shared(sizes: Sequence[int], most: int) -> list[int]:
    """Share out a room: what is small gets all that it takes, and the others get equal parts.

    Args:
        sizes: How much each could take.
        most: How much there is.

    Example:
        >>> shared([50, 10, 40], 70)
        [30, 10, 30]
    """
    shares = [0] * len(sizes)
    for done, index in enumerate(sorted(range(len(sizes)), key=sizes.__getitem__)):
        shares[index] = min(sizes[index], (most - sum(shares)) // (len(sizes) - done))
    return shares


def _files(run: RunRecord) -> list[Path]:
    found = [
        sorted([*part.glob("step_*/predictions*.jsonl"), *part.glob("predictions*.jsonl")])
        for part in run.history.parts
    ]
    predictions = list(chain.from_iterable(found))
    rollouts = last_round(run.directory)
    return predictions or ([] if rollouts is None else [rollouts])


def _source(run: str, file: Path, most: int | None) -> Source:
    is_round = file.parent.name == "rollouts"
    completions = _of_rollouts(file) if is_round else _of_predictions(file)
    shown, size, total = list[Completion](), 0, 0
    for completion in completions:
        total += 1
        size += len(completion.response.encode()) + sum(len(text.encode()) for text in completion.prompt) + 50
        if most is None or size <= most:
            shown.append(completion)
    *task, event = file.stem.split(".")[1:] or [""]
    if event not in EVENTS:
        task, event = [*task, event], ""
    step = file.stem if is_round else file.parent.name if file.parent.name.startswith("step_") else ""
    return Source(run, step, SAMPLED if is_round else event, ".".join(task), file, total, shown)


def _of_predictions(file: Path) -> Iterator[Completion]:
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                try:
                    yield _completion(json.loads(line))
                except (ValueError, RecursionError) as error:
                    raise DataError(
                        f"Expected every line of {file} to be a completion, as `caopd predict` writes them, but line "
                        f"{number} is none ({str(error)[:200]}). Correct or remove it."
                    ) from error


def _completion(row: object) -> Completion:
    """Return what a line says; raises ``ValueError`` if it is no completion."""
    if not isinstance(row, dict):
        raise ValueError("it is no JSON object")
    confidence, correct, sample = row.get("confidence"), row.get("correct"), row.get("sample")
    if confidence is not None and (isinstance(confidence, bool) or not isinstance(confidence, int | float)):
        raise ValueError("`confidence` is no number")
    if confidence is not None and not 0 <= confidence <= 1:
        raise ValueError("`confidence` is not from 0 to 1")
    if correct not in (0, 1, None):
        raise ValueError("`correct` is neither 0 nor 1 nor null")
    names = ("prompt_id", "category", "question", "target", "response", "answer", "confidence_outcome")
    prompt_id, category, question, target, response, answer, outcome = (_text(row.get(name)) for name in names)
    return Completion(
        prompt=(prompt_id, category, question, target),
        sample=sample if isinstance(sample, int) else None,
        response=response,
        answer=answer,
        correct=None if correct is None else bool(correct),
        confidence=confidence,
        outcome=outcome,
    )


def _of_rollouts(file: Path) -> Iterator[Completion]:
    for group in load_groups(file):
        example = group.example
        prompt = (_text(example.id), _text(example.category), _text(example.question), _text(example.target))
        for sample, (each, mu_hat) in enumerate(zip(group.rollouts, group.mu_hats, strict=True)):
            yield Completion(
                prompt=prompt,
                sample=sample,
                response=_text(each.rollout.text),
                answer=_text(None if each.verdict is None else each.verdict.answer),
                correct=None if each.verdict is None else each.verdict.correct,
                confidence=each.reading.value,
                outcome=each.reading.outcome.value,
                mu_hat=mu_hat,
            )


def _text(value: object) -> str:
    """Return what a field says as a text that can be shown; other kinds than texts as JSON."""
    text = "" if value is None else value if isinstance(value, str) else json.dumps(value)
    return escaped_lines(shortened(text, MAX_CHARACTERS))
