"""Whole runs with every default on: progress bar, logger, checkpoints, validation, and what users add to them."""

import json
import re
import subprocess
import sys

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from .conftest import QUICKSTART, SIZES, fit_arguments

FSDP2 = {
    "trainer.strategy": "caopd.training.sharded.AtomicModelParallelStrategy",
    "trainer.strategy.data_parallel_size": 2,
    "trainer.strategy.tensor_parallel_size": 1,
}
SETUPS = {
    "one_process": {},
    "ddp": {"trainer.devices": 2, "trainer.strategy": "ddp"},
    "fsdp2": {"trainer.devices": 2, **FSDP2},
}
OTHERS = """
trainer:
  callbacks:
    - class_path: lightning.pytorch.callbacks.TQDMProgressBar
    - class_path: lightning.pytorch.callbacks.LearningRateMonitor
    - class_path: lightning.pytorch.callbacks.EarlyStopping
      init_args: {monitor: rollout/mu_hat, mode: max, patience: 9}
    - class_path: lightning.pytorch.callbacks.ModelCheckpoint
      init_args: {monitor: val/greedy/brier, mode: min, save_last: true}
"""

INTERRUPTED = """
import signal
import weakref

from lightning import Callback


class Thing:
    pass


class InterruptedWhileFreeing(Callback):
    def on_train_start(self, trainer, pl_module):
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        thing = Thing()
        self.reference = weakref.ref(thing, lambda _: signal.raise_signal(signal.SIGINT))
        if batch_idx == 1:
            del thing  # Python ignores what is raised in the reference's callback
        else:
            del self.reference
"""

SWEEP = """
import sys
from multiprocessing import get_context

from caopd.cli import main

if __name__ == "__main__":
    with get_context("spawn").Pool(1) as pool:
        sys.exit(pool.apply(main, [sys.argv[1:]]))
"""


def assert_finished(result, directory):
    assert result.returncode == 0, result.stderr[-4000:]
    assert "Traceback" not in result.stderr + result.stdout
    assert "sync_dist" not in result.stderr  # nor does Lightning ask for what would hang
    assert "before the ``update``" not in result.stderr  # nor torchmetrics for what has nothing to count
    (run,) = (directory / "lightning_logs").iterdir()
    assert json.loads((run / "metrics.json").read_text())["final"]["step"] == 8 // result.processes
    assert set(curves(run)) >= {"train/loss", "val/greedy/ece"}
    assert "hp_metric" not in curves(run)  # TensorBoard would show a constant -1 first
    return run


def curves(run):
    events = EventAccumulator(str(run))
    events.Reload()
    return events.Tags()["scalars"]


@pytest.mark.parametrize(
    "setup",
    [
        pytest.param("one_process", marks=pytest.mark.slow),  # the same command twice, below
        pytest.param("ddp", marks=pytest.mark.slow),  # the callbacks that users add, below
        "fsdp2",
    ],
)
def test_a_run_with_every_default_ends(setup, fit_as_users_do, tmp_path):
    settings = SETUPS[setup]
    result = fit_as_users_do(tmp_path, **settings)
    result.processes = settings.get("trainer.devices", 1)
    run = assert_finished(result, tmp_path)
    assert [path.name for path in run.rglob("round*.ckpt")] == ["round1.ckpt"]


@pytest.mark.slow
def test_processes_that_the_trainer_forks_end_without_another_validation(fit_as_users_do, tmp_path):
    """From within them none can be started; the sanity check is the only validation here."""
    result = fit_as_users_do(tmp_path, **{"trainer.devices": 2, "trainer.strategy": "ddp_fork"})
    assert result.returncode == 0, result.stderr[-4000:]
    assert "`final` in metrics.json is the last one" in result.stderr
    (metrics,) = tmp_path.rglob("metrics.json")
    content = json.loads(metrics.read_text())
    assert (content["initial"]["step"], content["final"]) == (0, None)


@pytest.mark.slow
def test_a_worker_of_a_sweep_ends_with_a_validation_as_any_process_does(tmp_path):
    (tmp_path / "sweep.py").write_text(SWEEP)
    arguments = fit_arguments(tmp_path, (QUICKSTART,), {}, SIZES)
    command = [sys.executable, tmp_path / "sweep.py", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert result.returncode == 0, result.stderr[-4000:]
    (metrics,) = tmp_path.rglob("metrics.json")
    assert json.loads(metrics.read_text())["final"]["step"] == 8


def test_two_processes_with_the_callbacks_that_users_add_end(fit_as_users_do, tmp_path):
    """Each reads logged values, the bar in process 0 alone, and two decide by what is logged at a round's end."""
    (tmp_path / "others.yaml").write_text(OTHERS)
    settings = {**SETUPS["ddp"], "trainer.check_val_every_n_epoch": 1}
    result = fit_as_users_do(tmp_path, tmp_path / "others.yaml", **settings)
    result.processes = 2
    run = assert_finished(result, tmp_path)
    assert (run / "checkpoints" / "last.ckpt").is_file()
    assert re.search(r"Epoch 1", result.stdout + result.stderr)


@pytest.mark.slow
def test_a_sharded_run_goes_on_where_it_was(fit_as_users_do, tmp_path):
    """By default a sharding strategy writes a folder for a checkpoint; one device alone goes on from it, too."""
    settings = SETUPS["fsdp2"]
    started = fit_as_users_do(tmp_path, **settings, **{"trainer.max_epochs": 1})
    assert started.returncode == 0, started.stderr[-4000:]
    resumed = fit_as_users_do(tmp_path, ckpt_path="last", **settings)
    assert resumed.returncode == 0, resumed.stderr[-4000:]
    assert "CaOPD-SDFT-DrawTask-seed0/checkpoints/round0.ckpt" in resumed.stderr
    metrics = json.loads((tmp_path / "lightning_logs" / "CaOPD-SDFT-DrawTask-seed0" / "metrics.json").read_text())
    assert (metrics["initial"]["step"], metrics["final"]["step"]) == (0, 4)
    alone = fit_as_users_do(tmp_path, ckpt_path="last", **{"trainer.max_epochs": 3})
    assert alone.returncode == 0, alone.stderr[-4000:]
    metrics = json.loads((tmp_path / "lightning_logs" / "CaOPD-SDFT-DrawTask-seed0" / "metrics.json").read_text())
    assert metrics["final"]["step"] == 8  # four steps a round in one process, two in each of two


def test_the_same_command_goes_on_where_it_was(fit_as_users_do, tmp_path):
    """A first start, a start after the run was cut short, and one evaluation, all by `last`."""
    started = fit_as_users_do(tmp_path, ckpt_path="last", **{"trainer.max_epochs": 1})
    assert started.returncode == 0, started.stderr[-4000:]
    assert f"No run with these settings below {tmp_path} yet" in started.stderr
    resumed = fit_as_users_do(tmp_path, ckpt_path="last", **{"trainer.max_epochs": 2})
    assert resumed.returncode == 0, resumed.stderr[-4000:]
    assert "CaOPD-SDFT-DrawTask-seed0/checkpoints/round0.ckpt" in resumed.stderr
    resumed.processes = 1
    run = assert_finished(resumed, tmp_path)  # one run, in one directory
    assert not set(re.findall("Traceback|sync_dist|before the ``update``", started.stderr + started.stdout))
    metrics = json.loads((run / "metrics.json").read_text())
    assert (metrics["initial"]["step"], metrics["final"]["step"]) == (0, 8)


def test_a_run_ends_by_ctrl_c_whatever_it_does_at_that_moment(fit_as_users_do, tmp_path):
    (tmp_path / "freeing.py").write_text(INTERRUPTED)
    (tmp_path / "callbacks.yaml").write_text("trainer: {callbacks: [{class_path: freeing.InterruptedWhileFreeing}]}")
    result = fit_as_users_do(tmp_path, tmp_path / "callbacks.yaml", **{"trainer.max_epochs": 1000})
    assert result.returncode == 1
    assert "Detected KeyboardInterrupt" in result.stderr
    assert re.search(r"it has no checkpoint yet.*\n    caopd fit .*--ckpt_path=last\n$", result.stderr)
