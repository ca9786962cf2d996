"""What runs in the process that judges completions: it calls classes of the user's, one call after the other.

Nothing but the standard library is imported here; what the classes need comes with them.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from mmap import mmap
from multiprocessing.connection import Connection
from types import FrameType

SECONDS_BETWEEN_ANSWERS = 0.01
"""Answers of calls that are quicker than this are sent together."""
_PR_SET_PDEATHSIG = 1
"""Option of Linux's ``prctl``: the signal that this process gets when the one that started it ends."""


def serve(connection: Connection, progress: mmap) -> None:
    """Answer requests until the other side is gone.

    A request is ``(slot, part, method, calls)``. Where ``part`` is bytes, the pickled object is kept in the slot, which
    is one answer; where it is None, the method of the slot's object is called with the arguments of each call. Answers,
    ``(True, result)`` or ``(False, exception, traceback as text)``, are sent in lists: those of quick calls together.

    Args:
        connection: Where requests come from.
        progress: Shared memory of one integer: how many calls of the request have begun.
    """
    os.set_inheritable(connection.fileno(), False)  # else a process of the verifier's own would keep it open
    _ignore_signals()
    _end_with_parent()
    begun = memoryview(progress).cast("q")
    parts: dict[int, object] = {}
    while True:
        try:
            slot, part, method, calls = connection.recv()
            if part is not None:
                connection.send([_answer(partial(_keep, parts, slot), (part,))])
            answers, last = [], time.monotonic()
            for number, arguments in enumerate(calls, start=1):
                begun[0] = number
                answers.append(_answer(getattr(parts[slot], method), arguments))
                if number == len(calls) or time.monotonic() - last > SECONDS_BETWEEN_ANSWERS:
                    connection.send(answers)
                    answers, last = [], time.monotonic()
        except (EOFError, ConnectionError):
            return


def _keep(parts: dict[int, object], slot: int, copy: bytes) -> None:
    parts[slot] = pickle.loads(copy)


def _answer(function: Callable[..., object], arguments: tuple[object, ...]) -> bytes:
    try:
        return pickle.dumps((True, function(*arguments)))
    except Exception as error:
        own = traceback.TracebackException(type(error), error, error.__traceback__ and error.__traceback__.tb_next)
        return pickle.dumps((False, _portable(error), "".join(own.format())))


def _portable(error: Exception) -> Exception:
    """Return the exception, or one that says the same where it cannot travel to another process."""
    try:
        if str(pickle.loads(pickle.dumps(error))) == str(error):
            return error
    except Exception:  # whatever the exception's own methods raise
        pass
    return RuntimeError(f"{type(error).__name__}: {error}")


def _ignore_signals() -> None:
    """Outlive what is meant for the training process, which ends this one itself.

    SLURM sends its signals to every process of a job. A process that the verifier starts must still end by them, so
    that the verifier can end it: those that it executes have the default again, and the handler sees to forked ones.
    """
    own = os.getpid()

    def handle(number: int, frame: FrameType | None) -> None:
        if os.getpid() != own:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, handle)


def _end_with_parent() -> None:
    """Have the kernel end this process with its parent, whatever the verifier is doing at that moment."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
