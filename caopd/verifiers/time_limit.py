"""Calls classes of the user's so that a call which does not return can be ended: in a process of their own."""

from __future__ import annotations

import mmap
import os
import pickle
import select
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from math import isfinite
from multiprocessing import Pipe
from tempfile import TemporaryFile
from typing import Any

from caopd.errors import CaopdError, ConfigError, UnansweredError, UserCodeError, name_of, user_code, user_error
from caopd.verifiers.worker import SECONDS_BETWEEN_ANSWERS

DEFAULT_SECONDS = 60.0
"""How long a verifier may take for one completion where the config does not say."""
_SECONDS_TO_LOAD = 300.0
"""How long importing a class and what it needs may take; it comes before the first call and is not part of it."""
_SECONDS_TO_END = 1.0
_NUM_SLOTS = 8
"""How many objects the process keeps at once: a task may make its verifier anew each time that it is asked for."""
_START = """
import mmap, os, sys
from multiprocessing.connection import Connection

connection, shared = Connection(int(sys.argv[1])), int(sys.argv[2])
sys.path[:] = connection.recv()
progress = mmap.mmap(shared, mmap.PAGESIZE)
os.close(shared)
from caopd.verifiers.worker import serve

serve(connection, progress)
"""
"""What the process runs: it takes over where modules are found before it imports any of them."""


class TimeLimit:
    """Calls methods of objects, such as verifiers, in one process that is ended when a call does not return.

    The process starts with the first call, and anew after it was ended. It has a session of its own, so that Ctrl-C
    does not reach it, and it is ended with all that it has started; it also ends with this process, however that ends.
    What is called prints where this process prints. An object is copied into the process when it is first called.

    Args:
        seconds: How long a call may take; None calls everything in this process, without a limit.

    Raises:
        ConfigError: ``seconds`` is not a positive number.
    """

    def __init__(self, seconds: float | None = None) -> None:
        if seconds is not None and not (isfinite(seconds) and seconds > 0):
            raise ConfigError(
                f"Expected `verifier_timeout_seconds` to be above 0, or null for no limit, but got {seconds}."
            )
        self.seconds = seconds
        self._worker: _Worker | None = None
        self._slots: dict[int, object] = {}
        self._num_loaded = 0
        self._unmovable: list[object] = []

    def call(self, part: object, method: str, arguments: Sequence[object], where: str) -> Any:  # noqa: ANN401
        """Call a method of an object and return its result; arguments and errors as in :meth:`each`, which are raised.

        Args:
            part: The object.
            method: Name of the method.
            arguments: Arguments of the method.
            where: What the object is asked about.
        """
        (answer,) = self.each(part, method, [(arguments, where)])
        if isinstance(answer, CaopdError):
            raise answer
        return answer

    def each(self, part: object, method: str, calls: Sequence[tuple[Sequence[object], str]]) -> list[Any]:
        """Call a method of an object several times, and return the result of every call, or the error that it ended in.

        Such an error is an ``UnansweredError`` where the call did not return within its time or ended the process, a
        ``UserCodeError`` where it raised, with its traceback, and any ``CaopdError`` that it raised on purpose.

        Args:
            part: The object; one that cannot be copied into another process is called in this one, with a warning.
            method: Name of the method.
            calls: The arguments of each call, and what the object is asked about, as errors name it: ``example '17'``.

        Raises:
            UserCodeError: The module of the object's class cannot be imported there.
        """
        answers: dict[int, Any] = {}
        while left := [number for number in range(len(calls)) if number not in answers]:
            slot = None if self.seconds is None else self._slot(part)
            some = [calls[number] for number in left]
            found = _here(part, method, some) if slot is None else self._there(slot, part, method, some)
            answers.update({left[number]: answer for number, answer in found.items()})
        return [answers[number] for number in range(len(calls))]

    def _there(
        self, slot: int, part: object, method: str, calls: Sequence[tuple[Sequence[object], str]]
    ) -> dict[int, Any]:
        """Return the answers of the process by the number of the call; where it had to be ended, some are missing."""
        assert self._worker is not None
        assert self.seconds is not None
        answers: dict[int, Any] = {}
        try:
            self._worker.send((slot, None, method, [tuple(arguments) for arguments, _ in calls]))
            while len(answers) < len(calls):
                for answer in self._worker.receive(self.seconds + SECONDS_BETWEEN_ANSWERS):
                    answers[len(answers)] = _result(part, calls[len(answers)][1], *answer)
        except (TimeoutError, EOFError) as ended:
            number = max(self._worker.num_begun - 1, len(answers))
            answers[number] = UnansweredError(
                f"Expected {name_of(part)} to deal with {calls[number][1]} within {self.seconds:g} s "
                f"(`verifier_timeout_seconds`), but {ended}: there is no verdict, and the completion is left out. "
                "Correct the class, or give it the time and the memory that it needs."
            )
        return answers

    def close(self) -> None:
        """End the process; the next call starts another one."""
        if self._worker is not None:
            self._worker.end()
        self._worker, self._slots = None, {}

    def _slot(self, part: object) -> int | None:
        """Return where the process keeps a copy of the object, None where it cannot have one."""
        if any(part is other for other in self._unmovable):
            return None
        if self._worker is not None and not self._worker.is_alive:
            self.close()
        known = next((slot for slot, other in self._slots.items() if other is part), None)
        if known is not None:
            return known
        slot = self._num_loaded % _NUM_SLOTS
        try:
            self._load(slot, part)
        except CaopdError:
            raise
        except Exception as error:  # whatever the methods raise by which an object is copied
            self._unmovable = [*self._unmovable[1 - _NUM_SLOTS :], part]
            warnings.warn(
                f"{name_of(part)} cannot be called in a process of its own ({type(error).__name__}: {error}), so it "
                "is called in this one and `verifier_timeout_seconds` does not apply: if it does not return, nothing "
                "goes on. Define it in a module that can be imported, without lambdas and open files.",
                stacklevel=2,
            )
            return None
        self._slots[slot] = part
        self._num_loaded += 1
        return slot

    def _load(self, slot: int, part: object) -> None:
        """Copy an object into the process, which is started if there is none.

        Raises:
            UserCodeError: Importing its class does not end, or ends the process.
        """
        copy = pickle.dumps(part)
        self._worker = self._worker or _Worker()
        try:
            self._worker.send((slot, copy, "", ()))
            ((is_loaded, error, *_),) = self._worker.receive(_SECONDS_TO_LOAD)
        except (TimeoutError, EOFError) as ended:
            raise UserCodeError(
                f"Expected the module of {name_of(part)} to be imported within {_SECONDS_TO_LOAD:.0f} s, in a process "
                f"of its own, but {ended}. Correct what the module does when it is imported."
            ) from ended
        if not is_loaded:
            raise error


def _here(part: object, method: str, calls: Sequence[tuple[Sequence[object], str]]) -> dict[int, Any]:
    """Return the answers of calls that are made in this process, by the number of the call."""
    answers: dict[int, Any] = {}
    for number, (arguments, where) in enumerate(calls):
        try:
            with user_code(part, where):
                answers[number] = getattr(part, method)(*arguments)
        except CaopdError as error:
            answers[number] = error
    return answers


def _result(part: object, where: str, is_result: bool, answer: Any, own_traceback: str = "") -> Any:  # noqa: ANN401
    """Return what the process answered: a result, or an error that names the object."""
    if is_result or isinstance(answer, CaopdError):
        return answer
    answer.add_note(f"In the process that called it:\n{own_traceback}")  # for who calls this from Python
    error = user_error(part, where, answer, own_traceback)
    error.__cause__ = answer
    return error


class _Worker:
    """A process that answers one request after the other."""

    def __init__(self) -> None:
        self._connection, theirs = Pipe()
        with TemporaryFile() as shared:
            shared.truncate(mmap.PAGESIZE)
            self._progress = mmap.mmap(shared.fileno(), mmap.PAGESIZE)
            files = theirs.fileno(), shared.fileno()
            self._process = subprocess.Popen(
                [sys.executable, "-u", "-c", _START, *map(str, files)],
                stdin=subprocess.DEVNULL,
                pass_fds=files,
                start_new_session=True,
            )
        theirs.close()
        self._connection.send(sys.path)
        self._arrived = select.poll()
        self._arrived.register(self._connection, select.POLLIN)

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def send(self, request: tuple[object, ...]) -> None:
        self._progress[:8] = bytes(8)
        with self._ended_unless_it_goes_on():
            self._connection.send(request)

    @property
    def num_begun(self) -> int:
        """How many calls of the last request have begun."""
        return int.from_bytes(self._progress[:8], sys.byteorder)

    def receive(self, seconds: float) -> list[tuple[Any, ...]]:
        """Return the next answers.

        Raises:
            TimeoutError: There was none in time; the process is ended.
            EOFError: The process ended; the message says how.
        """
        with self._ended_unless_it_goes_on():
            if not self._arrived.poll(seconds * 1000):
                raise TimeoutError("it did not return")
            return [pickle.loads(answer) for answer in self._connection.recv()]

    @contextmanager
    def _ended_unless_it_goes_on(self) -> Iterator[None]:
        try:
            yield
        except (EOFError, ConnectionError) as error:
            raise EOFError(f"the process ended by itself ({self.end()})") from error
        except BaseException:  # Ctrl-C too: a late answer would be taken for that of the next call
            self.end(at_once=True)
            raise

    def end(self, at_once: bool = False) -> str:
        """End the process with all that it has started; return how it ended."""
        self._connection.close()  # one that is not busy ends by itself, as after its last line
        if not at_once:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_SECONDS_TO_END)
        with suppress(ProcessLookupError):  # no process is left
            os.killpg(self._process.pid, signal.SIGKILL)
        code = self._process.wait()
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
