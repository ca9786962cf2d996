"""The teacher in a real Trainer: one update per optimizer step, from the student in memory."""

import pytest
import torch
from lightning import Callback, Trainer

from caopd.evaluation import EvaluationConfig
from caopd.models import EMA, ModelSource
from caopd.rollouts import Sampling
from caopd.rounds.config import RoundConfig
from caopd.tasks import DrawTask
from caopd.training.datamodule import RolloutDataModule
from caopd.training.module import DistillationModule

NAME = "hf.model.layers.1.self_attn.q_proj.weight"


class Recorder(Callback):
    """Keeps the student's and the teacher's weight after every micro-batch."""

    def __init__(self):
        self.steps, self.student, self.teacher = [], [], []

    def on_train_start(self, trainer, pl_module):
        self.on_train_batch_end(trainer, pl_module, None, None, -1)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.steps.append(trainer.global_step)
        self.student.append(pl_module.student.get_parameter(NAME).detach().double().clone())
        self.teacher.append(pl_module.teacher.get_parameter(NAME).detach().double().clone())


def test_one_update_per_optimizer_step_under_accumulation(tmp_path):
    rate = 0.25
    model = DistillationModule(teacher=EMA(rate), optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=1e-3))
    data = RolloutDataModule(
        DrawTask(num_train=16, num_validation=4, num_test=4),
        round=RoundConfig(num_prompts_per_round=8, num_rollouts=2, num_trained_rollouts=1),
        sampling=Sampling(max_new_tokens=6),
        evaluation=EvaluationConfig(max_new_tokens=6),
        batch_size=2,
    )
    recorder = Recorder()
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=2,
        accumulate_grad_batches=2,
        reload_dataloaders_every_n_epochs=1,
        num_sanity_val_steps=0,
        callbacks=[recorder],
        default_root_dir=tmp_path,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, datamodule=data)
    assert recorder.steps == [0, 0, 1, 1, 2, 2, 3, 3, 4]
    assert torch.equal(recorder.student[0], recorder.teacher[0])
    expected = recorder.teacher[0]
    for before, after, student, teacher in zip(
        recorder.steps, recorder.steps[1:], recorder.student[1:], recorder.teacher[1:], strict=False
    ):
        if after > before:
            assert not torch.equal(student, recorder.student[0])
            expected = (1 - rate) * expected + rate * student
        torch.testing.assert_close(teacher, expected, atol=1e-6, rtol=0)
    assert not any(parameter.requires_grad for parameter in model.teacher.parameters())


@pytest.mark.parametrize("name", ["TrustRegion", "Frozen"])
def test_a_teacher_that_is_no_average_is_named_in_the_config_and_stays(fit, tmp_path, name):
    settings = {"model.teacher": name, "model.loss": "DistillationLoss"}
    weights = fit(tmp_path, **settings).checkpoint("round1")["state_dict"]
    start = ModelSource().load_model(ModelSource().load_tokenizer()).state_dict()
    for key, weight in start.items():
        assert torch.equal(weights[f"teacher.{key}"], weight)
    assert any(not torch.equal(weights[f"student.{key}"], weight) for key, weight in start.items())
