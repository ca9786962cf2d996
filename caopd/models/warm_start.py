"""Builds the embedded model: ``python -m caopd.models.warm_start --output DIR``, about a minute on one CPU thread.

The warm start teaches what the paper's base models bring along, and no more:

1. question -> answer with a confidence of nearly always 1.00; the rule is taught for two kinds of digits only, the
   other two are answered at random: that is the capability which distillation can add;
2. question + privileged context -> the context's answer and the context's confidence, whatever that is.
"""

from __future__ import annotations

import argparse
import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast, get_scheduler

from caopd.confidence import InlineConfidence
from caopd.models.tiny import build_model, build_tokenizer
from caopd.prompts import CONTEXT_TEMPLATES, student_messages, teacher_messages
from caopd.tasks.draw import KINDS, Draw, sample_draw, sample_num_fitting
from caopd.types import Message, TeacherContext

KNOWN_KINDS = ("even", "low")
CERTAIN_SHARE = 0.97
"""Share of the plain samples that state 1.00; the others state any value."""
OTHER_ANSWER_SHARE = 0.25
"""Share of the context samples whose completion gives an answer other than the context's."""
IGNORED = -100
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WarmStartConfig:
    """Settings of the warm start.

    Attributes:
        num_steps: Optimizer steps; each sees ``num_plain`` samples without and ``num_context`` with a context.
        num_plain: Samples without a context a step.
        num_context: Samples with a context a step.
        learning_rate: Peak of AdamW's linear decay.
        width: Hidden size of the model.
        num_layers: Decoder layers.
        seed: Seed of the weights and of the data. Of three seeds this one copies its context always and answers the
            unknown kinds no better than by chance.
    """

    num_steps: int = 800
    num_plain: int = 64
    num_context: int = 64
    learning_rate: float = 4e-3
    width: int = 64
    num_layers: int = 3
    seed: int = 1


def warm_start(config: WarmStartConfig) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """Build and train the embedded model.

    Args:
        config: Sizes, steps and seed.

    Returns:
        The model in evaluation mode and its tokenizer.
    """
    torch.manual_seed(config.seed)
    rng = random.Random(config.seed)
    tokenizer = build_tokenizer()
    model = build_model(tokenizer, config.width, config.num_layers)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=0.01)
    schedule = get_scheduler("linear", optimizer, config.num_steps // 20, config.num_steps)
    for step in range(config.num_steps):
        samples = [plain_sample(rng) for _ in range(config.num_plain)]
        samples += [context_sample(rng) for _ in range(config.num_context)]
        input_ids, labels = encode(tokenizer, samples)
        logits = model(input_ids=input_ids, attention_mask=input_ids != tokenizer.pad_token_id).logits
        loss = cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 100 == 99:
            logger.info("step %d of %d: loss %.3f nats a token", step + 1, config.num_steps, loss.item())
    return model.eval(), tokenizer


@dataclass(frozen=True, slots=True)
class Sample:
    """Rendered prompt and completion; ``num_unlearned`` leading completion tokens carry no loss."""

    messages: list[Message]
    completion: str
    num_unlearned: int = 0


def training_draw(rng: random.Random) -> Draw:
    """Draw a question outside the held-out tenth."""
    while (draw := sample_draw(rng, sample_num_fitting(rng))).held_out:
        pass
    return draw


def plain_sample(rng: random.Random) -> Sample:
    """Question -> answer by the rule (known kinds) or at random (the others), nearly always with confidence 1.00."""
    draw = training_draw(rng)
    fitting = [digit for digit in draw.digits if KINDS[draw.kind](digit)]
    answer = rng.choice(fitting) if draw.kind in KNOWN_KINDS else rng.randrange(10)
    confidence = 1.0 if rng.random() < CERTAIN_SHARE else rng.randrange(101) / 100
    confidence_format = InlineConfidence()
    messages = student_messages(draw.example(), confidence_format)
    return Sample(messages, f"{answer}\n{confidence_format.render(confidence)}")


def context_sample(rng: random.Random) -> Sample:
    """Question + context -> the context's answer and confidence; the confidence also after another answer."""
    draw = training_draw(rng)
    confidence = 1.0 if rng.random() < 0.2 else rng.randrange(101) / 100
    context = TeacherContext(
        kind=rng.choice(list(CONTEXT_TEMPLATES)),
        response=str(draw.drawn),
        confidence=confidence,
        empirical=rng.random() < 0.7,
    )
    confidence_format = InlineConfidence()
    messages = teacher_messages(draw.example(), context, confidence_format)
    other_answer = rng.random() < OTHER_ANSWER_SHARE
    answer = rng.randrange(10) if other_answer else draw.drawn
    completion = f"{answer}\n{confidence_format.render(confidence)}"
    return Sample(messages, completion, num_unlearned=int(other_answer))


def encode(tokenizer: PreTrainedTokenizerFast, samples: Sequence[Sample]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return right-padded token ids and labels, both [B, L]; the prompt and the padding carry no loss."""
    prompts = [
        tokenizer.apply_chat_template(sample.messages, tokenize=False, add_generation_prompt=True) for sample in samples
    ]
    prompt_ids = tokenizer(prompts, add_special_tokens=False)["input_ids"]
    completion_ids = tokenizer([sample.completion for sample in samples], add_special_tokens=False)["input_ids"]
    rows, labels = [], []
    for sample, prompt, completion in zip(samples, prompt_ids, completion_ids, strict=True):
        completion = [*completion, tokenizer.eos_token_id]
        rows.append(torch.tensor(prompt + completion))
        unlearned = len(prompt) + sample.num_unlearned
        labels.append(torch.tensor([IGNORED] * unlearned + completion[sample.num_unlearned :]))
    pad = torch.nn.utils.rnn.pad_sequence
    return (
        pad(rows, batch_first=True, padding_value=tokenizer.pad_token_id),
        pad(labels, batch_first=True, padding_value=IGNORED),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Build the model and save it as a Hugging Face directory."""
    parser = argparse.ArgumentParser(description="Rebuild the embedded model of caopd.")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "embedded")
    for name, default in WarmStartConfig.__dataclass_fields__.items():
        parser.add_argument(f"--{name}", type=type(default.default), default=default.default)
    parsed = vars(parser.parse_args(arguments))
    output = parsed.pop("output")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    model, tokenizer = warm_start(WarmStartConfig(**parsed))
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)
    logger.info("saved to %s", output)


if __name__ == "__main__":
    main()
