"""What one process of two meets alone ends both: in words, within the stated time, and no process is left."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from .conftest import FSDP2, QUICKSTART, SIZES, fit_arguments

FAULT = """
import os, signal, time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from lightning import Callback
from torch import distributed
from caopd.distributed import together
from caopd.rollouts import RolloutRequest, Sampling, TransformersEngine
from caopd.tasks import DrawTask
from caopd.types import Rollout
from caopd.verifiers import ExactMatch

NOTE = Path(__file__).with_name("when.txt")

class Fault(Callback):
    # Does something to some processes after the first micro-batch of the second round.
    def __init__(self, kind: str, processes: list[int]) -> None:
        self.kind, self.processes = kind, processes

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if trainer.current_epoch == 1 and trainer.global_rank in self.processes:
            NOTE.write_text(str(time.time()))
            if self.kind == "raise":
                self.fail()
            if self.kind == "raise_together":
                together(self.fail)
            os.kill(os.getpid(), getattr(signal, self.kind))

    def fail(self):
        raise ValueError(f"a callback's own error in process {distributed.get_rank()}")

class LonelyVerifier(ExactMatch):
    # Raises for process 1 alone, in the second round; it runs in a process of its own, which has the same environment.
    num_calls = 0

    def verify(self, text, target):
        LonelyVerifier.num_calls += 1
        if os.environ["LOCAL_RANK"] == "1" and self.num_calls > 60:
            NOTE.write_text(str(time.time()))
            raise ValueError("a verifier's own error")
        return ExactMatch.verify(self, text, target)

@dataclass(frozen=True, slots=True)
class LonelyTask(DrawTask):
    verifier: LonelyVerifier = field(default=LonelyVerifier(), init=False)

class LonelyEngine(TransformersEngine):
    # Where completions are sampled, process 1 alone samples at another temperature, or fails.
    def __init__(self, fails: bool) -> None:
        super().__init__()
        self.fails = fails

    def generate(
        self, requests: Sequence[RolloutRequest], num_rollouts: int, sampling: Sampling
    ) -> list[list[Rollout]]:
        if os.environ["LOCAL_RANK"] == "1" and sampling.temperature == 1:
            NOTE.write_text(str(time.time()))
            if self.fails:
                raise ValueError("an engine's own error")
            sampling = replace(sampling, temperature=1.3)
        return super().generate(requests, num_rollouts, sampling)

class Occupied(Callback):
    # Takes the place of the next round's rollouts: process 0 alone cannot write them.
    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if trainer.is_global_zero and batch_idx == 0:
            NOTE.write_text(str(time.time()))
            (next(Path(trainer.default_root_dir).glob("lightning_logs/*/rollouts")) / "round_00001.jsonl").mkdir()
"""
DDP = {"trainer.strategy": "ddp"}
FAULTY = """
trainer:
  callbacks:
    - class_path: lightning.pytorch.callbacks.ModelCheckpoint
      init_args: {every_n_epochs: 1, save_on_train_epoch_end: true, save_top_k: -1, save_on_exception: true}
    - {class_path: faults.Fault, init_args: {kind: KIND, processes: PROCESSES}}
"""


class Ended:
    """A run of two processes that has ended."""

    def __init__(self, folder, status, output, end):
        self.status, self.output = status, output
        self.seconds = end - float((folder / "when.txt").read_text())
        self.checkpoints = sorted(path.name for path in folder.rglob("*.ckpt"))


@pytest.fixture
def run_until_its_end(tmp_path):
    """Fit with every default on until every process has ended; none may be left after that."""
    (tmp_path / "faults.py").write_text(FAULT)

    def run(config, **settings):
        (tmp_path / "fault.yaml").write_text(config)
        arguments = fit_arguments(
            tmp_path, (QUICKSTART, tmp_path / "fault.yaml"), {"trainer.devices": 2, **settings}, SIZES
        )
        with (tmp_path / "output.txt").open("w+") as output:
            first = subprocess.Popen(
                [sys.executable, "-m", "caopd", *map(str, arguments)],
                cwd=tmp_path,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                start_new_session=True,
            )
            try:
                status = first.wait(timeout=300)
                of_run = [each for each in psutil.process_iter() if str(tmp_path) in " ".join(_command(each))]
                _, left = psutil.wait_procs(of_run, timeout=30)
                end = time.time()
                output.seek(0)
                text = output.read()
                assert not left, text[-3000:]
            finally:
                for each in psutil.process_iter():
                    if str(tmp_path) in " ".join(_command(each)):
                        each.send_signal(signal.SIGKILL)
        return Ended(tmp_path, status, text, end)

    return run


def _command(process):
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def faulty(kind, *processes):
    return FAULTY.replace("KIND", kind).replace("PROCESSES", str(list(processes)))


@pytest.mark.parametrize(
    ("strategy", "process"),
    [(DDP, 1), pytest.param(FSDP2, 1, marks=pytest.mark.slow), pytest.param(DDP, 0, marks=pytest.mark.slow)],
    ids=["ddp", "fsdp2", "first"],
)
def test_an_error_in_one_process_alone_ends_both(strategy, process, run_until_its_end):
    """The other process is in the backward pass of the next micro-batch; a checkpoint would need both."""
    ended = run_until_its_end(faulty("raise", process), **strategy)
    assert ended.status == 1, ended.output[-3000:]
    assert ended.seconds < 10 + 10
    assert f"Stopped, since process {process} of 2 (pid " in ended.output
    assert f"ValueError: a callback's own error in process {process}" in ended.output
    assert "Connection closed by peer" not in ended.output
    assert ended.checkpoints == ["epoch=0-step=2.ckpt"]


@pytest.mark.slow
def test_an_error_that_the_other_process_does_not_come_to_hear_ends_both(run_until_its_end):
    """It waits for a minute to be heard, since the other one may be on its way."""
    ended = run_until_its_end(faulty("raise_together", 1), **DDP)
    assert ended.status == 1, ended.output[-3000:]
    assert 60 < ended.seconds < 60 + 10 + 20
    assert "Stopped, since process 1 of 2 (pid " in ended.output
    assert "ValueError: a callback's own error in process 1" in ended.output


@pytest.mark.slow
@pytest.mark.parametrize("strategy", [DDP, FSDP2], ids=["ddp", "fsdp2"])
def test_an_error_in_every_process_alike_saves_a_checkpoint(strategy, run_until_its_end):
    ended = run_until_its_end(faulty("raise", 0, 1), **strategy)
    assert ended.status == 1, ended.output[-3000:]
    assert "Stopped, since" not in ended.output
    assert "a callback's own error in process 0" in ended.output
    assert len(ended.checkpoints) == 2


@pytest.mark.parametrize(
    ("kind", "process", "said"),
    [
        ("SIGSTOP", 1, "has not answered for 4 s"),
        pytest.param("SIGSTOP", 0, "has not answered for 4 s", marks=pytest.mark.slow),
        pytest.param("SIGKILL", 1, "has ended without a word", marks=pytest.mark.slow),
        pytest.param("SIGKILL", 0, "has ended without a word", marks=pytest.mark.slow),
    ],
)
def test_a_process_that_is_stopped_or_killed_ends_both(kind, process, said, run_until_its_end):
    ended = run_until_its_end(faulty(kind, process), **DDP, **{"peers.timeout_seconds": 4})
    assert ended.status != 0
    assert ended.seconds < 4 + 10
    assert f"Stopped, since process {process} of 2 (pid " in ended.output
    assert said in ended.output
    assert "Traceback" not in ended.output


@pytest.mark.slow
@pytest.mark.parametrize("strategy", [DDP, pytest.param(FSDP2, marks=pytest.mark.slow)], ids=["ddp", "fsdp2"])
def test_a_verifier_that_raises_in_one_process_alone_is_an_error_in_both(strategy, run_until_its_end):
    """Both end by themselves, in order: engines are closed and loggers written."""
    ended = run_until_its_end("data: {task: {class_path: faults.LonelyTask}}", **strategy)
    assert ended.status == 1, ended.output[-3000:]
    assert "ValueError: a verifier's own error" in ended.output
    assert "error: Expected faults.LonelyVerifier to deal with" in ended.output
    assert "error: Stopped, since process 1 of 2 (pid " in ended.output
    assert "The last checkpoint is as it was" not in ended.output, "nobody was ended by the watch"


@pytest.mark.slow
def test_a_file_that_process_0_cannot_write_is_an_error_in_both(run_until_its_end):
    ended = run_until_its_end("trainer: {callbacks: [{class_path: faults.Occupied}]}", **DDP)
    assert ended.status != 0
    assert "round_00001.jsonl" in ended.output
    assert "error: Stopped, since process 0 of 2 (pid " in ended.output
    assert "The last checkpoint is as it was" not in ended.output, "nobody was ended by the watch"


@pytest.mark.slow
@pytest.mark.parametrize("strategy", [DDP, pytest.param(FSDP2, marks=pytest.mark.slow)], ids=["ddp", "fsdp2"])
def test_an_engine_that_samples_otherwise_in_one_process_alone_is_the_same_error_in_both(strategy, run_until_its_end):
    ended = run_until_its_end(
        "data: {engine: {class_path: faults.LonelyEngine, init_args: {fails: false}}}", **strategy
    )
    assert ended.status == 1, ended.output[-3000:]
    assert ended.seconds < 60
    said = " ".join(ended.output.split())
    assert said.count("error: Expected the engine's log-probabilities of the tokens it sampled") == 2
    assert said.count("it is the sampling that differs") == 2
    assert "The last checkpoint is as it was" not in ended.output, "nobody was ended by the watch"


@pytest.mark.slow
def test_an_engine_that_fails_in_one_process_alone_is_an_error_in_both(run_until_its_end):
    ended = run_until_its_end("data: {engine: {class_path: faults.LonelyEngine, init_args: {fails: true}}}", **DDP)
    assert ended.status == 1, ended.output[-3000:]
    assert "ValueError: an engine's own error" in ended.output
    assert "error: Stopped, since process 1 of 2 (pid " in ended.output
    assert "The last checkpoint is as it was" not in ended.output, "nobody was ended by the watch"
