"""Builds the embedded model by supervised fine-tuning (its *warm start*), in minutes on a CPU.

``python -m caopd.training.warm_start --output DIR`` writes it.

The warm start teaches what the base models of the paper can do already, and no more:

1. question -> answer with a confidence of nearly always 1.00; the rule is taught for two kinds of digits only, the
   other two are answered at random: that is the capability which distillation can add;
2. question + privileged context -> the context's answer and the context's confidence, whatever that is.
"""

from __future__ import annotations

import argparse
import logging
import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from lightning import Trainer
from transformers import LlamaForCausalLM

from caopd.errors import ConfigError
from caopd.evaluation import EvaluationConfig
from caopd.losses import CrossEntropyLoss
from caopd.methods import SFT
from caopd.models.source import ModelSource
from caopd.models.tiny import build_model, build_tokenizer
from caopd.prompts import CONTEXT_TEMPLATES
from caopd.rollouts import Sampling, TransformersEngine
from caopd.rounds.config import RoundConfig
from caopd.tasks import DrawTask
from caopd.training.datamodule import RolloutDataModule
from caopd.training.module import DistillationModule
from caopd.types import Response, TeacherContext, TrainSample, VerifiedGroup

KNOWN_KINDS = ("even", "low")
CERTAIN_SHARE = 0.97
"""Share of the completions without a context that state 1.00; the others state any value."""
NOTE_SHARE = 0.7
"""Share of the contexts whose confidence is the empirical one, with the note that asks for exactly it."""
CERTAIN_CONTEXT_SHARE = 0.2
"""Share of the contexts that state 1.00; the others state any value."""
BATCH_SIZE, NUM_PASSES = 128, 2


@dataclass(frozen=True)
class WarmStart(SFT):
    """SFT on completions that are right for the known kinds of digits and random for the others, and always sure.

    With a context, the completion has the answer and the confidence of the context. Everything random depends on the
    example alone.
    """

    context_share: float = 0.5

    def train_samples(self, group: VerifiedGroup) -> list[TrainSample]:
        """Return the only training sample of the prompt."""
        example = group.example
        self.check_example(example)
        assert example.demonstration is not None
        rng = random.Random(example.id)
        if rng.random() < self.context_share:
            confidence = _confidence(rng, CERTAIN_CONTEXT_SHARE)
            kind = rng.choice(list(CONTEXT_TEMPLATES))
            context = TeacherContext(kind, example.demonstration, confidence, empirical=rng.random() < NOTE_SHARE)
            answer = Response(example.demonstration)
            return [TrainSample(example, answer, context, confidence, student_sees_context=True)]
        known = example.id.startswith(KNOWN_KINDS)
        answer = Response(example.demonstration if known else str(rng.randrange(10)))
        return [TrainSample(example, answer, context=None, confidence=_confidence(rng, CERTAIN_SHARE))]


def _confidence(rng: random.Random, certain_share: float) -> float:
    return 1.0 if rng.random() < certain_share else rng.randrange(101) / 100


@dataclass(frozen=True, slots=True)
class WarmStartConfig:
    """Settings of the warm start.

    Attributes:
        num_steps: Optimizer steps in two passes, each on 128 samples, about half of them with a context.
        learning_rate: Largest learning rate of AdamW, from which it decays linearly.
        width: Hidden size of the model.
        num_layers: Number of decoder layers.
        seed: Seed of the initial weights and of the data.

    Raises:
        ConfigError: If the steps do not make two equal passes.
    """

    num_steps: int = 800
    learning_rate: float = 4e-3
    width: int = 64
    num_layers: int = 3
    seed: int = 1

    def __post_init__(self) -> None:
        if self.num_steps < NUM_PASSES or self.num_steps % NUM_PASSES:
            raise ConfigError(
                f"Expected `num_steps` of the warm start to be a multiple of {NUM_PASSES}, the passes over its "
                f"questions, but got {self.num_steps}."
            )


def warm_start(config: WarmStartConfig, directory: Path) -> LlamaForCausalLM:
    """Build an embedded model, train it and save it with its tokenizer.

    Args:
        config: Sizes, number of steps and seed.
        directory: Directory of the Hugging Face model; an existing one is replaced.
    """
    torch.manual_seed(config.seed)
    tokenizer = build_tokenizer()
    tokenizer.save_pretrained(directory)
    build_model(tokenizer, config.width, config.num_layers).save_pretrained(directory)
    method = WarmStart()
    module = DistillationModule(
        ModelSource(str(directory), attn_implementation="eager"),
        method,
        CrossEntropyLoss(reduction="token_mean"),
        optimizer=partial(torch.optim.AdamW, lr=config.learning_rate, weight_decay=0.01),
        schedule="linear",
        warmup=0.05,
    )
    num_questions = config.num_steps // NUM_PASSES * BATCH_SIZE
    data = RolloutDataModule(
        DrawTask(num_train=num_questions, num_validation=1, seed=config.seed),
        round=RoundConfig(num_prompts_per_round=num_questions, num_rollouts=1),
        sampling=Sampling(max_new_tokens=8),
        batch_size=BATCH_SIZE,
        engine=TransformersEngine(),
        evaluation=EvaluationConfig(num_samples=0),
        seed=config.seed,
    )
    with tempfile.TemporaryDirectory() as run:
        trainer = Trainer(
            accelerator="cpu",
            devices=1,
            max_epochs=NUM_PASSES,
            reload_dataloaders_every_n_epochs=1,
            gradient_clip_val=1.0,
            limit_val_batches=0,
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            default_root_dir=run,
        )
        trainer.fit(module, data)
    model: LlamaForCausalLM = module.student.hf
    model.save_pretrained(directory)
    return model


def main(arguments: Sequence[str] | None = None) -> None:
    """Build the model and save it as a Hugging Face directory."""
    parser = argparse.ArgumentParser(description="Rebuild the embedded model of caopd.")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "models" / "embedded")
    for name, default in WarmStartConfig.__dataclass_fields__.items():
        parser.add_argument(f"--{name}", type=type(default.default), default=default.default)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parsed = vars(parser.parse_args(arguments))
    output = parsed.pop("output")
    warm_start(WarmStartConfig(**parsed), output)
    logging.info("saved to %s", output)


if __name__ == "__main__":
    main()
