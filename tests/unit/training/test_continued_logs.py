"""A CSV log goes on behind the rows that it has."""

import csv

import pytest
from lightning import Trainer
from lightning.pytorch.loggers import CSVLogger

from caopd.training.continued_logs import keep_rows

ROWS = [{"step": 0, "val/ece": 0.5}, {"step": 3, "train/loss": 1.25}, {"step": 4, "train/loss": 1.5}]


def logged(root, rows):
    logger = CSVLogger(root, version="mine")
    for row in rows:
        logger.log_metrics({name: value for name, value in row.items() if name != "step"}, step=row["step"])
    logger.save()
    return logger


def rows_of(root):
    with (root / "lightning_logs" / "mine" / "metrics.csv").open(newline="") as file:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]


def trainer_of(root):
    return Trainer(logger=CSVLogger(root, version="mine"), accelerator="cpu", devices=1)


@pytest.mark.parametrize("kept", [0, 4, 9])
@pytest.mark.filterwarnings("ignore:Experiment logs directory")
def test_rows_before_the_checkpoints_step_stay(tmp_path, kept):
    logged(tmp_path, ROWS)
    trainer = trainer_of(tmp_path)
    keep_rows(trainer, kept)
    trainer.loggers[0].log_metrics({"train/kl": 2.0}, step=kept)
    trainer.loggers[0].save()
    assert rows_of(tmp_path) == [*(row for row in ROWS if row["step"] < kept), {"step": kept, "train/kl": 2.0}]
    assert {path.name for path in (tmp_path / "lightning_logs" / "mine").iterdir()} == {"metrics.csv"}


@pytest.mark.filterwarnings("ignore:Experiment logs directory")
def test_a_kill_between_the_old_file_and_the_new_one_loses_nothing(tmp_path):
    logged(tmp_path, ROWS)
    folder = tmp_path / "lightning_logs" / "mine"
    (folder / "metrics.csv").replace(folder / "metrics.before.csv")
    (folder / "metrics.csv").write_text("step\n")
    keep_rows(trainer_of(tmp_path), 9)
    assert rows_of(tmp_path) == ROWS
