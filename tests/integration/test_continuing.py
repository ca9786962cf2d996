"""The same command goes on with its run, in the run's own directory, however the run was cut short."""

import csv
import json
import os
import signal
import stat

import pytest
import torch
import wandb

from caopd.cli import main
from caopd.training.run_lock import RunLock

from .conftest import FSDP2, QUICKSTART, Run, fit_arguments

STOPPING = """
import os
import signal
from lightning import Callback

class Stopping(Callback):
    def stop(self, *now):
        if os.environ["STOP_AT"] == " ".join(map(str, now)):
            signal.raise_signal(int(os.environ["STOP_BY"]))

    def on_sanity_check_start(self, trainer, pl_module):
        self.stop("sanity")

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.stop("batch", trainer.current_epoch, batch_idx)

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        if not trainer.sanity_checking:
            self.stop("validation", trainer.current_epoch, batch_idx)

    def on_train_epoch_start(self, trainer, pl_module):
        self.round = trainer.current_epoch

    def on_phase(self, phase):
        self.stop(phase, getattr(self, "round", -1) + 1)
"""
CALLBACKS = """
trainer:
  check_val_every_n_epoch: 1
  callbacks:
    - class_path: stopping.Stopping
    - class_path: lightning.pytorch.callbacks.ModelCheckpoint
      init_args: {every_n_epochs: 1, save_on_train_epoch_end: true, save_top_k: -1, filename: "round{epoch}",
                  auto_insert_metric_name: false}
"""
BEST = """
trainer:
  callbacks:
    - class_path: lightning.pytorch.callbacks.ModelCheckpoint
      init_args: {monitor: rollout/mu_hat, mode: max, save_top_k: 2, save_on_train_epoch_end: true,
                  filename: "round{epoch}", auto_insert_metric_name: false}
"""


@pytest.fixture
def stopped(tmp_path, monkeypatch):
    """Start a fit that gets a signal at a given moment, and later the same command without the signal."""
    (tmp_path / "stopping.py").write_text(STOPPING)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, "stopping", raising=False)

    def start(at="", number=signal.SIGTERM, root="runs", **settings):
        config = tmp_path / "callbacks.yaml"
        config.write_text(CALLBACKS)
        monkeypatch.setenv("STOP_AT", at)
        monkeypatch.setenv("STOP_BY", str(int(number)))
        return main(fit_arguments(tmp_path / root, (QUICKSTART, config), settings))

    return start


def by_step(run, tag):
    return {event.step: event.value for event in run.events.Scalars(tag)}


def assert_same_run(found, whole):
    """Weights, teacher, optimizer, metrics, and every logged scalar by step but for seconds."""
    for one, other in ((run.checkpoint("round1") for run in (found, whole)),):
        for name, weight in other["state_dict"].items():
            assert torch.equal(one["state_dict"][name], weight), name
        states = [checkpoint["optimizer_states"][0]["state"] for checkpoint in (one, other)]
        assert all(torch.equal(states[0][key]["exp_avg_sq"], states[1][key]["exp_avg_sq"]) for key in states[1])
    metrics = [json.loads((run.directory / "metrics.json").read_text()) for run in (found, whole)]
    assert metrics[0] == metrics[1]
    for tag in whole.events.Tags()["scalars"]:
        if not tag.startswith("time/"):
            assert by_step(found, tag) == by_step(whole, tag), tag


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    directory = tmp_path_factory.mktemp("whole")
    (directory / "callbacks.yaml").write_text(CALLBACKS.replace("    - class_path: stopping.Stopping\n", ""))
    assert main(fit_arguments(directory / "runs", (QUICKSTART, directory / "callbacks.yaml"), {})) == 0
    return Run(directory / "runs")


@pytest.mark.parametrize(
    "at",
    [
        *(pytest.param(at, marks=pytest.mark.slow) for at in ("sanity", "batch 1 0")),  # less is there to be undone
        *("batch 0 2", "validation 1 0"),
    ],
)
def test_a_run_that_sigterm_ended_goes_on_in_its_directory(at, stopped, uninterrupted, tmp_path, capsys):
    assert stopped(at, ckpt_path="last") == 128 + signal.SIGTERM
    message = capsys.readouterr().err
    command = message.splitlines()[-1]
    assert command.startswith("    caopd fit --config=")
    assert command.endswith("--ckpt_path=last")
    assert command.count("ckpt_path") == 1
    assert ("round0.ckpt" if at[-3:] == "1 0" else "it has no checkpoint yet") in message
    assert stopped(ckpt_path="last") == 0
    assert_same_run(Run(tmp_path / "runs"), uninterrupted)  # which asserts that there is one directory


@pytest.mark.parametrize("logger", ["true", "false"])
def test_the_best_checkpoints_are_known_again_where_the_folder_of_runs_is_relative(logger, tmp_path, monkeypatch):
    """``ModelCheckpoint`` forgets them where its folder is called by another path, absolute in place of relative."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "best.yaml").write_text(BEST)
    for rounds in (1, 2):
        settings = {"trainer.max_epochs": rounds, "trainer.logger": logger, "ckpt_path": "last"}
        assert main(fit_arguments("runs", (QUICKSTART, "best.yaml"), settings)) == 0
    (run,) = (tmp_path / "runs" / "lightning_logs").iterdir()
    content = torch.load(run / "checkpoints" / "round1.ckpt", weights_only=True)
    (state,) = (state for name, state in content["callbacks"].items() if name.startswith("ModelCheckpoint"))
    assert [path.rpartition("/")[2] for path in state["best_k_models"]] == ["round0.ckpt", "round1.ckpt"]


def test_a_handler_of_the_users_own_is_called_as_well(stopped):
    received = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
    try:
        assert stopped("batch 0 2") == 128 + signal.SIGTERM
    finally:
        signal.signal(signal.SIGTERM, before)
    assert received == [signal.SIGTERM]


def test_the_rows_of_a_csv_log_are_those_of_an_uninterrupted_run(stopped, tmp_path):
    logger = {"trainer.logger": "CSVLogger", "trainer.logger.flush_logs_every_n_steps": 1}
    assert stopped("batch 1 2", ckpt_path="last", **logger, **{"trainer.logger.save_dir": tmp_path / "runs"}) == 143
    assert stopped(ckpt_path="last", **logger, **{"trainer.logger.save_dir": tmp_path / "runs"}) == 0
    assert stopped(root="whole", **logger, **{"trainer.logger.save_dir": tmp_path / "whole"}) == 0
    found, whole = (rows(next((tmp_path / name).rglob("metrics.csv"))) for name in ("runs", "whole"))
    assert found == whole


def rows(path):
    with path.open(newline="") as file:
        every = [
            {key: value for key, value in row.items() if value and key[:5] != "time/"} for row in csv.DictReader(file)
        ]
    return [row for row in every if set(row) != {"step"}]


def test_other_settings_are_another_run_and_other_lengths_are_not(stopped, tmp_path, capsys):
    assert stopped(ckpt_path="last", **{"trainer.max_epochs": 1}) == 0
    assert stopped(ckpt_path="last", **{"model.optimizer.init_args.lr": 1e-4}) == 2
    message = capsys.readouterr().err
    assert "model.optimizer.init_args.lr 0.0012 (now 0.0001)" in message
    assert str(Run(tmp_path / "runs").checkpoint_file("round0")) in message
    assert stopped(ckpt_path="last", **{"trainer.log_every_n_steps": 2, "data.keep_rounds": 1}) == 0
    assert Run(tmp_path / "runs").checkpoint("round1")["global_step"] == 8
    assert stopped(**{"trainer.max_epochs": 1}) == 0  # without `ckpt_path` a new run starts
    assert sorted(path.name for path in (tmp_path / "runs" / "lightning_logs").iterdir()) == [
        "CaOPD-SDFT-DrawTask-seed0",
        "CaOPD-SDFT-DrawTask-seed0-run2",
    ]


def test_a_damaged_checkpoint_is_left_out_for_a_sound_one(stopped, uninterrupted, tmp_path):
    assert stopped("batch 1 2", ckpt_path="last") == 143
    run = Run(tmp_path / "runs")
    damaged = run.checkpoint_file("round1")
    damaged.write_bytes(run.checkpoint_file("round0").read_bytes()[:9000])
    with pytest.warns(UserWarning, match=r"left out.*round1\.ckpt is none that can be used"):
        assert stopped(ckpt_path="last") == 0
    damaged.unlink()
    run.checkpoint_file("round1-v1").rename(damaged)
    assert_same_run(run, uninterrupted)


def test_only_damaged_checkpoints_are_an_error(stopped, tmp_path, capsys):
    assert stopped("batch 1 2", ckpt_path="last") == 143
    run = Run(tmp_path / "runs")
    run.checkpoint_file("round0").write_bytes(b"")
    assert stopped(ckpt_path="last") == 2
    message = capsys.readouterr().err
    assert "it is empty" in message
    assert "remove what is damaged" in message


def test_a_checkpoint_that_a_script_wrote_does_not_say_its_run(stopped, tmp_path, capsys):
    assert stopped("batch 1 2", ckpt_path="last") == 143
    file = Run(tmp_path / "runs").checkpoint_file("round0")
    content = torch.load(file, weights_only=True)
    del content["caopd_run"]
    torch.save(content, file)
    assert stopped(ckpt_path="last") == 2
    assert "does not say which run it is of" in capsys.readouterr().err


def test_weights_and_biases_keeps_one_run(stopped, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_SILENT", "true")
    logger = {"trainer.logger": "WandbLogger", "trainer.logger.offline": "true"}
    settings = {"ckpt_path": "last", **logger, "trainer.logger.save_dir": tmp_path / "runs"}
    assert stopped("batch 1 2", **settings) == 143
    wandb.finish()  # as the end of a process does
    assert stopped(**settings) == 0
    wandb.finish()
    (metrics,) = tmp_path.rglob("metrics.json")
    assert {path.name.rpartition("-")[2] for path in tmp_path.rglob("offline-run-*")} == {metrics.parent.name}


def test_a_run_that_is_still_running_is_left_alone(stopped, tmp_path, capsys):
    assert stopped("batch 1 2", ckpt_path="last") == 143
    lock = RunLock()
    lock.acquire(Run(tmp_path / "runs").directory)
    assert stopped(ckpt_path="last") == 2
    assert f"no other process to be training in {tmp_path}" in capsys.readouterr().err
    lock.release()
    assert stopped(ckpt_path="last") == 0


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """The variables that SLURM sets, simulated, and a stand-in for its command, which writes down its arguments."""
    variables = {"NTASKS": 1, "PROCID": 0, "LOCALID": 0, "NODEID": 0, "JOB_ID": 77, "JOB_NAME": "train"}
    array = {"ARRAY_JOB_ID": 70, "ARRAY_TASK_ID": 4}
    for name, value in {**variables, **array}.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    command = tmp_path / "bin" / "scontrol"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{command.parent}{os.pathsep}{os.environ['PATH']}")
    return tmp_path / "asked"


MOMENTS = {
    "batch 0 1": "preempted-step2.ckpt",
    "batch 1 3": "preempted-step8.ckpt",
    "validation 0 1": "preempted-step4.ckpt",
    "rollout 0": "preempted-step1.ckpt",  # there is no checkpoint of the weights that sample
    "rollout 1": "preempted-step5.ckpt",
}


ALWAYS = ("batch 0 1", "rollout 1")


@pytest.mark.parametrize(
    ("at", "number"),
    [
        *(pytest.param(at, signal.SIGUSR1, marks=() if at in ALWAYS else pytest.mark.slow) for at in MOMENTS),
        pytest.param("validation 0 1", signal.SIGTERM),
    ],
)
def test_slurm_starts_a_run_again_that_is_exactly_where_it_was(
    at, number, stopped, slurm, uninterrupted, tmp_path, monkeypatch
):
    assert stopped(at, number) == 128 + signal.SIGTERM
    assert slurm.read_text() == "requeue 70_4\n"
    run = Run(tmp_path / "runs")
    assert run.directory.name == "CaOPD-SDFT-DrawTask-seed0"
    assert [path.name for path in (run.directory / "checkpoints").glob("preempted*")] == [MOMENTS[at]]
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert stopped() == 0
    assert_same_run(Run(tmp_path / "runs"), uninterrupted)


def test_lightning_takes_no_checkpoint_by_itself(stopped, slurm, tmp_path, capsys):
    """It would go on from any file of this name below `default_root_dir`, whatever run wrote it."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "hpc_ckpt_1.ckpt").touch()
    assert stopped() == 2
    assert "hpc_ckpt_1.ckpt under SLURM" in capsys.readouterr().err


def test_a_job_that_slurm_does_not_take_back_says_what_to_do(stopped, slurm, tmp_path):
    (tmp_path / "bin" / "scontrol").write_text("#!/bin/sh\necho no such job >&2\nexit 1\n")
    with pytest.warns(UserWarning, match=r"job 70_4 .*no such job.*--ckpt_path=last"):
        assert stopped("batch 0 1", signal.SIGUSR1) == 143


TWO_PROCESSES = """
import os
import signal
from lightning import Callback

class OneIsAsked(Callback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == 1:
            self.ask(trainer, "batch")

    def on_validation_batch_start(self, trainer, *arguments):
        if trainer.state.fn == "validate":  # behind the last round
            self.ask(trainer, "last validation")

    def on_save_checkpoint(self, trainer, *arguments):  # each process saves, or hands its shards over
        self.ask(trainer, "save")

    def ask(self, trainer, where):
        if str(trainer.global_rank) == os.environ["ASKED"] and where == os.environ["ASKED_AT"]:
            os.kill(os.getpid(), signal.SIGTERM)
"""


@pytest.mark.parametrize(
    ("asked", "at", "said"),
    [
        pytest.param(0, "batch", "The run ended after optimizer step 2;", marks=pytest.mark.slow),
        (1, "batch", "The run ended after optimizer step 2;"),
        pytest.param(0, "last validation", "", marks=pytest.mark.slow),
        (1, "last validation", ""),
    ],
)
def test_a_signal_to_one_of_two_processes_ends_both_behind_the_same_batch(
    asked, at, said, fit_with_defaults, tmp_path, monkeypatch
):
    (tmp_path / "asked.py").write_text(TWO_PROCESSES)
    (tmp_path / "callbacks.yaml").write_text("trainer: {callbacks: [{class_path: asked.OneIsAsked}]}")
    monkeypatch.setenv("ASKED", str(asked))
    monkeypatch.setenv("ASKED_AT", at)
    settings = {"trainer.devices": 2, "trainer.strategy": "ddp"}
    result = fit_with_defaults(tmp_path, tmp_path / "callbacks.yaml", **settings)
    assert result.statuses == [128 + signal.SIGTERM] * 2
    assert said in result.stderr
    assert "Traceback" not in result.stderr


IN_SHARDS = {"trainer.strategy.save_distributed_checkpoint": "true"}


@pytest.mark.parametrize(
    ("asked", "devices", "strategy"),
    [
        pytest.param(0, 2, {"trainer.strategy": "ddp"}, marks=pytest.mark.slow, id="ddp, the one that writes"),
        pytest.param(1, 2, {"trainer.strategy": "ddp"}, marks=pytest.mark.slow, id="ddp, another"),
        pytest.param(0, 2, FSDP2, marks=pytest.mark.slow, id="fsdp2, one file"),
        pytest.param(1, 2, {**FSDP2, **IN_SHARDS}, id="fsdp2, shards"),
        pytest.param(3, 4, FSDP2, marks=pytest.mark.slow, id="fsdp2, one file of four"),
        pytest.param(2, 4, {**FSDP2, **IN_SHARDS}, marks=pytest.mark.slow, id="fsdp2, shards of four"),
    ],
)
def test_a_signal_within_a_save_ends_every_process_and_the_save_is_whole(
    asked, devices, strategy, fit_with_defaults, tmp_path, monkeypatch
):
    (tmp_path / "asked.py").write_text(TWO_PROCESSES)
    (tmp_path / "callbacks.yaml").write_text(CALLBACKS.replace("stopping.Stopping", "asked.OneIsAsked"))
    monkeypatch.setenv("ASKED", str(asked))
    monkeypatch.setenv("ASKED_AT", "save")
    if strategy["trainer.strategy"] != "ddp":
        strategy = {**strategy, "trainer.strategy.data_parallel_size": devices, "trainer.gradient_clip_val": "null"}
    settings = {"trainer.devices": devices, **strategy}
    result = fit_with_defaults(tmp_path, tmp_path / "callbacks.yaml", **settings)
    assert result.statuses == [128 + signal.SIGTERM] * devices
    assert "Traceback" not in result.stderr
    monkeypatch.setenv("ASKED", "no one")
    resumed = fit_with_defaults(tmp_path, tmp_path / "callbacks.yaml", ckpt_path="last", **settings)
    assert resumed.returncode == 0, resumed.stderr[-3000:]


CTRL_C = """
import os
import signal
from lightning import Callback

class CtrlC(Callback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_rank == batch_idx:  # each is somewhere else
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.kill(os.getpid(), signal.SIGINT)
"""


@pytest.mark.slow
def test_ctrl_c_in_two_processes_prints_the_command_once(fit_as_users_do, tmp_path):
    (tmp_path / "interrupted.py").write_text(CTRL_C)
    (tmp_path / "callbacks.yaml").write_text("trainer: {callbacks: [{class_path: interrupted.CtrlC}]}")
    settings = {"trainer.devices": 2, "trainer.strategy": "ddp"}
    result = fit_as_users_do(tmp_path, tmp_path / "callbacks.yaml", **settings)
    assert result.returncode == 1
    assert result.stderr.count("--ckpt_path=last\n") == 1, result.stderr[-3000:]
    assert "Traceback" not in result.stderr
