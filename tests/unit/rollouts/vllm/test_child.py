"""What becomes of the child process, and of its files, when one of the two is stuck or killed.

A small package stands in for vLLM here, because real ones do not get stuck at a given point; real ones that are killed
are in ``tests/integration``.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time

import psutil
import pytest

from caopd.errors import CaopdError, EngineDiedError, RolloutError
from caopd.rollouts import VLLMEngine, VLLMOptions
from caopd.rollouts.vllm import files
from caopd.rollouts.vllm.child import VLLMChild
from caopd.vllm_host.folders import OwnedFolder

VLLM = """
import os, signal, subprocess, sys, time
from types import SimpleNamespace

def stuck():
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    time.sleep(600)

class LLM:
    model_config = SimpleNamespace(max_model_len=512)

    def __init__(self, *arguments, **options):
        self.doing = options.get("doing", "")
        if self.doing == "start":
            stuck()
        if self.doing == "raise":
            raise ValueError("Model architectures ['X'] are not supported for now.")
        if self.doing == "crash":
            print("(Worker pid=7) ERROR 01-01 10:00:00 [core.py:17]   File core.py, line 3")
            print("(Worker pid=7) ERROR 01-01 10:00:00 [core.py:17] torch.OutOfMemoryError: CUDA out of memory.")
            sys.stdout.flush()
            os._exit(3)
        if self.doing == "be killed":
            os.kill(os.getpid(), signal.SIGKILL)

    def collective_rpc(self, method, args=()):
        if self.doing == method:
            stuck()
        return ["-1"]
"""
TRAINER = """
import sys
from caopd.models import ModelSource
from caopd.rollouts import VLLMEngine, VLLMOptions
from caopd.rollouts.vllm import files

files._IN_MEMORY = files.Path(sys.argv[1])
tokenizer = ModelSource().load_tokenizer()
engine = VLLMEngine(options=VLLMOptions(arguments={"doing": sys.argv[2]}))
engine.start(tokenizer)
engine.sync(ModelSource().load_model(tokenizer), 0)
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """A vLLM that does what it is told, in processes started from here; their temporary files are here, too."""
    (tmp_path / "vllm").mkdir()
    (tmp_path / "vllm" / "__init__.py").write_text(VLLM)
    directory = tmp_path / "files"
    directory.mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(directory))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return directory


@pytest.fixture
def make_child(stand_in):
    children = []

    def make(**options):
        children.append(VLLMChild(stand_in / "log", {}, VLLMOptions(**options)))
        return children[-1]

    yield make
    for child in children:
        child.close()


def processes(directory):
    """Processes whose temporary files are there, but for this one."""
    found = []
    for process in psutil.process_iter(["environ", "status"]):
        ours = (process.info["environ"] or {}).get("TMPDIR") == str(directory) and process.pid != os.getpid()
        if ours and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


def wait_for(condition, seconds):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "in vain"
        time.sleep(0.1)


@pytest.mark.slow
def test_a_start_that_is_stuck_ends_within_its_own_limit(stand_in, policy, tokenizer):
    options = VLLMOptions(start_seconds=6.0, arguments={"doing": "start"})
    engine = VLLMEngine(options=options)
    engine.start(tokenizer)
    begin = time.monotonic()
    with pytest.raises(
        RolloutError, match=r"^Raise the time limit .*not started again: .*6 s, which is `start_seconds`"
    ):
        engine.sync(policy, 0)
    assert time.monotonic() - begin < 30
    assert not processes(stand_in)
    assert not list(stand_in.iterdir())


@pytest.mark.parametrize(
    ("doing", "message"),
    [
        (
            "raise",
            r"^Set `data.engine` to `caopd.rollouts.TransformersEngine`.*not started again: ValueError: Model arch",
        ),
        (
            "crash",
            r"(?s)^Let vLLM take less memory: .*\(exit status 3\). Its last words:\ntorch.OutOfMemoryError: CUDA",
        ),
        ("be killed", r"^Let vLLM take less memory: .*\(killed by SIGKILL\)"),
    ],
)
def test_a_first_start_that_fails_is_not_repeated_and_says_why(stand_in, policy, tokenizer, caplog, doing, message):
    engine = VLLMEngine(options=VLLMOptions(arguments={"doing": doing}))
    engine.start(tokenizer)
    with pytest.raises(RolloutError, match=message):
        engine.sync(policy, 0)
    assert "started again;" not in caplog.text
    assert not processes(stand_in)
    assert not list(stand_in.iterdir())


def test_a_stopped_child_that_takes_no_long_request_is_noticed(make_child):
    """More than the pipe between the processes holds: the trainer must not wait for room in it."""
    child = make_child(timeout_seconds=2.0)
    child.call("start", "directory", {})
    os.kill(child.process_id, signal.SIGSTOP)
    begin = time.monotonic()
    with pytest.raises(EngineDiedError, match=r"2 s, which is `timeout_seconds`"):
        child.call("sample", [[1] * 1000] * 10_000, [])
    child.close()
    assert time.monotonic() - begin < 20
    assert not psutil.pid_exists(child.process_id)


def test_an_argument_that_cannot_be_sent_is_an_error(make_child):
    with pytest.raises(Exception, match="pickle") as caught:
        make_child().call("start", lambda: None, {})
    assert not isinstance(caught.value, CaopdError)


@pytest.fixture
def memory(tmp_path, monkeypatch):
    """A folder in place of the one in memory, which other runs of this machine use."""
    monkeypatch.setattr(files, "_IN_MEMORY", tmp_path / "memory")
    (tmp_path / "memory").mkdir()
    return tmp_path / "memory"


@pytest.fixture
def start_trainer(stand_in, tmp_path, memory):
    """Starts a process whose vLLM gets stuck at a given point, and returns it when that is reached."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])}
    started = []

    def start(doing):
        started.append(subprocess.Popen([sys.executable, "-c", TRAINER, memory, doing], env=environment))
        wait_for(lambda: any("time.sleep(600)" in process.cmdline()[-1] for process in processes(stand_in)), 60)
        return started[-1]

    yield start
    for trainer in started:
        trainer.kill()
        trainer.wait()


@pytest.mark.parametrize("doing", [pytest.param("start", marks=pytest.mark.slow), "take_policy"])
def test_a_killed_trainer_leaves_nothing_however_stuck_its_child_is(start_trainer, stand_in, memory, doing):
    trainer = start_trainer(doing)
    assert list(stand_in.glob("caopd-*_vllm-*"))
    assert bool(list(memory.glob("caopd-*_weights-*/*.safetensors"))) == (doing == "take_policy")
    trainer.kill()
    trainer.wait(10)
    wait_for(lambda: not processes(stand_in), 30)
    assert not list(stand_in.iterdir())
    assert not list(memory.iterdir())


def test_what_processes_leave_that_are_killed_together_the_next_run_removes(
    start_trainer, stand_in, memory, policy, tokenizer
):
    """As where a cluster kills a job: nobody is left to clean up. Another run of this user goes on meanwhile."""
    trainer = start_trainer("take_policy")
    for process in processes(stand_in):
        process.kill()
    trainer.wait(20)
    running = OwnedFolder(str(memory), "weights")
    left = {*stand_in.iterdir(), *memory.iterdir()}
    assert len(left) == 3, "the check below would find nothing"
    engine = VLLMEngine(options=VLLMOptions(arguments={"doing": "raise"}))
    engine.start(tokenizer)
    with pytest.raises(RolloutError, match="not started again"):
        engine.sync(policy, 0)
    assert {*stand_in.iterdir(), *memory.iterdir()} == {running.path}
    running.remove()
