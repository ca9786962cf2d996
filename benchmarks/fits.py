"""Runs that benchmarks compare: each in a process of its own, recorded at its end, and not made twice."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parent.parent
QUICKSTART = "configs/quickstart.yaml"
LAST = "--ckpt_path=last"
"""With it among its arguments, a run goes on where an earlier call of the same settings was interrupted."""
NUM_LOG_LINES = 15
"""Of a failed run's log, in its error."""
_RUNNING: set[subprocess.Popen] = set()


class RunFailedError(RuntimeError):
    """A run ended with an error, or without its result."""


@dataclass(frozen=True)
class Run:
    """A command whose result is kept.

    Attributes:
        name: Of its files.
        arguments: Of Python; ``{directory}`` stands for the folder of all runs, ``{run}`` for the run's own.
        config: The config file that the arguments name, relative to the repository; None without one.
        made_from: Fingerprint of another run that this one starts from.
        python: Another interpreter, in an environment without this package; its result does not depend on it.
    """

    name: str
    arguments: tuple[str, ...]
    config: str | None = None
    made_from: str = ""
    python: str | None = None

    @property
    def fingerprint(self) -> str:
        """Changes with the arguments, the config's text, what it is made from, and the package with its model."""
        text = (ROOT / self.config).read_text() if self.config else ""
        settings = ["" if self.python else package_hash(), text, self.made_from, *self.arguments]
        return hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:16]


@cache
def package_hash() -> str:
    """Return a hash of the package: its code, and the embedded model's weights."""
    return hash_of(ROOT / "caopd")


def hash_of(folder: Path) -> str:
    """Return a hash of the names and contents of a folder's files, compiled ones left out."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.relative_to(folder)}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def fit(name: str, options: Sequence[str], config: str = QUICKSTART, made_from: str = "") -> Run:
    """Return a run of ``caopd fit`` with some options."""
    arguments = ("-m", "caopd", "fit", "--config", config, "--trainer.enable_progress_bar=false", *options)
    return Run(name, (*arguments, "--trainer.default_root_dir={run}"), config, made_from)


def finished(run: Run, directory: Path) -> dict | None:
    """Return the record of a run that an earlier call has finished with the same settings."""
    file = directory / f"{run.name}.json"
    if not file.is_file():
        return None
    record = json.loads(file.read_text())
    return record if record.get("fingerprint") == run.fingerprint else None


def finished_or_error(run: Run, directory: Path, result: object = None) -> dict:
    """Return the record of a run that has finished; it is an error if there is none."""
    record = finished(run, directory)
    if record is None:
        raise RunFailedError(f"{run.name} has not been run with these settings")
    return record


def run_once(run: Run, directory: Path, result: Callable[[Path], dict] | None = None) -> dict:
    """Return a run's record; run it if there is none of the same settings.

    What an interrupted run has left is removed, unless it can go on from there (:data:`LAST`). The CPU seconds of a
    run that went on are None: those of its earlier parts are not known.

    Args:
        run: What to run.
        directory: Of all runs; holds NAME.json, NAME.log and NAME/ of each.
        result: Reads the run's own folder; by default the ``metrics.json`` of ``caopd fit``.

    Raises:
        RunFailedError: With the end of the log.
    """
    if (record := finished(run, directory)) is not None:
        return record
    folder, log = directory / run.name, directory / f"{run.name}.log"
    started = directory / f"{run.name}.started"
    goes_on = LAST in run.arguments and started.is_file() and started.read_text() == run.fingerprint
    if not goes_on:
        shutil.rmtree(folder, ignore_errors=True)
        log.unlink(missing_ok=True)
        started.write_text(run.fingerprint)
    places = {"{directory}": str(directory.resolve()), "{run}": str(folder.resolve())}
    arguments = [_filled(each, places) for each in run.arguments]
    seconds, cpu_seconds, status = _execute([run.python or sys.executable, *arguments], log)
    if status != 0:
        raise RunFailedError(f"{run.name} ended with status {status}; the end of {log}:\n{_tail(log)}")
    try:
        found = (result or fit_metrics)(folder)
    except (OSError, ValueError) as error:
        raise RunFailedError(f"{run.name} left no result ({error}); the end of {log}:\n{_tail(log)}") from error
    times = {"seconds": seconds, "cpu_seconds": cpu_seconds}
    measured = {name: None if goes_on else round(each, 1) for name, each in times.items()}
    record = {"name": run.name, "fingerprint": run.fingerprint, **measured, **found}
    unfinished = directory / f"{run.name}.json.part"
    unfinished.write_text(json.dumps(record, indent=2))
    unfinished.replace(directory / f"{run.name}.json")
    started.unlink()
    return record


def checkpoint_of(folder: Path) -> Path:
    """Return the last checkpoint of a run.

    Raises:
        RunFailedError: It has none.
    """
    found = sorted(folder.rglob("*.ckpt"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise RunFailedError(f"Expected a checkpoint below {folder}, but there is none.")
    return found[-1]


def fit_metrics(folder: Path) -> dict:
    """Return the metrics before and after training, of the one fit in a folder."""
    (metrics,) = folder.rglob("metrics.json")
    return json.loads(metrics.read_text())


def minutes_of(seconds: float | None) -> str:
    """Return seconds as minutes; a dash where they are not known."""
    return "-" if seconds is None else f"{seconds / 60:.1f}"


def run_all(jobs: Sequence[Callable[[], dict]], processes: int) -> list[dict | RunFailedError]:
    """Return what every job gives, some at a time.

    An interruption (Ctrl-C, SIGTERM) ends the running ones and starts no further ones.
    """
    pool = ThreadPoolExecutor(processes)
    with _exit_on_sigterm():
        try:
            futures = [pool.submit(_or_failure, job) for job in jobs]
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(_RUNNING):
                process.terminate()
            raise
        finally:
            pool.shutdown()


def all_or_exit(outcomes: Sequence[dict | RunFailedError]) -> list[dict]:
    """Return what all jobs gave; if any failed, end the program with their logs."""
    failures = [str(each) for each in outcomes if isinstance(each, RunFailedError)]
    if failures:
        sys.exit("\n".join(failures))
    return [each for each in outcomes if not isinstance(each, RunFailedError)]


def environment(processes: int) -> dict:
    """Return what a record says of the machine."""
    return {
        "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "processes": processes,
        "threads_per_process": 1,
        "versions": {name: version(name) for name in ("torch", "lightning", "transformers", "caopd")},
    }


def _execute(command: Sequence[str], log: Path) -> tuple[float, float, int]:
    """Run a command; return wall seconds, CPU seconds and exit status."""
    start = time.perf_counter()
    settings = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    with log.open("a") as output, _exit_on_sigterm():
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=settings, cwd=ROOT)
        _RUNNING.add(process)
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.terminate()
            raise
        finally:
            _RUNNING.discard(process)
    process.returncode = os.waitstatus_to_exitcode(status)
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime, process.returncode


@contextmanager
def _exit_on_sigterm() -> Iterator[None]:
    """Let SIGTERM raise SystemExit: by default a process would end at once, and its children would run on."""
    if threading.current_thread() is not threading.main_thread():  # the main thread has done it, and gets all signals
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _filled(argument: str, places: dict[str, str]) -> str:
    for name, value in places.items():
        argument = argument.replace(name, value)
    return argument


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-NUM_LOG_LINES:])


def _or_failure(job: Callable[[], dict]) -> dict | RunFailedError:
    try:
        return job()
    except RunFailedError as error:
        return error
