"""Calls classes of the user's so that a call which does not return can be ended: in a process of their own."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from math import isfinite
from multiprocessing import Pipe
from typing import Any

from caopd.errors import CaopdError, ConfigError, UnansweredError, UserCodeError, name_of, user_code, user_error

DEFAULT_SECONDS = 60.0
"""How long a verifier may take for one completion where the config does not say."""
_SECONDS_TO_LOAD = 300.0
"""How long importing a class and what it needs may take; it comes before the first call and is not part of it."""
_SECONDS_TO_END = 1.0
_NUM_SLOTS = 8
"""How many objects the process keeps at once: a task may make its verifier anew each time that it is asked for."""
_START = (
    "import sys; from multiprocessing.connection import Connection; connection = Connection(int(sys.argv[1])); "
    "sys.path[:] = connection.recv(); from caopd.verifiers.worker import serve; serve(connection)"
)


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
        """Call a method of an object and return its result.

        Args:
            part: The object; one that cannot be copied into another process is called in this one, with a warning.
            method: Name of the method.
            arguments: Arguments of the method.
            where: What the object is asked about, as errors name it, such as ``example '17'``.

        Raises:
            UserCodeError: The method raised, and its traceback is with the cause; or the class cannot be imported.
            UnansweredError: It did not return within its time, or ended the process.
        """
        slot = None if self.seconds is None else self._slot(part)
        if slot is None or self.seconds is None:
            with user_code(part, where):
                return getattr(part, method)(*arguments)
        try:
            is_result, answer, *text = self._ask((slot, None, method, tuple(arguments)), self.seconds)
        except (TimeoutError, EOFError) as ended:
            raise UnansweredError(
                f"Expected {name_of(part)} to deal with {where} within {self.seconds:g} s "
                f"(`verifier_timeout_seconds`), but {ended}: there is no verdict, and the completion is left out. "
                "Correct the class, or give it the time and the memory that it needs."
            ) from ended
        if is_result:
            return answer
        if isinstance(answer, CaopdError):
            raise answer
        answer.add_note(f"In the process that called it:\n{text[0]}")  # for who calls this from Python
        raise user_error(part, where, answer, text[0]) from answer

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
            is_loaded, error, *_ = self._ask((slot, copy, "", ()), _SECONDS_TO_LOAD)
        except (TimeoutError, EOFError) as ended:
            raise UserCodeError(
                f"Expected the module of {name_of(part)} to be imported within {_SECONDS_TO_LOAD:.0f} s, in a process "
                f"of its own, but {ended}. Correct what the module does when it is imported."
            ) from ended
        if not is_loaded:
            raise error

    def _ask(self, request: tuple[object, ...], seconds: float) -> tuple[Any, ...]:
        """Return the process's answer.

        Raises:
            TimeoutError: There was none in time; the process is ended.
            EOFError: The process ended; the message says how.
        """
        assert self._worker is not None
        try:
            return self._worker.ask(request, seconds)
        except (EOFError, ConnectionError) as error:
            how = self._worker.end()
            raise EOFError(f"the process ended by itself ({how})") from error
        except BaseException:  # Ctrl-C too: a late answer would be taken for that of the next call
            self._worker.end(at_once=True)
            raise


class _Worker:
    """A process that answers one request after the other."""

    def __init__(self) -> None:
        self._connection, theirs = Pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-u", "-c", _START, str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
        theirs.close()
        self._connection.send(sys.path)

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, request: tuple[object, ...], seconds: float) -> tuple[Any, ...]:
        self._connection.send(request)
        if not self._connection.poll(seconds):
            raise TimeoutError("it did not return")
        answer: tuple[Any, ...] = self._connection.recv()
        return answer

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
