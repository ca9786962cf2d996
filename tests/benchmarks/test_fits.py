"""Runs are made once per setting, recorded at their end, and their failures are said."""

import contextlib
import json
import os
import shutil
import signal
import threading
import time
from functools import partial

import pytest

import fits
from fits import LAST, Run, RunFailedError, all_or_exit, finished, fit, hash_of, minutes_of, run_all, run_once

COUNT = """
import pathlib, sys
directory, run = map(pathlib.Path, sys.argv[1:3])
with (directory / "calls").open("a") as calls:
    calls.write("x")
run.mkdir()
(run / "metrics.json").write_text('{"initial": {"n": 1}, "final": {"n": 2}}')
"""


def counting(*more, **settings):
    return Run("counted", ("-c", COUNT, "{directory}", "{run}", *more), **settings)


def calls(directory):
    return len((directory / "calls").read_text())


def test_a_finished_run_is_read_and_not_made_again(tmp_path):
    first = run_once(counting(), tmp_path)
    assert first["final"] == {"n": 2}
    assert run_once(counting(), tmp_path) == first
    assert calls(tmp_path) == 1


def test_a_run_of_other_settings_is_made_again_and_replaces_the_record(tmp_path):
    run_once(counting(), tmp_path)
    other = counting("--more")
    assert finished(other, tmp_path) is None
    assert run_once(other, tmp_path)["fingerprint"] == other.fingerprint
    assert calls(tmp_path) == 2


def test_what_an_interrupted_run_has_left_does_not_count(tmp_path):
    (tmp_path / "counted").mkdir()
    (tmp_path / "counted" / "metrics.json").write_text('{"initial": {}, "final": {"n": 99}}')
    (tmp_path / "counted.json.part").write_text("{")
    assert run_once(counting(), tmp_path)["final"] == {"n": 2}


INTERRUPTED = """
import pathlib, sys
run = pathlib.Path(sys.argv[1])
run.mkdir(exist_ok=True)
with (run / "rounds").open("a") as rounds:
    rounds.write("x")
if len((run / "rounds").read_text()) < 2:
    sys.exit("interrupted")
(run / "metrics.json").write_text('{"initial": {}, "final": {"n": 2}}')
"""


def interrupted(directory, *more):
    run = Run("rounds", ("-c", INTERRUPTED, "{run}", *more))
    with pytest.raises(RunFailedError, match="interrupted"):
        run_once(run, directory)
    return run


def test_a_run_that_can_go_on_does_so_and_knows_no_time(tmp_path):
    run = interrupted(tmp_path, LAST)
    record = run_once(run, tmp_path)
    assert record["final"] == {"n": 2}
    assert record["cpu_seconds"] is record["seconds"] is None
    assert minutes_of(record["cpu_seconds"]) == "-"
    assert "interrupted" in (tmp_path / "rounds.log").read_text()


def test_a_run_that_cannot_go_on_starts_from_the_beginning(tmp_path):
    with pytest.raises(RunFailedError, match="interrupted"):
        run_once(interrupted(tmp_path), tmp_path)


def test_a_run_of_other_settings_does_not_go_on_from_an_interrupted_one(tmp_path):
    interrupted(tmp_path, LAST)
    other = Run("rounds", ("-c", INTERRUPTED, "{run}", LAST, "--more"))
    with pytest.raises(RunFailedError, match="interrupted"):
        run_once(other, tmp_path)


def test_the_fingerprint_changes_with_all_that_a_run_is_made_of(tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text("a: 1")
    runs = [counting(), counting("x"), counting(made_from="a"), counting(config=str(config))]
    fingerprints = [run.fingerprint for run in runs]
    config.write_text("a: 2")
    fingerprints.append(runs[-1].fingerprint)
    assert len(set(fingerprints)) == 5
    assert counting().fingerprint == fingerprints[0]


def test_a_fit_names_no_folder_of_this_machine():
    assert not any(os.sep == argument[0] for argument in fit("a", ["--x=1"]).arguments)


def test_a_failed_run_shows_the_end_of_its_log_and_leaves_no_record(tmp_path):
    run = Run("bad", ("-c", "import sys; print('line\\n' * 50, flush=True); sys.exit('the reason')"))
    with pytest.raises(RunFailedError, match="bad ended with status 1") as error:
        run_once(run, tmp_path)
    assert str(error.value).endswith("the reason")
    assert not (tmp_path / "bad.json").exists()


def test_a_run_without_a_result_is_a_failed_one(tmp_path):
    with pytest.raises(RunFailedError, match="left no result"):
        run_once(Run("empty", ("-c", "")), tmp_path)


def test_the_others_go_on_when_one_fails(tmp_path):
    jobs = [partial(run_once, Run("bad", ("-c", "1 / 0")), tmp_path), partial(run_once, counting(), tmp_path)]
    failure, record = run_all(jobs, processes=1)
    assert isinstance(failure, RunFailedError)
    assert record["final"] == {"n": 2}


def test_cpu_seconds_are_those_of_the_child_and_leave_out_its_sleep(tmp_path):
    work = "import time\nwhile time.process_time() < 0.5: pass\ntime.sleep(1)"
    record = run_once(Run("work", ("-c", work)), tmp_path, result=lambda folder: {})
    assert 0.5 <= record["cpu_seconds"] < record["seconds"]
    assert record["seconds"] >= 1.5


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_ends_the_running_and_starts_no_further_runs(tmp_path, sent, alone):
    pid = tmp_path / "pid"
    sleeper = f"import os, pathlib, time; pathlib.Path({str(pid)!r}).write_text(str(os.getpid())); time.sleep(600)"

    def interrupt():
        while not (pid.exists() and pid.read_text()):
            time.sleep(0.05)
        signal.pthread_kill(threading.main_thread().ident, sent)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored
    try:
        threading.Thread(target=interrupt, daemon=True).start()
        first, second = (partial(run_once, run, tmp_path) for run in (Run("sleeper", ("-c", sleeper)), counting()))
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            first() if alone else run_all([first, second], processes=1)
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended(int(pid.read_text()))
    assert not (tmp_path / "sleeper.json").exists()
    assert not (tmp_path / "calls").exists()


def ended(pid, seconds=60):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def test_a_record_is_whole_or_not_there(tmp_path):
    run_once(counting(), tmp_path)
    assert json.loads((tmp_path / "counted.json").read_text())["name"] == "counted"
    assert not list(tmp_path.glob("*.part"))


def test_a_hash_changes_with_every_file_but_compiled_ones(tmp_path):
    (tmp_path / "__pycache__").mkdir()
    found = [hash_of(tmp_path)]
    for name, content in (("a.py", "a = 1"), ("model.safetensors", "1"), ("model.safetensors", "2"), ("b.py", "")):
        (tmp_path / name).write_text(content)
        found.append(hash_of(tmp_path))
    (tmp_path / "b.py").rename(tmp_path / "c.py")
    found.append(hash_of(tmp_path))
    (tmp_path / "__pycache__" / "a.pyc").write_text("3")
    assert hash_of(tmp_path) == found[-1]
    assert len(set(found)) == 6


def test_the_package_and_its_model_are_part_of_the_fingerprint(monkeypatch):
    before = counting().fingerprint
    monkeypatch.setattr(fits, "package_hash", lambda: "that of another model")
    assert counting().fingerprint != before


def test_a_run_of_another_environment_has_its_interpreter_and_does_not_depend_on_the_package(monkeypatch, tmp_path):
    run = Run("other", ("said", "{run}"), python=shutil.which("echo"))
    before = run.fingerprint
    run_once(run, tmp_path, result=lambda folder: {})
    assert (tmp_path / "other.log").read_text() == f"said {tmp_path / 'other'}\n"
    monkeypatch.setattr(fits, "package_hash", lambda: "that of another package")
    assert run.fingerprint == before


def test_all_results_or_the_end_with_every_log():
    assert all_or_exit([{"a": 1}, {"b": 2}]) == [{"a": 1}, {"b": 2}]
    with pytest.raises(SystemExit, match=r"first\nsecond"):
        all_or_exit([RunFailedError("first"), {"a": 1}, RunFailedError("second")])
