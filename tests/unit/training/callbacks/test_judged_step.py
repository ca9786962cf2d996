"""A checkpoint that is judged is judged at its own step, and the trainer keeps its own."""

import pytest
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.demos.boring_classes import BoringModel

from caopd.training.callbacks import JudgedStep


class Asks(Callback):
    step = None

    def on_test_epoch_end(self, trainer, pl_module):
        self.step = trainer.global_step

    on_validation_epoch_end = on_test_epoch_end


@pytest.mark.parametrize("command", ["test", "validate"])
@pytest.mark.parametrize("is_trained", [True, False])
def test_the_step_is_the_checkpoints_until_it_is_judged(tmp_path, command, is_trained):
    asks, quiet = Asks(), {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    saves = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1, save_top_k=-1)

    def make():
        return Trainer(logger=False, callbacks=[saves, JudgedStep(), asks], max_steps=3, limit_val_batches=1, **quiet)

    model, trainer = BoringModel(), make()
    trainer.fit(model)
    judge = trainer if is_trained else make()
    getattr(judge, command)(model, ckpt_path=tmp_path / "step=2.ckpt", verbose=False)
    assert (asks.step, judge.global_step) == (2, 3 if is_trained else 0)
    getattr(judge, command)(model, verbose=False)
    assert asks.step == judge.global_step
