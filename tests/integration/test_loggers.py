"""Several real loggers at once, in two processes: one run directory; each logger shows what it can."""

import json

import pytest
import wandb
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from caopd.cli import main
from caopd.run_directory import run_of_checkpoint

from .conftest import QUICKSTART, SIZES, fit_arguments

NAME = "[red] :fire: $y$"
SHOWN = {"greedy/reliability": "png", "sampled/reliability": "png", "completions": "md"}
"""Kind of files, for the logger that takes neither -> suffix."""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("run") / NAME


def arguments(root, config, **wandb_run):
    """Of a fit in two processes with W&B first, whose run's id, unless it is given, the first process alone knows."""
    offline = {"save_dir": str(root / "w"), "project": "p", "offline": True, **wandb_run}
    loggers = {"Wandb": offline, "CSV": {"save_dir": str(root / "c")}, "TensorBoard": {"save_dir": str(root / "t")}}
    where = "lightning.pytorch.loggers.{}Logger"
    listed = [{"class_path": where.format(name), "init_args": given} for name, given in loggers.items()]
    config.write_text(yaml.safe_dump({"trainer": {"logger": listed}}))
    two = {"trainer.devices": 2, "trainer.strategy": "ddp"}
    return fit_arguments(root, (QUICKSTART, config), {"trainer.max_epochs": 1, **two}, SIZES)


@pytest.fixture(scope="module")
def printed(root, command):
    result = command(*arguments(root, root.parent / "loggers.yaml"))
    assert result.returncode == 0, result.stderr[-4000:]
    return result.stdout


@pytest.fixture
def run(printed, root):
    (directory,) = (root / "w" / "p").iterdir()
    return directory


def contents(directory):
    """Of every file; W&B's own files, whose process may write after the command has ended, count by their names."""
    files = {str(path.relative_to(directory)): path for path in directory.rglob("*") if path.is_file()}
    return {name: b"" if "wandb" in path.parts else path.read_bytes() for name, path in files.items()}


def test_the_run_directory_is_that_of_the_first_logger(run, root):
    own = {"config.yaml", "metrics.json", "checkpoints/round0.ckpt", "rollouts/round_00000.jsonl"}
    shown = {f"{name}/step_{step:06d}.{suffix}" for step in (0, 2) for name, suffix in SHOWN.items()}
    assert set(contents(run)) == own | shown
    assert run_of_checkpoint(run / "checkpoints" / "round0.ckpt") == run
    assert {path.name for path in root.rglob("*") if path.suffix == ".jsonl"} == {"round_00000.jsonl"}


def test_every_logger_shows_diagrams_and_completions(run, root):
    events = EventAccumulator(str(root / "t" / "lightning_logs" / "version_0"))
    events.Reload()
    assert len(events.Tensors("val/completions/text_summary")) == 2
    (media,) = (root / "w" / "wandb").glob("offline-run-*/files/media")
    for event in ("greedy", "sampled"):
        assert len(events.Images(f"val/{event}/reliability")) == 2
        assert len(list((media / "images" / "val" / event).glob("reliability_*.png"))) == 2
    tables = [json.loads(path.read_text()) for path in (media / "table" / "val").glob("completions_*.json")]
    assert [len(table["data"]) for table in tables] == [16, 16]
    assert {
        "question",
        "event",
        "completion",
        "target",
        "correct",
        "confidence",
        "confidence form",
        "answer form",
    } == set(tables[0]["columns"])
    assert len(list((root / "c").rglob("metrics.csv"))) == 1


def test_the_path_is_printed_as_it_is(printed, run):
    assert f"metrics: {run}/metrics.json" in printed.splitlines()


def test_a_second_run_of_the_same_id_is_refused_before_anything_is_written(run, root, tmp_path, capsys):
    before = contents(root)
    one_process = ["--trainer.devices=1", "--trainer.strategy=auto"]
    assert main([*arguments(root, tmp_path / "loggers.yaml", id=run.name), *one_process]) == 2
    assert f"Expected {run} to be this run's alone" in capsys.readouterr().err
    assert wandb.run is None
    assert contents(root) == before
