"""``caopd fit`` with vLLM as its child: parity logged, faults stop it, and nothing is left behind however it ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.integration.conftest import QUICKSTART, SMALL, options
from tests.needs import needs_vllm

pytestmark = needs_vllm

ENGINE = {
    "data.engine": "caopd.rollouts.VLLMEngine",
    "data.engine.options": "{kv_cache_gib: 0.25}",
    "trainer.check_val_every_n_epoch": 2,
}
STALE = """
from caopd.rollouts import VLLMEngine, VLLMOptions
from caopd.rollouts.vllm.local import LocalVLLM
from tests.vllm_servers import without_head


class HeadStaysBehind(LocalVLLM):
    def load(self, policy, delivery, version):
        super().load(policy, without_head(delivery) if version else delivery, version)


class StaleEngine(VLLMEngine):
    def __init__(self):
        super().__init__()
        self._backend = HeadStaysBehind(VLLMOptions(kv_cache_gib=0.25))
"""
IMPORTANCE = {
    "model.method": "SDFT",
    "model.loss.init_args.importance_sampling": "{cap: 2.0}",
}


@pytest.fixture
def directory(tmp_path_factory):
    """For temporary files of the runs that a test starts; its short name fits into a socket's."""
    return tmp_path_factory.mktemp("files")


def children(directory):
    """Processes of vLLM whose temporary files are there, and the one that cleans up."""
    found = []
    for process in psutil.process_iter(["cmdline", "environ"]):
        is_ours = (process.info["environ"] or {}).get("TMPDIR") == str(directory)
        if is_ours and "caopd.vllm_host" in " ".join(process.info["cmdline"] or []):  # vLLM's, and the guard
            found.append(process)
    return found


def files(directory):
    return {path for folder in (Path("/dev/shm"), directory) for path in folder.glob("caopd-*")}


@pytest.fixture
def nothing_left(directory, monkeypatch):
    """What there was before is all that there is afterwards."""
    monkeypatch.setenv("TMPDIR", str(directory))
    before = files(directory)
    yield
    psutil.wait_procs(children(directory), timeout=90)
    assert not children(directory)
    assert files(directory) <= before


def command(root, **settings):
    merged = {**SMALL, **ENGINE, "trainer.default_root_dir": root, **settings}
    return [sys.executable, "-m", "caopd", "fit", f"--config={QUICKSTART}", *options(merged)]


@pytest.mark.slow
def test_a_run_logs_parity_and_importance_ratios(spawn, tmp_path, nothing_left):
    """Rounds of one step: rollouts are the student's, up to rounding."""
    run = spawn(tmp_path, **ENGINE, **IMPORTANCE, **{"trainer.accumulate_grad_batches": 4, "model.optimizer.lr": 0.02})
    assert max(run.scalars("rollout/parity_max")) < 1e-4
    assert len(run.scalars("rollout/parity_mean")) == 2
    assert run.scalars("train/importance_ratio") == pytest.approx([1.0, 1.0], abs=1e-4)
    assert run.scalars("train/importance_truncated") == [0.0, 0.0]
    assert len(run.scalars("time/sync_seconds")) == 2


@pytest.mark.slow
def test_a_stale_engine_stops_the_run_and_says_why(tmp_path, nothing_left):
    (tmp_path / "stale.py").write_text(STALE)
    arguments = command(tmp_path, **{"data.engine": "stale.StaleEngine", "model.optimizer.lr": 0.02})
    arguments = [argument for argument in arguments if not argument.startswith("--data.engine.options")]
    run = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert run.returncode == 1, run.stderr[-3000:]
    assert "not on-policy" in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("kv_cache_gib: 4000", "error: Let vLLM take less memory: lower `kv_cache_gib`"),
        ("max_model_len: 100000", "error: Lower `max_model_len`"),
        ("arguments: {nonsense: 1}", "error: Correct `arguments`"),
    ],
)
def test_options_that_cannot_work_end_the_run_at_once_with_what_to_do(tmp_path, nothing_left, option, message):
    arguments = command(tmp_path, **{"data.engine.options": f"{{{option}}}"})
    run = subprocess.run(arguments, capture_output=True, text=True, timeout=300)
    assert run.returncode == 1, run.stderr[-3000:]
    assert message in run.stderr
    assert "not started again" in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize(
    "number",
    [*(pytest.param(each, marks=pytest.mark.slow) for each in (signal.SIGINT, signal.SIGTERM)), signal.SIGKILL],
    ids=lambda number: number.name,
)
def test_a_signal_leaves_nothing_behind(number, tmp_path, directory, nothing_left):
    """As a terminal does it: the signal goes to the whole group of the command, while vLLM samples."""
    sizes = {"data.round.num_prompts_per_round": 64, "data.round.num_rollouts": 32}  # most of the time it samples
    arguments = command(tmp_path, **{"trainer.max_epochs": 1000, "data.round.num_trained_rollouts": 1, **sizes})
    process = subprocess.Popen(
        arguments,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        # A shell that runs the tests in the background has SIGINT ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while not list(tmp_path.rglob("round_00001.jsonl")):
        assert process.poll() is None, "it ended by itself"
        assert time.monotonic() < deadline, "no second round"
        time.sleep(0.1)
    assert children(directory)
    assert files(directory)
    time.sleep(0.5)
    os.killpg(process.pid, number)
    assert process.wait(60) != 0
