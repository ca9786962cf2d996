"""``examples/loop.py`` is the package's CaOPD on SDFT: its first step is the package's, and it runs to its end."""

import copy
import importlib.util
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lightning import Callback, Trainer
from transformers import AutoModelForCausalLM

from caopd import (
    EMA,
    TRAINER_DEFAULTS,
    DistillationLoss,
    DistillationModule,
    DrawTask,
    EvaluationConfig,
    ForwardKL,
    ModelSource,
    ReverseKL,
    RolloutDataModule,
    RoundConfig,
    Sampling,
    TransformersEngine,
    default_callbacks,
)
from caopd.rounds.buffer import load_groups

LOOP = Path(__file__).parents[2] / "examples" / "loop.py"
DIVERGENCES = {False: ForwardKL(), True: ReverseKL()}
TASK = DrawTask(num_train=32, num_validation=64, num_test=1)


@pytest.fixture(scope="module")
def loop():
    spec = importlib.util.spec_from_file_location("loop", LOOP)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class FirstStep(Callback):
    """What the package did in its first optimizer step; gradients as they are before they are clipped."""

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.gradients = {name: weight.grad.clone() for name, weight in pl_module.student.hf.named_parameters()}

    def on_train_epoch_end(self, trainer, pl_module):
        self.loss = trainer.callback_metrics["train/loss"]
        self.student = copy.deepcopy(pl_module.student.hf.state_dict())
        self.teacher = copy.deepcopy(pl_module.teacher.hf.state_dict())


@pytest.fixture(scope="module", params=DIVERGENCES, ids=["forward", "reverse"])
def package(request, loop, tmp_path_factory):
    """A round of the package that is one optimizer step, its groups, and its measurement before training."""
    directory, first = tmp_path_factory.mktemp("run"), FirstStep()
    module = DistillationModule(
        ModelSource(attn_implementation="eager"),
        loss=DistillationLoss(body=DIVERGENCES[request.param]),
        teacher=EMA(loop.EMA_RATE),
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=1.2e-3, betas=(0.9, 0.98)),
        schedule="linear",
    )
    data = RolloutDataModule(
        TASK,
        round=RoundConfig(num_prompts_per_round=32, num_rollouts=loop.NUM_ROLLOUTS, num_trained_rollouts=1),
        sampling=Sampling(max_new_tokens=8),
        batch_size=32,
        engine=TransformersEngine(batch_size=256),
        evaluation=EvaluationConfig(max_new_tokens=8),
    )
    trainer = Trainer(
        **TRAINER_DEFAULTS,
        accelerator="cpu",
        max_epochs=1,
        default_root_dir=directory,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[*default_callbacks(progress_bar=False), first],
    )
    trainer.fit(module, datamodule=data)
    first.groups = load_groups(directory / "rollouts" / "round_00000.jsonl")
    first.initial = json.loads((directory / "metrics.json").read_text())["initial"]["greedy"]
    first.reverse = request.param
    return first


@pytest.fixture
def student(loop):
    return AutoModelForCausalLM.from_pretrained(loop.MODEL, attn_implementation="eager")


def samples_of(loop, groups):
    rollouts = [list(verified.rollout.token_ids) for group in groups for verified in group.rollouts]
    return loop.make_samples([group.example for group in groups], rollouts)


def test_prompts_and_mu_hat_are_the_packages(loop, package):
    samples = samples_of(loop, package.groups)
    assert [tuple(sample[0]) for sample in samples] == [group.prompt_ids for group in package.groups]
    stated = [loop.read(completion)[1] for _, _, completion in samples]
    assert stated == [round(group.mu_hats[0], 2) for group in package.groups]
    assert len(set(stated)) > 3


def test_the_first_steps_loss_and_gradients_are_the_packages(loop, package, student):
    teacher = copy.deepcopy(student).requires_grad_(False)
    loss = loop.distillation_loss(student, teacher, samples_of(loop, package.groups), package.reverse)
    loss.backward()
    torch.testing.assert_close(loss.detach(), package.loss, rtol=1e-6, atol=0)
    gradients = {name: weight.grad for name, weight in student.named_parameters()}
    assert gradients.keys() == package.gradients.keys()
    for name, gradient in gradients.items():
        assert gradient.norm() > 0
        assert (gradient - package.gradients[name]).norm() < 5e-6 * gradient.norm(), name


def test_the_teacher_follows_as_the_packages_does(loop, package, student):
    teacher = copy.deepcopy(student)
    student.load_state_dict(package.student)
    loop.follow(teacher, student)
    torch.testing.assert_close(dict(teacher.state_dict()), dict(package.teacher), rtol=1e-6, atol=1e-8)


def test_it_measures_what_the_package_measures(loop, package, student):
    found = loop.evaluate(student, TASK.examples("validation"))
    assert found == f"greedy accuracy {package.initial['accuracy']:.3f}, greedy ECE {package.initial['ece']:.3f}"


def test_the_calibration_error_has_bins_and_leaves_out_what_states_nothing(loop, monkeypatch):
    """One right in the second bin, one wrong in the third, two wrong in the last, and a right one that states none."""
    completions = ["7\nConfidence: 0.10", "7\nConfidence: 0.20", "7\nConfidence: 1.00", "8\nConfidence: 0.95", "7"]
    rows = [replace(row, target=target) for row, target in zip(TASK.examples("train")[:5], "78877", strict=True)]
    monkeypatch.setattr(loop, "complete", lambda model, prompts: [loop.TOKENIZER(c)["input_ids"] for c in completions])
    assert loop.evaluate(None, rows) == f"greedy accuracy {2 / 5:.3f}, greedy ECE {(0.9 + 0.2 + 1.95) / 4:.3f}"


def test_a_revision_keeps_what_was_sampled_and_appends_what_is_missing(loop):
    def ids(text):
        return loop.TOKENIZER(text)["input_ids"]

    for completion in ("7\nConfidence: 0.10<|end|>", "7\nConfidence: 0.10", "7<|end|>", "7", "7\nConfidence: high"):
        assert loop.revise(ids(completion), 0.375) == ids("7\nConfidence: 0.38<|end|>")
    assert loop.revise(ids("<|end|>"), 1.0) == ids("\nConfidence: 1.00<|end|>")


def test_it_is_short_and_takes_data_alone_of_the_package():
    text = LOOP.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    assert re.findall(r"\bcaopd\.(\w+)", text) == ["tasks", "types", "__file__"]
    assert set(re.findall(r"^from (caopd\S*) import (.*)$", text, re.MULTILINE)) == {
        ("caopd.tasks", "DrawTask"),
        ("caopd.types", "Example"),
    }


def test_it_runs_to_its_end():
    run = subprocess.run(
        [sys.executable, str(LOOP), "--rounds=2", "--prompts=40", "--reverse"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    lines = run.stdout.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["before", "round  1", "round  2", "after"]
    before, after = (re.findall(r"\d\.\d{3}", line) for line in (lines[0], lines[-1]))
    assert len(before) == len(after) == 2
    assert before != after
