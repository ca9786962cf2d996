"""The engine rests whenever the student trains, so that memory which it gives back is there."""

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback

from caopd.evaluation import EvaluationConfig
from caopd.rollouts import Sampling, TransformersEngine
from caopd.rounds.config import RoundConfig
from caopd.tasks import DrawTask
from caopd.training.datamodule import RolloutDataModule
from caopd.training.module import DistillationModule


class Watched(TransformersEngine):
    """Remembers whether it was told to rest after what it last sampled."""

    rests = True

    def generate(self, *arguments):
        self.rests = False
        return super().generate(*arguments)

    def rest(self):
        self.rests = True


class Watch(Callback):
    """Asks the engine before every training batch."""

    def __init__(self, engine):
        self.engine, self.rested = engine, []

    def on_train_batch_start(self, *arguments):
        self.rested.append(self.engine.rests)


def test_the_engine_rests_while_training_also_behind_a_validation_within_the_round(tmp_path):
    model, engine = DistillationModule(optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=1e-3)), Watched()
    data = RolloutDataModule(
        DrawTask(num_train=16, num_validation=4, num_test=4),
        round=RoundConfig(num_prompts_per_round=8, num_rollouts=2, num_trained_rollouts=1),
        sampling=Sampling(max_new_tokens=6),
        evaluation=EvaluationConfig(max_new_tokens=6, batch_size=2),
        batch_size=2,
        engine=engine,
    )
    watch = Watch(engine)
    quiet = {
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "logger": False,
        "enable_checkpointing": False,
    }
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=2,
        reload_dataloaders_every_n_epochs=1,
        val_check_interval=0.5,
        callbacks=[watch],
        default_root_dir=tmp_path,
        **quiet,
    )
    trainer.fit(model, datamodule=data)
    assert watch.rested == [True] * 8
