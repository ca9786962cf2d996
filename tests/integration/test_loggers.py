"""Several real loggers at once, in two processes: one run directory; each logger shows what it can."""

import csv
import json

import pytest
import wandb
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from caopd.cli import main
from caopd.commands.report.collect import collect
from caopd.run_directory import run_of_checkpoint
from tests.wandb_files import OfflineRun

from .conftest import QUICKSTART, SIZES, fit_arguments

RUN = "CaOPD-SDFT-DrawTask-seed0"
NAME = "[red] :fire: $y$"
LOSS = "train/loss"
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
    own |= {"metrics.csv", "hparams.yaml"}  # W&B keeps curves in its own files, which `caopd report` does not read
    shown = {f"{name}/step_{step:06d}.{suffix}" for step in (0, 2) for name, suffix in SHOWN.items()}
    assert set(contents(run)) == own | shown
    assert run_of_checkpoint(run / "checkpoints" / "round0.ckpt") == run
    assert {path.name for path in root.rglob("*") if path.suffix == ".jsonl"} == {"round_00000.jsonl"}


def test_every_logger_shows_diagrams_and_completions(run, root):
    events = EventAccumulator(str(root / "t" / "lightning_logs" / RUN))
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
    with (root / "c" / "lightning_logs" / RUN / "metrics.csv").open(newline="") as file:
        rows = [(int(row["step"]), float(row[LOSS])) for row in csv.DictReader(file) if row[LOSS]]
    (offline,) = (OfflineRun(path) for path in (root / "w" / "wandb").glob("offline-run-*"))
    board = [(event.step, event.value) for event in events.Scalars(LOSS)]
    assert [step for step, _ in rows] == [0, 1]
    assert rows == offline.points(LOSS) == [(step, pytest.approx(value, rel=1e-6)) for step, value in board]


def test_every_logger_has_the_config_and_calls_the_run_by_its_name(run, root):
    config = yaml.safe_load((run / "config.yaml").read_text())
    (offline,) = (OfflineRun(path) for path in (root / "w" / "wandb").glob("offline-run-*"))
    assert (offline.id, offline.name, offline.project) == (run.name, RUN, "p")
    folders = [root / kind / "lightning_logs" / RUN for kind in ("c", "t")]
    held = [offline.config, *(yaml.safe_load((folder / "hparams.yaml").read_text()) for folder in folders)]
    for each in held:
        assert {name: each[name] for name in ("model", "data", "seed_everything")} == {
            name: config[name] for name in ("model", "data", "seed_everything")
        }
    assert config["trainer"]["logger"][0]["init_args"]["name"] is None  # the file repeats the run under a new name


def test_a_report_finds_the_curves_in_the_run_directory(run):
    (record,) = collect([run])
    assert [step for step, _ in record.curves[LOSS]] == [0, 1]
    assert [step for step, _ in record.curves["val/greedy/ece"]] == [0, 2]


def test_the_path_is_printed_as_it_is(printed, run):
    assert f"metrics:    {run}/metrics.json" in printed.splitlines()


def test_a_second_run_of_the_same_id_is_refused_before_anything_is_written(run, root, tmp_path, capsys):
    before = contents(root)
    one_process = ["--trainer.devices=1", "--trainer.strategy=auto"]
    assert main([*arguments(root, tmp_path / "loggers.yaml", id=run.name), *one_process]) == 2
    assert f"Expected {run} to be this run's alone" in capsys.readouterr().err
    assert wandb.run is None
    assert contents(root) == before


KINDS = ("TensorBoard", "CSV", "Wandb")


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_measured_of_a_run_belongs_to_it(kind, tmp_path, monkeypatch):
    """Two runs of the same settings, then a test and two predictions of the first one's first checkpoint."""
    monkeypatch.setenv("WANDB_SILENT", "true")
    where = {"save_dir": tmp_path, **({"offline": "true", "project": "p"} if kind == "Wandb" else {})}
    logger = {"trainer.logger": f"{kind}Logger", **{f"trainer.logger.{name}": value for name, value in where.items()}}
    short = {"trainer.max_epochs": 1, "trainer.enable_progress_bar": "false"}
    given = fit_arguments(tmp_path / "runs", (QUICKSTART,), {**logger, **short}, SIZES)[1:]
    for _ in range(2):
        assert main(["fit", *given]) == 0
        wandb.finish()
    ended = sorted(tmp_path.rglob("metrics.json"), key=lambda path: path.stat().st_mtime_ns)
    first, second = (path.parent for path in ended)
    untouched = contents(second)
    (checkpoint,) = first.glob("checkpoints/*.ckpt")
    for command in (["test"], ["predict"], ["predict", "--data.evaluation.num_samples=2"]):
        assert main([*command, *given, f"--ckpt_path={checkpoint}"]) == 0
        wandb.finish()
    assert contents(second) == untouched
    assert {path.parent for path in tmp_path.rglob("config.yaml") if "wandb" not in path.parts} == {first, second}
    predicted = {"predict.yaml", "predictions.greedy.jsonl", "predictions.sampled.jsonl"}
    assert {path.name for path in (first / "step_000004").iterdir()} == {"test.yaml", "test.json", *predicted}
    assert {path.name for path in (first / "step_000004-run2").iterdir()} == predicted
    assert json.loads((first / "step_000004" / "test.json").read_text())["step"] == 4
    assert [step for step, _ in points(kind, first, tmp_path, "test/greedy/ece")] == [4]
    assert [step for step, _ in points(kind, first, tmp_path, "val/greedy/ece")] == [0, 4]
    assert main(["export", str(checkpoint), str(tmp_path / "model")]) == 0
    assert RUN.split("-")[0] in (tmp_path / "model" / "README.md").read_text()
    (record,) = collect([first])
    assert len(record.predictions["sampled"].correct) == 48
    assert len(record.curves[LOSS]) == 4


def points(kind, run, root, name):
    """Of a curve, as the logger itself has them."""
    if kind == "Wandb":
        offline = [OfflineRun(path) for path in sorted((root / "wandb").glob(f"offline-run-*-{run.name}"))]
        assert {each.name for each in offline} == {RUN}
        return [point for each in offline for point in each.points(name)]
    if kind == "CSV":
        with (run / "metrics.csv").open(newline="") as file:
            return [(int(row["step"]), float(row[name])) for row in csv.DictReader(file) if row.get(name)]
    events = EventAccumulator(str(run))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(name)]
