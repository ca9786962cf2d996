"""Calls that do not return, do not come back, or cannot be made in another process. The oracle is the clock."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from caopd.confidence import InlineConfidence
from caopd.errors import ConfigError, DataError, UnansweredError, UserCodeError
from caopd.methods.rewards import Correctness
from caopd.types import (
    AnswerOutcome,
    ConfidenceOutcome,
    ConfidenceReading,
    Example,
    Rollout,
    StopReason,
    Verdict,
    VerifiedRollout,
)
from caopd.verifiers import ExactMatch, MultipleChoice, ToolCalls
from caopd.verifiers.time_limit import TimeLimit
from caopd.verifiers.verification import Verification

OWN = """
import ctypes, os, signal, subprocess, sys, threading, time

from caopd.types import AnswerOutcome, Verdict


class Own:
    def __init__(self, what="right"):
        self.what = what
        self.calls = 0

    def verify(self, text, target):
        self.calls += 1
        return getattr(self, text if hasattr(self, text) else self.what)(text)

    def right(self, text):
        return Verdict(True, str(self.calls), AnswerOutcome.PARSED)

    def pid(self, text):
        return Verdict(True, str(os.getpid()), AnswerOutcome.PARSED)

    def torch(self, text):
        return Verdict("torch" in sys.modules, None, AnswerOutcome.PARSED)

    def main_thread(self, text):
        return Verdict(threading.current_thread() is threading.main_thread(), None, AnswerOutcome.PARSED)

    def loops(self, text):
        while True:
            pass

    def holds_the_gil(self, text):
        ctypes.PyDLL(None).sleep(1000)

    def ignores_sigterm(self, text):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        time.sleep(1000)

    def waits_for_a_child(self, text):
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
        open(os.environ["CHILD"], "w").write(str(child.pid))
        child.wait()

    def terminates_a_child(self, text):
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
        child.terminate()
        return Verdict(child.wait() == -signal.SIGTERM, None, AnswerOutcome.PARSED)

    def terminates_a_fork(self, text):
        child = os.fork()
        if child == 0:
            while True:
                time.sleep(0.01)
        time.sleep(0.2)
        os.kill(child, signal.SIGTERM)
        return Verdict(os.waitpid(child, 0)[1] == signal.SIGTERM, None, AnswerOutcome.PARSED)

    def sleeps(self, text):
        time.sleep(0.4)
        return self.right(text)

    def exits(self, text):
        os._exit(3)

    def crashes(self, text):
        ctypes.string_at(0)

    def prints(self, text):
        print("said by the verifier")
        print("complained by the verifier", file=sys.stderr)
        return self.right(text)

    def raises(self, text):
        raise Stubborn("one", "two")

    def raises_a_known_error(self, text):
        raise KeyError("answers")


class Stubborn(Exception):
    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")


class Unpicklable(Own):
    def __init__(self):
        super().__init__()
        self.close = lambda: None
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A module of verifiers that misbehave; the text says how."""
    (tmp_path / "own_verifiers_of_limits.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("own_verifiers_of_limits", None)
    import own_verifiers_of_limits

    return own_verifiers_of_limits


@pytest.fixture
def limit():
    made = TimeLimit(0.5)
    yield made
    made.close()


def verify(limit, verifier, text, target=""):
    return limit.call(verifier, "verify", (text, target), "example 'sum-7'")


def is_running(pid):
    """Whether a process is there and has not ended, as the kernel says."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def ends_within(pid, seconds):
    end = time.monotonic() + seconds
    while is_running(pid) and time.monotonic() < end:
        time.sleep(0.02)
    return not is_running(pid)


@pytest.mark.parametrize("how", ["loops", "holds_the_gil", "ignores_sigterm"])
def test_a_call_that_does_not_return_is_ended_and_the_next_one_is_answered(limit, own, how):
    verifier = own.Own()
    process = int(verify(limit, verifier, "pid").answer)
    start = time.monotonic()
    with pytest.raises(UnansweredError, match=r"own_verifiers_of_limits\.Own .*'sum-7' within 0\.5 s .*not return"):
        verify(limit, verifier, how)
    assert 0.5 <= time.monotonic() - start < 10
    assert not is_running(process)
    assert verify(limit, verifier, "fine").correct


@pytest.mark.parametrize(
    ("how", "error"), [("loops", UnansweredError), ("exits", UnansweredError), ("raises_a_known_error", UserCodeError)]
)
def test_of_many_calls_that_are_made_at_once_only_the_one_that_ends_badly_is_lost(limit, own, how, error):
    """Answers that came before it, and were not sent yet, are asked for again."""
    texts = ["fine"] * 30 + [how] + ["fine"] * 5 + [how] + ["fine"]
    answers = limit.each(own.Own(), "verify", [((text, ""), f"call {n}") for n, text in enumerate(texts)])
    assert len(answers) == len(texts)
    for number, (text, answer) in enumerate(zip(texts, answers, strict=True)):
        if text == how:
            assert isinstance(answer, error)
            assert f"call {number}" in str(answer)
        else:
            assert answer.correct
    assert limit.each(own.Own(), "verify", []) == []


def test_slow_calls_have_the_whole_time_each(own):
    slow = TimeLimit(1.0)
    answers = slow.each(own.Own(), "verify", [(("sleeps", ""), "x")] * 5)
    assert [answer.correct for answer in answers] == [True] * 5
    slow.close()


def test_what_the_verifier_started_is_ended_with_it(limit, own, tmp_path, monkeypatch):
    monkeypatch.setenv("CHILD", str(tmp_path / "child"))
    slower = TimeLimit(3)
    with pytest.raises(UnansweredError):
        verify(slower, own.Own(), "waits_for_a_child")
    assert ends_within(int((tmp_path / "child").read_text()), 5)
    slower.close()


@pytest.mark.parametrize(("how", "ending"), [("exits", "exit status 3"), ("crashes", "signal SIGSEGV")])
def test_a_call_that_ends_its_process_says_how(limit, own, how, ending):
    verifier = own.Own()
    with pytest.raises(UnansweredError, match=rf"Own .*'sum-7'.*the process ended by itself \({ending}\)"):
        verify(limit, verifier, how)
    assert verify(limit, verifier, "fine").correct


def test_a_process_that_is_killed_between_calls_is_replaced(limit, own):
    verifier = own.Own()
    process = int(verify(limit, verifier, "pid").answer)
    os.kill(process, signal.SIGKILL)
    assert ends_within(process, 5)
    assert int(verify(limit, verifier, "pid").answer) != process


def test_signals_of_a_batch_system_do_not_end_it_but_what_it_starts_can_be_ended(own):
    limit, verifier = TimeLimit(30), own.Own()
    process = int(verify(limit, verifier, "pid").answer)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
        os.kill(process, number)
    assert int(verify(limit, verifier, "pid").answer) == process
    assert verify(limit, verifier, "terminates_a_child").correct
    assert verify(limit, verifier, "terminates_a_fork").correct
    limit.close()
    assert not is_running(process)


def test_errors_keep_their_class_and_their_traceback(limit, own):
    with pytest.raises(UserCodeError, match=r"Own .*'sum-7'.*KeyError: 'answers'") as caught:
        verify(limit, own.Own(), "raises_a_known_error")
    assert isinstance(caught.value.__cause__, KeyError)
    for text in (caught.value.own_traceback, *caught.value.__cause__.__notes__):
        assert 'raise KeyError("answers")' in text
        assert "own_verifiers_of_limits.py" in text
        assert "worker.py" not in text
    with pytest.raises(UserCodeError, match="Stubborn: one and two"):  # an exception that cannot be copied
        verify(limit, own.Own(), "raises")
    with pytest.raises(DataError, match="'zz'"):
        verify(limit, MultipleChoice(), "text", "zz")


def test_what_it_prints_reaches_the_user(limit, own, capfd):
    verify(limit, own.Own(), "prints")
    shown = capfd.readouterr()
    assert "said by the verifier" in shown.out
    assert "complained by the verifier" in shown.err


def test_it_runs_in_the_main_thread_of_one_light_process_and_keeps_its_state(limit, own):
    verifier = own.Own()
    assert {verify(limit, verifier, "pid").answer for _ in range(3)} != {str(os.getpid())}
    assert verify(limit, verifier, "main_thread").correct  # a verifier may use signals of its own
    assert not verify(limit, verifier, "torch").correct
    assert verify(limit, verifier, "fine").answer == "6"
    assert verifier.calls == 0


def test_a_verifier_that_is_made_anew_each_time_does_not_fill_the_process(limit, own):
    for _ in range(40):
        assert verify(limit, own.Own(), "fine").answer == "1"
    assert len(limit._slots) <= 8


def test_what_cannot_be_copied_is_called_here_with_a_warning(limit, own):
    verifier = own.Unpicklable()
    with pytest.warns(UserWarning, match=r"Unpicklable cannot be called in a process of its own .*Define it in a mod"):
        assert verify(limit, verifier, "pid").answer == str(os.getpid())
    assert verify(limit, verifier, "pid").answer == str(os.getpid())  # said once


def test_without_a_limit_all_is_called_here(own):
    assert verify(TimeLimit(None), own.Own(), "pid").answer == str(os.getpid())
    with pytest.raises(UserCodeError, match="KeyError"):
        verify(TimeLimit(None), own.Own(), "raises_a_known_error")


@pytest.mark.parametrize("seconds", [0, -1.0, float("nan"), float("inf")])
def test_a_limit_that_cannot_be(seconds):
    with pytest.raises(ConfigError, match=r"verifier_timeout_seconds.*above 0, or null"):
        TimeLimit(seconds)


SCRIPT = """
import os, signal, sys
from caopd.types import AnswerOutcome, Verdict
from caopd.verifiers.time_limit import TimeLimit

class Here:
    def verify(self, text, target):
        return Verdict(True, str(os.getpid()), AnswerOutcome.PARSED)

limit = TimeLimit(1000)
assert limit.call(Here(), "verify", ("", ""), "x").answer == str(os.getpid())

import own_verifiers_of_limits
verifier = own_verifiers_of_limits.Own()
print(limit.call(verifier, "verify", ("pid", ""), "x").answer, flush=True)
limit.call(verifier, "verify", ("holds_the_gil", ""), "x")
"""


def test_a_script_may_hold_its_verifier_and_nothing_outlives_a_killed_one(own, tmp_path):
    """The script has no guard of ``__main__``: it is not run a second time."""
    (tmp_path / "script.py").write_text(textwrap.dedent(SCRIPT))
    with subprocess.Popen(
        [sys.executable, tmp_path / "script.py"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as script:
        process = int(script.stdout.readline())
        time.sleep(0.5)
        assert is_running(process)
        script.kill()
        assert "Here cannot be called in a process of its own" in script.stderr.read()
    assert ends_within(process, 5)


def test_ctrl_c_during_a_call_leaves_no_late_answer(own):
    limit, verifier = TimeLimit(30), own.Own()
    process = int(verify(limit, verifier, "pid").answer)
    signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    with pytest.raises(KeyboardInterrupt):
        verify(limit, verifier, "loops")
    assert not is_running(process)
    assert verify(limit, verifier, "fine").correct
    limit.close()


@pytest.mark.parametrize("text", ["6", "", "<answer>B</answer>", "Action: a\nAction Input: {}", "\ud800"])
@pytest.mark.parametrize(
    ("verifier", "target"),
    [(ExactMatch(), "6"), (MultipleChoice(), "B"), (ToolCalls(), '[{"Action": "a", "Action_Input": {}}]')],
)
def test_verdicts_are_those_of_a_direct_call(limit, verifier, target, text):
    assert verify(limit, verifier, text, target) == verifier.verify(text, target)


def test_a_reward_is_called_like_a_verifier(limit):
    rollout = Rollout((5, 6), "B", StopReason.EOS, (-1.0, -0.1), 0)
    reading = ConfidenceReading(None, None, ConfidenceOutcome.MISSING)
    verified = VerifiedRollout(rollout, Verdict(True, "B", AnswerOutcome.PARSED), reading)
    assert limit.call(Correctness(), "__call__", (Example("1", "Q", "B"), verified), "x") == 1.0


def test_a_completion_whose_verifier_is_ended_has_a_reading_and_no_verdict(limit, own):
    rollout = Rollout((1,), "loops\nConfidence: 0.90", StopReason.EOS, (-1.0,), 0)
    with pytest.warns(UserWarning, match=r"Own .*example 'sum-7' within 0\.5 s.*no verdict"):
        verified = Verification(own.Own(), InlineConfidence(), limit)(rollout, Example("sum-7", "Q", "6"))
    assert verified.verdict is None
    assert verified.reading.value == 0.9
