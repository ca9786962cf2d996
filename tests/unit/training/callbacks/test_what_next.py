from pathlib import Path

import pytest
from lightning import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel

from caopd.training.callbacks.what_next import after_fit, kept_checkpoint

QUIET = {"enable_progress_bar": False, "enable_model_summary": False, "limit_val_batches": 0, "accelerator": "cpu"}


@pytest.fixture
def trainer(tmp_path):
    trainer = Trainer(default_root_dir=tmp_path, max_steps=1, **QUIET)
    trainer.fit(BoringModel())
    return trainer


def test_a_run_with_its_files_can_be_measured_compared_exported_and_shown(trainer, tmp_path):
    run = Path(trainer.log_dir)
    for name in ("config.yaml", "metrics.json"):
        (run / name).touch()
    (checkpoint,) = run.rglob("*.ckpt")
    of_checkpoint = ["--config", run / "config.yaml", "--ckpt_path", checkpoint]
    assert after_fit(trainer, run) == [
        ["caopd", "test", *of_checkpoint],
        ["caopd", "predict", *of_checkpoint],
        ["caopd", "report", run],
        ["caopd", "export", checkpoint, "my-model"],
        ["tensorboard", "--logdir", tmp_path],
    ]


def test_what_needs_a_file_that_is_not_there_is_left_out(trainer, tmp_path):
    assert after_fit(trainer, Path(trainer.log_dir)) == [["tensorboard", "--logdir", tmp_path]]
    bare = Trainer(default_root_dir=tmp_path, logger=False, enable_checkpointing=False, max_steps=1, **QUIET)
    bare.fit(BoringModel())
    (tmp_path / "config.yaml").touch()
    assert kept_checkpoint(bare) is None
    assert after_fit(bare, tmp_path) == []
