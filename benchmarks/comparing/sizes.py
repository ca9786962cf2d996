"""What a warm-started model knows, whatever its size: the two kinds of digits, and how to use a context."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from caopd.confidence import InlineConfidence
from caopd.models import LanguageModel, ModelSource
from caopd.prompts import student_messages, teacher_messages
from caopd.rounds.encoding import encode_prompts
from caopd.tasks import DrawTask
from caopd.tasks.draw import KINDS
from caopd.training.warm_start import KNOWN_KINDS
from caopd.types import Example, Message, TeacherContext

NUM_QUESTIONS = 500
CONTEXT_CONFIDENCE = 0.37


def knowledge(location: str | Path) -> dict[str, float]:
    """Return the parameters of a model and shares of held-out questions, greedy.

    ``known`` and ``unknown``: share of questions of the kinds that the warm start teaches, and of the others, whose
    answer is one of the digits that fit. ``copied``: share whose answer and confidence are those of the context.
    """
    source = ModelSource(str(location))
    tokenizer, examples = source.load_tokenizer(), DrawTask(num_validation=NUM_QUESTIONS).examples("validation")
    model, stated = source.load_model(tokenizer), InlineConfidence()
    plain = [student_messages(example, stated) for example in examples]
    answers = tokenizer.batch_decode(_next_ids(model, encode_prompts(tokenizer, plain, {})).unsqueeze(1))
    fits = [_fits(example, answer) for example, answer in zip(examples, answers, strict=True)]
    is_known = [example.id.startswith(KNOWN_KINDS) for example in examples]
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "known": _share([fit for fit, known in zip(fits, is_known, strict=True) if known]),
        "unknown": _share([fit for fit, known in zip(fits, is_known, strict=True) if not known]),
        "copied": _copied(model, tokenizer, examples),
    }


def _copied(model: LanguageModel, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example]) -> float:
    stated = InlineConfidence()
    shown = [_with_context(example) for example in examples]
    prompts = encode_prompts(tokenizer, shown, {})
    expected = [
        tokenizer(f"{example.target}\n{stated.render(CONTEXT_CONFIDENCE)}", add_special_tokens=False)["input_ids"]
        for example in examples
    ]
    right = torch.ones(len(examples), dtype=torch.bool)
    for position in range(len(expected[0])):
        prefixes = [(*prompt, *ids[:position]) for prompt, ids in zip(prompts, expected, strict=True)]
        right &= _next_ids(model, prefixes) == torch.tensor([ids[position] for ids in expected])
    return _share(right.tolist())


def _with_context(example: Example) -> list[Message]:
    context = TeacherContext("demonstration", example.demonstration, CONTEXT_CONFIDENCE, empirical=True)
    return teacher_messages(example, context, InlineConfidence())


def _fits(example: Example, answer: str) -> bool:
    kind, _, digits = example.id.partition("-")
    return answer in digits and answer.isdigit() and KINDS[kind](int(answer))


@torch.no_grad()
def _next_ids(model: LanguageModel, prompts: list[tuple[int, ...]]) -> torch.Tensor:
    """The most likely next id of every prompt."""
    rows = [torch.tensor(prompt) for prompt in prompts]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=model.pad_token_id)
    lengths = torch.tensor([len(row) for row in rows])
    mask = torch.arange(ids.shape[1]) < lengths[:, None]
    logits = model.hf(input_ids=ids, attention_mask=mask.long()).logits
    return logits[torch.arange(len(rows)), lengths - 1].argmax(-1)


def _share(values: list[bool]) -> float:
    return sum(values) / len(values)
