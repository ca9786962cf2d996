"""What is read of a run that was cut short and went on."""

import csv
import json

import pytest
import yaml
from torch.utils.tensorboard import SummaryWriter

from caopd.commands.report.collect import collect

METRICS = {"step": 4, "greedy": {"n": 2, "accuracy": 0.5}, "sampled": {"n": 2, "accuracy": 0.25}}


def run_directory(folder, **config):
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps({"initial": None, "final": METRICS}))
    (folder / "config.yaml").write_text(yaml.safe_dump({"model": {}, **config}))
    return folder


def events(folder, points, **keywords):
    with SummaryWriter(str(folder), **keywords) as writer:
        for step, value in points:
            writer.add_scalar("train/loss", value, step)


def rows(folder, points):
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["step", "train/loss"])
        writer.writeheader()
        writer.writerows({"step": step, "train/loss": value} for step, value in points)


def loss(*folders):
    return [record.curves["train/loss"] for record in collect(folders)]


def test_steps_that_a_run_logged_again_count_once(tmp_path, caplog):
    folder = run_directory(tmp_path / "run")
    events(folder, [(0, 4.0), (1, 3.0), (2, 9.0)], filename_suffix=".a")
    events(folder, [(1, 3.0), (2, 2.0), (3, 1.0)], filename_suffix=".b", purge_step=2)
    assert loss(folder) == [[(0, 4.0), (1, 3.0), (2, 2.0), (3, 1.0)]]
    assert not caplog.records  # nor does TensorBoard's reader warn of them


@pytest.mark.parametrize("log", [events, rows])
def test_a_run_that_began_with_a_checkpoint_shows_what_came_before(log, tmp_path):
    first = run_directory(tmp_path / "first")
    second = run_directory(tmp_path / "second", ckpt_path=str(first / "checkpoints" / "step2.ckpt"))
    log(first, [(0, 4.0), (1, 3.0), (2, 9.0)])
    log(second, [(2, 2.0), (3, 1.0)])
    whole = [(0, 4.0), (1, 3.0), (2, 2.0), (3, 1.0)]
    assert loss(first, second) == [[(0, 4.0), (1, 3.0), (2, 9.0)], whole]


def test_a_run_that_names_its_own_checkpoint_is_read_once(tmp_path):
    folder = run_directory(tmp_path / "run", ckpt_path=str(tmp_path / "run" / "checkpoints" / "step2.ckpt"))
    events(folder, [(2, 2.0)])
    assert loss(folder) == [[(2, 2.0)]]
