"""Every kind of logger gets figures and tables, or files stand in for them; read back from what loggers write."""

import gc
import json
import os
import weakref

import pytest
import wandb
from lightning import Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.loggers.logger import DummyLogger
from matplotlib import pyplot
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from caopd.plots import bars_figure
from caopd.training.callbacks import Unlogged
from caopd.training.callbacks.media import log_figure, log_table

COLUMNS = ["question", "completion"]
ROWS = [["What is *x*?", "two\nlines | and\ud800 <b>"], ["", "ä"]]
IN_MARKDOWN = [
    "| question | completion |",
    "| --- | --- |",
    r"| What is \*x\*? | two<br>lines &#124; and\\ud800 &lt;b> |",
    "|  | ä |",
]


@pytest.fixture
def show(tmp_path):
    """Show a figure and a table; return how many figures were plotted."""

    def run(*loggers):
        plotted = []
        trainer = Trainer(logger=list(loggers), default_root_dir=tmp_path, accelerator="cpu")
        trainer.fit_loop.epoch_loop.automatic_optimization.optim_progress.optimizer.step.total.completed = 12
        before = pyplot.get_fignums()
        log_figure(trainer, tmp_path / "run", "bars", lambda: plotted.append(1) or bars_figure({"x": {"a": [0.5]}}))
        log_table(trainer, tmp_path / "run", "texts", COLUMNS, ROWS)
        assert pyplot.get_fignums() == before
        for logger in loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.flush()  # it writes in a thread of its own
        return len(plotted)

    return run


def test_a_figure_is_gone_when_it_has_been_shown(tmp_path):
    """Python alone would free it many rounds later: until then each takes two MiB."""
    made = []

    def plot():
        figure = bars_figure({"x": {"a": [0.5]}})
        made.append(weakref.ref(figure))
        return figure

    trainer = Trainer(logger=TensorBoardLogger(tmp_path), default_root_dir=tmp_path, accelerator="cpu")
    for _ in range(3):
        log_figure(trainer, tmp_path / "run", "bars", plot)
        assert [figure() for figure in made] == [None] * len(made)
    assert gc.isenabled()


def files(root):
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def is_a_figure(image):
    low, high = image.convert("L").getextrema()
    return low < 60 and high > 200 and min(image.size) > 50


def check_tensorboard(directory):
    events = EventAccumulator(str(directory))
    events.Reload()
    (image,) = events.Images("val/bars")
    (text,) = events.Tensors("val/texts/text_summary")
    assert image.step == text.step == 12
    assert image.encoded_image_string.startswith(b"\x89PNG")
    assert text.tensor_proto.string_val[0].decode().splitlines() == IN_MARKDOWN


def check_files(directory):
    assert files(directory) == ["bars/step_000012.png", "texts/step_000012.md"]
    assert is_a_figure(Image.open(directory / "bars" / "step_000012.png"))
    assert (directory / "texts" / "step_000012.md").read_text(encoding="utf-8").splitlines() == IN_MARKDOWN


def test_tensorboard_shows_them(show, tmp_path):
    assert show(TensorBoardLogger(tmp_path, name="tb", version=0)) == 1
    check_tensorboard(tmp_path / "tb" / "version_0")
    assert not (tmp_path / "run").exists()


def test_wandb_shows_them(show, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_SILENT", "true")
    logger = WandbLogger(save_dir=str(tmp_path), offline=True)
    assert show(logger) == 1
    summary = dict(logger.experiment.summary)
    media = os.path.join(logger.experiment.dir, "")
    wandb.finish()
    assert summary["trainer/global_step"] == 12
    assert is_a_figure(Image.open(media + summary["val/bars"]["filenames"][0]))
    with open(media + summary["val/texts"]["path"]) as file:
        table = json.load(file)
    assert table["columns"] == COLUMNS
    assert table["data"] == [["What is *x*?", "two\nlines | and\\ud800 <b>"], ["", "ä"]]
    assert not (tmp_path / "run").exists()


def test_for_a_logger_of_numbers_they_are_files(show, tmp_path):
    assert show(CSVLogger(tmp_path, name="csv")) == 1
    check_files(tmp_path / "run")


def test_several_loggers_each_get_them_and_the_figure_is_plotted_once(show, tmp_path):
    tensorboard = [TensorBoardLogger(tmp_path, name=name, version=0) for name in ("tb", "more")]
    assert show(CSVLogger(tmp_path, name="csv"), *tensorboard) == 1
    check_files(tmp_path / "run")
    for name in ("tb", "more"):
        check_tensorboard(tmp_path / name / "version_0")


@pytest.mark.parametrize("loggers", [[], [DummyLogger()], ["unlogged"]])
def test_where_nothing_is_logged_nothing_is_plotted(show, tmp_path, loggers):
    given = [Unlogged(tmp_path / "runs" / "unlogged") if logger == "unlogged" else logger for logger in loggers]
    assert show(*given) == 0
    assert files(tmp_path) == []
