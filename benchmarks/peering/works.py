"""The works that trainers are compared on: a model, prompts, G, and a completion length that all keep."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from caopd.confidence import InlineConfidence
from caopd.methods import SDFT
from caopd.models import ModelSource
from caopd.prompts import CONTEXT_TEMPLATES, student_messages, teacher_messages
from caopd.rounds.encoding import encode_prompts
from caopd.tasks import ScienceQA, ToolUse
from caopd.tasks.loading import DataSource
from caopd.types import Example
from peering.models import MODELS

FILES = {"science": "science/physics.train.jsonl", "tool use": "tooluse/test.jsonl"}
"""Source of prompts -> file below the folder of data."""


BRIEFLY = InlineConfidence(instruction="End with `Confidence: p`.")
"""Asks for a confidence in few words, so that prompts can be short."""


@dataclass(frozen=True)
class Work:
    """What a training step of all trainers does.

    Attributes:
        title: What it stands for.
        model: Key of :data:`peering.models.MODELS`.
        prompts: ``digits``, or a key of :data:`FILES`.
        num_prompts: Prompts of a step.
        prompt_length: Tokens of a prompt: exactly for ``digits``, otherwise the rows nearest to it are taken.
        num_rollouts: G.
        new_tokens: Length of every completion.
        batch_size: Sequences in a micro-batch.
        targets: Largest shares of the fastest peer's cost that are aimed at: training, whole step, peak memory.
    """

    title: str
    model: str
    prompts: str
    num_prompts: int
    prompt_length: int
    num_rollouts: int
    new_tokens: int
    batch_size: int
    targets: dict[str, float]


def _targets(training: float, whole: float, peak_mib: float) -> dict[str, float]:
    return {"training": training, "whole": whole, "peak_mib": peak_mib}


WORKS = {
    "short": Work("short prompts", "smollm2", "digits", 4, 58, 4, 48, 4, _targets(0.65, 0.75, 0.85)),
    "science": Work("science questions", "smollm2", "science", 4, 300, 8, 64, 8, _targets(0.4, 0.5, 0.6)),
    "tools": Work("tool use", "smollm2", "tool use", 2, 700, 8, 48, 8, _targets(0.3, 0.4, 0.4)),
    "vocabulary": Work("a large vocabulary", "tiny", "digits", 32, 58, 8, 16, 256, _targets(0.5, 0.6, 0.1)),
}


def missing(work: Work, data: Path | None) -> str | None:
    """Return why a work cannot be done, None if it can."""
    file = FILES.get(work.prompts)
    if file is None:
        return None
    if data is None:
        return f"its prompts are in {file} of the folder that --data names, and none was named"
    return None if (data / file).is_file() else f"its prompts are in {file}, which the folder of --data does not hold"


def write_work(name: str, data: Path | None, directory: Path) -> Path:
    """Write a work with its prompts, and the model that it takes unless it is there; return the work's file.

    The file names the model relative to itself, so that it is the same on every machine.

    Args:
        name: Key of :data:`WORKS`.
        data: Folder of data.
        directory: Where works and models lie.
    """
    work = WORKS[name]
    model = directory / "models" / work.model
    if not (model / "config.json").is_file():
        MODELS[work.model](model)
    tokenizer = ModelSource(str(model)).load_tokenizer()
    make = {"digits": digit_examples, "science": _science, "tool use": _tools}[work.prompts]
    content = content_of(work, make(work, tokenizer, data), tokenizer, f"../models/{work.model}")
    file = directory / "works" / f"{name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, indent=2))
    return file


def content_of(work: Work, examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, model: str) -> dict:
    """Return what a work's file says; the model's folder is relative to the file."""
    done = ("num_rollouts", "new_tokens", "batch_size")
    solution = CONTEXT_TEMPLATES["solution"]
    return {
        "model": model,
        **{key: value for key, value in asdict(work).items() if key in done},
        "prompts": [prompt_of(example, tokenizer) for example in examples],
        "solution_templates": {
            "reprompt_template": "{prompt}{solution}\n\n" + solution.closing,
            "solution_template": f"\n\n{solution.introduction}\n" + "{successful_previous_attempt}",
        },
    }


def prompt_of(example: Example, tokenizer: PreTrainedTokenizerBase) -> dict:
    """Return a prompt as caopd's task and as the chat messages of the others; both are the same tokens."""
    context = SDFT().known_context(example)
    assert context is not None
    messages = student_messages(example, BRIEFLY)
    taught = teacher_messages(example, context, BRIEFLY)
    lengths = [len(ids) for ids in encode_prompts(tokenizer, [messages, taught], {})]
    return {
        "example": asdict(example),
        "messages": messages,
        "shown": taught[-1]["content"].removeprefix(messages[-1]["content"] + "\n\n"),
        "num_tokens": dict(zip(("student", "teacher"), lengths, strict=True)),
    }


def digit_examples(work: Work, tokenizer: PreTrainedTokenizerBase, data: Path | None = None) -> list[Example]:
    """Return sums of digits, as many digits as make prompts of the length asked for."""

    def example(number: int, digits: int) -> Example:
        text = "".join(str((number * 7 + 3 * position) % 10) for position in range(digits))
        total = str(sum(map(int, text)))
        return Example(f"digits-{number}", f"Add the digits of {text}.", total, "Be brief.", f"The sum is {total}.")

    lengths = _lengths([example(0, digits) for digits in range(1, work.prompt_length)], tokenizer)
    digits = 1 + lengths.index(work.prompt_length)
    return [example(number, digits) for number in range(work.num_prompts)]


def _science(work: Work, tokenizer: PreTrainedTokenizerBase, data: Path | None) -> list[Example]:
    return _nearest(work, tokenizer, data, lambda source: ScienceQA(source).examples("train"))


def _tools(work: Work, tokenizer: PreTrainedTokenizerBase, data: Path | None) -> list[Example]:
    return _nearest(work, tokenizer, data, lambda source: ToolUse(source).examples("train"))


def _nearest(
    work: Work,
    tokenizer: PreTrainedTokenizerBase,
    data: Path | None,
    load: Callable[[DataSource], Sequence[Example]],
) -> list[Example]:
    """Return the rows whose prompts are nearest to the length asked for."""
    assert data is not None
    examples = load(DataSource(files={"train": str(data / FILES[work.prompts])}))
    lengths = _lengths(examples, tokenizer)
    order = sorted(range(len(examples)), key=lambda index: abs(lengths[index] - work.prompt_length))
    return [examples[index] for index in order[: work.num_prompts]]


def _lengths(examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    prompts = encode_prompts(tokenizer, [student_messages(example, BRIEFLY) for example in examples], {})
    return [len(ids) for ids in prompts]
