import json
from pathlib import Path
from uuid import uuid4

import pytest
import wandb
from lightning import Callback, Trainer
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger

from caopd.errors import ConfigError, DataError
from caopd.run_directory import Measured, free_folder, read_config, read_metrics, run_directory, run_of_checkpoint


class Remote(Logger):
    """Keeps nothing on this machine, as MLFlow with a server or Comet: an experiment, a random id, no folder."""

    name, version = "7", None

    def __init__(self):
        super().__init__()
        self.version = uuid4().hex

    def log_metrics(self, metrics, step=None):
        pass

    def log_hyperparams(self, params):
        pass


LOGGERS = {
    "tensorboard": lambda root: TensorBoardLogger(root),
    "tensorboard below": lambda root: TensorBoardLogger(root, name="runs", sub_dir="events"),
    "csv": lambda root: CSVLogger(root),
    "wandb": lambda root: WandbLogger(save_dir=root, offline=True),
    "remote": lambda root: Remote(),
    "several": lambda root: [Remote(), CSVLogger(root), TensorBoardLogger(root)],
}


class Asks(Callback):
    def setup(self, trainer, pl_module, stage):
        self.directory = run_directory(trainer)


def trained(root, logger):
    """What the owner said in a fit, and the checkpoint that Lightning wrote."""
    asks = Asks()
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "limit_val_batches": 0, "accelerator": "cpu"}
    trainer = Trainer(default_root_dir=root, logger=logger, callbacks=[asks], max_steps=1, **quiet)
    trainer.fit(BoringModel())
    return asks.directory, Path(trainer.checkpoint_callback.best_model_path)


@pytest.mark.parametrize("kind", LOGGERS)
def test_every_run_has_a_directory_with_its_checkpoints(tmp_path, monkeypatch, kind):
    monkeypatch.setenv("WANDB_SILENT", "true")
    directories = []
    for _ in range(2):
        directory, checkpoint = trained(tmp_path, LOGGERS[kind](str(tmp_path)))
        wandb.finish()
        assert checkpoint.parent == directory / "checkpoints"
        assert tmp_path in directory.parents
        directories.append(directory)
    assert directories[0] != directories[1]


def test_without_a_logger_it_is_where_lightning_puts_everything(tmp_path):
    directory, checkpoint = trained(tmp_path, False)
    assert directory == tmp_path == checkpoint.parents[1]


@pytest.mark.parametrize(
    ("names", "expected"), [([], "sdft"), (["sdft"], "sdft-run2"), (["sdft", "sdft-run2", "sdft-run4"], "sdft-run3")]
)
def test_runs_of_one_name_are_numbered(tmp_path, names, expected):
    for name in names:
        (tmp_path / name).mkdir()
    assert free_folder(tmp_path / "sdft") == tmp_path / expected
    assert free_folder(tmp_path / "missing" / "sdft").name == "sdft"


def test_a_checkpoint_belongs_to_the_directory_with_a_config(tmp_path):
    checkpoint = tmp_path / "run" / "checkpoints" / "last.ckpt"
    checkpoint.parent.mkdir(parents=True)
    assert run_of_checkpoint(checkpoint) == tmp_path / "run"
    (checkpoint.parent / "config.yaml").write_text("model: {}\n")
    assert run_of_checkpoint(checkpoint) == checkpoint.parent


def test_metrics_are_read_as_they_stand(tmp_path):
    assert read_metrics(tmp_path) == (None, None)
    events = {"greedy": {"ece": 0.1, "spr": None, "n": 24}, "sampled": {"ece": 0.2, "spr": 0.5, "n": 24}}
    (tmp_path / "metrics.json").write_text(json.dumps({"initial": None, "final": {"step": 8, **events}}))
    assert read_metrics(tmp_path) == (None, Measured(8, events))


BAD = (
    "{}",
    "3",
    '{"step": 1}',
    '{"step": 1, "n": 2, "ece": 0.1}',
    '{"step": null, "greedy": {"n": 2}}',
    '{"step": 1, "greedy": {"n": null}}',
    '{"step": 1, "greedy": {"n": 2, "ece": "0.1"}}',
    '{"step": 1, "greedy": {"n": 2}, "<b>": {"n": 2}}',
)


@pytest.mark.parametrize(
    "text", ["", "[]", '{"initial": null}', "\x00", *(f'{{"initial": null, "final": {x}}}' for x in BAD)]
)
def test_metrics_of_another_making_are_refused(tmp_path, text):
    (tmp_path / "metrics.json").write_text(text)
    with pytest.raises(DataError, match=r"metrics\.json.*`caopd fit`"):
        read_metrics(tmp_path)


@pytest.mark.parametrize("text", ["", "- 1", "a: [", "a: b: c"])
def test_a_config_without_settings_is_refused(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"config\.yaml"):
        read_config(path)
