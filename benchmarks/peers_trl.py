"""One run of one of TRL's trainers for ``benchmarks/peers.py``, in an environment with TRL and without caopd.

    PYTHON benchmarks/peers_trl.py WORK.json trl-sdft RUN --steps 3

Every trainer is given the prompts, weights, group size, completion length and divergence of the work. What the
trainers call ``_generate`` is timed as generation: a name of version 1.16.0.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import DistillationConfig, DistillationTrainer
from trl.experimental.sdft import SDFTConfig, SDFTTrainer
from trl.experimental.sdpo import SDPOConfig, SDPOTrainer

from peering.clock import StepClock


class Timing(TrainerCallback):
    """Tells the clock when a step begins and, after the teacher's callback, when it has ended."""

    def __init__(self, clock: StepClock) -> None:
        self.clock = clock

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Training begins, or goes on with the next micro-batch."""
        self.clock.begin()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """The optimizer has moved, and the teacher."""
        self.clock.end()


def timed(trainer: type, clock: StepClock) -> type:
    """Return the class of trainers, with its generation timed."""

    class Timed(trainer):
        def _generate(self, *arguments: Any) -> Any:
            clock.start_generation()
            found = super()._generate(*arguments)
            clock.stop_generation()
            clock.completion_lengths |= {len(ids) for ids in found[1]}
            return found

    return Timed


def settings(work: dict, asked: argparse.Namespace) -> dict[str, Any]:
    """Return what is the same for all three trainers."""
    on_gpu = asked.device == "cuda"
    accumulate = len(work["prompts"]) * work["num_rollouts"] // work["batch_size"]
    more = {"use_vllm": True, "vllm_mode": "colocate"} if asked.rollouts == "vllm" else {}
    return {
        "output_dir": str(asked.run / "trl"),
        "use_cpu": not on_gpu,
        "bf16": on_gpu,
        "gradient_checkpointing": False,
        "per_device_train_batch_size": work["batch_size"],
        "gradient_accumulation_steps": accumulate,
        "max_steps": asked.steps,
        "max_completion_length": work["new_tokens"],
        "temperature": 1.0,
        "learning_rate": 1e-5,
        "max_grad_norm": 1.0,
        "shuffle_dataset": False,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "seed": 0,
        **more,
    }


def self_distillation(work: dict) -> dict[str, Any]:
    """Return what SDFT and SDPO share: groups, full-vocabulary reverse KL, a teacher that moves."""
    return {
        "num_generations": work["num_rollouts"],
        "max_prompt_length": None,
        "distillation_mode": "full_logits",
        "distillation_alpha": 1.0,
        "distillation_is_clip": None,
        "teacher_model_kind": "ema",
        "teacher_update_rate": 0.05,
    }


def make_trainer(work: dict, asked: argparse.Namespace, clock: StepClock) -> Any:
    """Return the trainer of the work that was asked for."""
    model_folder = asked.work.parent / work["model"]
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    common = {"model": model, "processing_class": AutoTokenizer.from_pretrained(model_folder, padding_side="left")}
    given, prompts = settings(work, asked), [prompt["messages"] for prompt in work["prompts"]]
    if asked.trainer == "trl-distillation":
        repeated = [prompt for prompt in prompts for _ in range(work["num_rollouts"])]
        teacher = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
        config = DistillationConfig(**given, beta=1.0)
        rows = Dataset.from_dict({"prompt": repeated})
        return timed(DistillationTrainer, clock)(teacher_model=teacher, args=config, train_dataset=rows, **common)
    columns = {"prompt": prompts, "privileged_context": [prompt["shown"] for prompt in work["prompts"]]}
    if asked.trainer == "trl-sdft":
        config = SDFTConfig(**given, **self_distillation(work))
        return timed(SDFTTrainer, clock)(args=config, train_dataset=Dataset.from_dict(columns), **common)
    config = SDPOConfig(**given, **self_distillation(work), **work["solution_templates"])
    return timed(SDPOTrainer, clock)(
        args=config,
        train_dataset=Dataset.from_dict({"prompt": columns["prompt"]}),
        reward_funcs=[always_right],  # as our verifier: every rollout has a solution to see
        **common,
    )


def always_right(completions: list, **_: Any) -> list[float]:
    return [1.0] * len(completions)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("trainer", choices=["trl-sdft", "trl-sdpo", "trl-distillation"])
    parser.add_argument("run", type=Path)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--rollouts", choices=["transformers", "vllm"], default="transformers")
    asked = parser.parse_args()
    clock = StepClock(asked.device)
    trainer = make_trainer(json.loads(asked.work.read_text()), asked, clock)
    trainer.add_callback(Timing(clock))
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    clock.write(asked.run / "cost.json", losses=losses)


if __name__ == "__main__":
    main()
