"""vLLM as a child process of ``caopd fit``: what happens when it dies, and what is left when the run ends."""

import copy
import signal
import tempfile
import threading
from pathlib import Path

import psutil
import pytest

from caopd.errors import RolloutError
from caopd.rollouts import RolloutRequest, Sampling, VLLMEngine, VLLMOptions
from tests.needs import needs_vllm

pytestmark = needs_vllm

LONG = Sampling(temperature=1.0, max_new_tokens=400)
NEVER_STOPS = (1,)
"""The unknown token: completions go on to the length limit, and there is time to kill."""


def traces(directory):
    """Files of vLLM and of ours that a run could leave behind."""
    return {path for folder in (directory, Path("/dev/shm")) for path in folder.glob("*") if is_ours(path.name)}


def is_ours(name):
    return "caopd" in name or "psm_" in name


def engine_processes():
    """The child that holds vLLM and what it has started."""
    children = [child for child in psutil.Process().children() if "caopd.vllm_host" in child.cmdline()]
    return [process for child in children for process in (child, *child.children(recursive=True))]


@pytest.fixture(scope="module")
def engine(tokenizer, tmp_path_factory):
    """An engine with a child of its own, which finds no compiler and nothing that was compiled before."""
    directory = tmp_path_factory.mktemp("files")
    left = traces(directory)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXX", "/no/compiler")
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(directory / "compiled"))
        patch.setattr(tempfile, "tempdir", str(directory))
        engine = VLLMEngine(options=VLLMOptions(kv_cache_gib=0.25))
        engine.start(tokenizer)
        yield engine
        engine.close()
    assert not engine_processes()
    assert traces(directory) <= left


@pytest.fixture
def start(engine, policy):
    """Gives the engine with a number of restarts left and a policy whose completions go on to the length limit."""
    talker = copy.deepcopy(policy)
    talker.stop_token_ids = NEVER_STOPS

    def make(restarts_left):
        engine._restarts_left = 1  # the test before may have killed it
        engine.sync(talker, 3)
        engine.generate([RolloutRequest((5, 6, 7), 0)], 1, Sampling(max_new_tokens=1))
        assert traces(Path(tempfile.gettempdir())), "the check of what is left would find nothing"
        engine._restarts_left = restarts_left
        return engine

    return make


def test_an_engine_that_is_killed_while_it_samples_samples_the_same_again(start):
    engine = start(restarts_left=1)
    requests = [RolloutRequest((5, 6, 7 + n), n) for n in range(16)]
    expected = engine.generate(requests, 4, LONG)
    killer = threading.Timer(0.2, engine_processes()[0].kill)
    killer.start()
    groups = engine.generate(requests, 4, LONG)
    killer.join()
    assert engine._restarts_left == 0, "it was not killed while it sampled"
    assert [[r.token_ids for r in group] for group in groups] == [[r.token_ids for r in group] for group in expected]
    assert {r.policy_version for group in groups for r in group} == {3}


@pytest.mark.slow
def test_an_engine_that_is_stuck_is_ended_and_started_again(start):
    """A stopped process answers nothing; within the limit it is taken for stuck."""
    engine = start(restarts_left=1)
    engine._backend._child._options = VLLMOptions(timeout_seconds=3.0)
    stuck = engine_processes()[0]
    stuck.suspend()
    groups = engine.generate([RolloutRequest((5, 6, 7), 0)], 2, Sampling(max_new_tokens=4))
    assert len(groups[0]) == 2
    assert not stuck.is_running() or stuck.status() == psutil.STATUS_ZOMBIE
    assert engine._restarts_left == 0


@pytest.mark.slow
def test_an_interrupted_call_is_not_answered_by_the_next(start):
    """After Ctrl-C in a notebook, the old answer must not be taken for the new one's."""
    engine = start(restarts_left=1)
    first, second = (RolloutRequest((5, 6, 7), 0), RolloutRequest((8, 9, 10), 1))
    expected = engine.generate([second], 2, LONG)
    timer = threading.Timer(0.3, signal.raise_signal, [signal.SIGINT])
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        engine.generate([first] * 64, 8, LONG)
    signal.signal(signal.SIGINT, handler)
    again = engine.generate([second], 2, LONG)
    assert [r.token_ids for r in again[0]] == [r.token_ids for r in expected[0]]


def test_an_engine_that_dies_too_often_ends_in_an_error(start):
    engine = start(restarts_left=0)
    engine_processes()[0].kill()
    with pytest.raises(
        RolloutError, match=r"^Let vLLM take less memory: .* checkpoint is intact.*ended 3 times.*killed by SIGKILL"
    ):
        engine.generate([RolloutRequest((5, 6, 7), 0)], 4, LONG)


@pytest.mark.slow
def test_weights_do_not_outlive_a_child_that_is_killed_while_it_reads_them(start, policy):
    """It is stopped, so that they lie in memory, and killed then: another one gets them."""
    engine = start(restarts_left=1)
    child = engine_processes()[0]
    child.suspend()
    threading.Timer(2.0, child.kill).start()
    before = traces(Path("/dev/shm"))
    engine.sync(policy, 4)
    assert engine._restarts_left == 0, "it was not killed"
    assert {path for path in traces(Path("/dev/shm")) - before if "weights" in path.name} == set()
    (group,) = engine.generate([RolloutRequest((5, 6, 7), 0)], 2, Sampling(max_new_tokens=4))
    assert {rollout.policy_version for rollout in group} == {4}
