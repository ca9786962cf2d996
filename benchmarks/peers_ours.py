"""One run of this package for ``benchmarks/peers.py``.

    python benchmarks/peers_ours.py WORK.json caopd RUN --steps 3

Module, data module, trainer and callbacks are those of the command line (docs/use_from_python.md); a callback of its
own times the steps. A round is one optimizer step, and every completion is judged right.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning import Callback, Trainer, seed_everything

from caopd import (
    EMA,
    SDFT,
    TRAINER_DEFAULTS,
    CaOPD,
    DistillationModule,
    ModelSource,
    RolloutDataModule,
    RoundConfig,
    Sampling,
    default_callbacks,
)
from caopd.losses import DistillationLoss
from caopd.methods import SDPO, Method
from caopd.rollouts import RolloutEngine, TransformersEngine, VLLMEngine
from caopd.rounds.phases import Phase
from caopd.types import AnswerOutcome, Example, Verdict
from peering.clock import StepClock
from peering.stated import StatedEngine
from peering.works import BRIEFLY

METHODS: dict[str, Method] = {"sdft": SDFT(), "sdpo": SDPO(), "caopd": CaOPD(backbone=SDFT())}
STATED = "-stated"
"""Ends the names of runs whose completions all state a confidence."""


class AlwaysRight:
    """Judges every completion right, so that every rollout has a solution to see."""

    def verify(self, text: str, target: str) -> Verdict:
        """Return a verdict that says so."""
        return Verdict(True, target, AnswerOutcome.PARSED)


class GivenPrompts:
    """The prompts of a work, for every split."""

    def __init__(self, work: dict) -> None:
        self.verifier = AlwaysRight()
        self._examples = [Example(**prompt["example"]) for prompt in work["prompts"]]

    def examples(self, split: str) -> Sequence[Example]:
        """Return all prompts, in their order."""
        return self._examples


class Timing(Callback):
    """Tells the clock of generation, of training, and of the end of a round, which is one optimizer step."""

    def __init__(self, clock: StepClock) -> None:
        self.clock = clock
        self.trained_tokens: list[int] = []
        self._tokens = 0

    def on_phase(self, phase: Phase) -> None:
        """Generation is what the data module calls the phase ``rollout``."""
        self.clock.stop_generation()
        if phase == "rollout":
            self.clock.start_generation()

    def on_train_batch_start(self, trainer: Trainer, module: Any, batch: Any, index: int) -> None:
        """Training begins, or goes on with the next micro-batch."""
        self.clock.stop_generation()
        self.clock.begin()

    def on_train_batch_end(self, trainer: Trainer, module: Any, outputs: Any, batch: Any, index: int) -> None:
        """After the round's last micro-batch optimizer and teacher have moved."""
        lengths = batch.completion_mask_BC.sum(dim=1).tolist()
        self.clock.completion_lengths |= set(lengths)
        self._tokens += sum(lengths)
        if trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            self.clock.end()
            self.trained_tokens.append(self._tokens)
            self._tokens = 0


def engine_for(work: dict, asked: argparse.Namespace) -> RolloutEngine:
    """Return the engine; without vLLM all completions of a step are sampled at once, as TRL does."""
    if asked.trainer.endswith(STATED):
        return StatedEngine(work["new_tokens"], BRIEFLY)
    if asked.rollouts == "vllm":
        return VLLMEngine()
    return TransformersEngine(batch_size=len(work["prompts"]) * work["num_rollouts"])


def fit(work: dict, asked: argparse.Namespace, timing: Timing) -> None:
    """Train for the steps that were asked for."""
    seed_everything(0)
    num_prompts, num_rollouts = len(work["prompts"]), work["num_rollouts"]
    on_gpu = asked.device == "cuda"
    module = DistillationModule(
        source=ModelSource(str(asked.work.parent / work["model"])),
        method=METHODS[asked.trainer.removesuffix(STATED)],
        loss=DistillationLoss(),
        teacher=EMA(rate=0.05),
    )
    data = RolloutDataModule(
        task=GivenPrompts(work),
        round=RoundConfig(num_prompts_per_round=num_prompts, num_rollouts=num_rollouts),
        sampling=Sampling(temperature=1.0, max_new_tokens=work["new_tokens"]),
        batch_size=work["batch_size"],
        confidence=BRIEFLY,
        engine=engine_for(work, asked),
    )
    trainer = Trainer(
        **{**TRAINER_DEFAULTS, "num_sanity_val_steps": 0},
        max_epochs=asked.steps,
        limit_val_batches=0,
        accumulate_grad_batches=num_prompts * num_rollouts // work["batch_size"],
        accelerator="gpu" if on_gpu else "cpu",
        precision="bf16-mixed" if on_gpu else "32-true",
        devices=1,
        default_root_dir=asked.run,
        enable_progress_bar=False,
        enable_checkpointing=False,
        callbacks=[*default_callbacks(progress_bar=False), timing],
    )
    trainer.fit(module, datamodule=data)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("trainer", choices=[*METHODS, *(name + STATED for name in ("sdft", "caopd"))])
    parser.add_argument("run", type=Path)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--rollouts", choices=["transformers", "vllm"], default="transformers")
    asked = parser.parse_args(arguments)
    timing = Timing(StepClock(asked.device))
    fit(json.loads(asked.work.read_text()), asked, timing)
    timing.clock.write(asked.run / "cost.json", trained_tokens=timing.trained_tokens[1:])


if __name__ == "__main__":
    main()
