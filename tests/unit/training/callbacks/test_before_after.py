"""No run of a script replaces the metrics of an earlier one."""

import json

import pytest
import wandb
from lightning import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger

from caopd.errors import ConfigError
from caopd.training.callbacks import BeforeAfterMetrics

QUIET = {"enable_progress_bar": False, "enable_model_summary": False, "limit_val_batches": 0, "accelerator": "cpu"}


def fitted(logger, root, max_steps=1, **arguments):
    trainer = Trainer(
        logger=logger, default_root_dir=root, max_steps=max_steps, callbacks=[BeforeAfterMetrics()], **QUIET
    )
    trainer.fit(BoringModel(), **arguments)
    return trainer


def test_two_runs_of_weights_and_biases_in_one_process_do_not_share_a_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_SILENT", "true")
    fitted(WandbLogger(save_dir=tmp_path, offline=True), tmp_path)
    (file,) = tmp_path.rglob("metrics.json")
    file.write_text(json.dumps("the first run's"))
    with pytest.raises(ConfigError, match=r"this run's alone, but it holds the metrics\.json .*wandb\.finish\(\)"):
        fitted(WandbLogger(save_dir=tmp_path, offline=True), tmp_path)
    assert json.loads(file.read_text()) == "the first run's"
    wandb.finish()
    fitted(WandbLogger(save_dir=tmp_path, offline=True), tmp_path)
    wandb.finish()
    assert len(list(tmp_path.rglob("metrics.json"))) == 2


def test_a_run_may_go_on_in_its_directory(tmp_path):
    trainer = fitted(TensorBoardLogger(tmp_path, version="chosen"), tmp_path)
    checkpoint = trainer.checkpoint_callback.best_model_path
    fitted(TensorBoardLogger(tmp_path, version="chosen"), tmp_path, 2, ckpt_path=checkpoint)
    with pytest.raises(ConfigError, match="this run's alone"):
        fitted(TensorBoardLogger(tmp_path, version="chosen"), tmp_path)
