"""What runs in the process that judges completions: it calls classes of the user's, one call after the other.

Nothing but the standard library is imported here; what the classes need comes with them.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import sys
import traceback
from multiprocessing.connection import Connection
from types import FrameType

_PR_SET_PDEATHSIG = 1
"""Option of Linux's ``prctl``: the signal that this process gets when the one that started it ends."""


def serve(connection: Connection) -> None:
    """Answer requests until the other side is gone.

    A request is ``(slot, part, method, arguments)``. Where ``part`` is bytes, the pickled object is kept in the slot
    and nothing is called; where it is None, the method of the slot's object is. An answer is ``(True, result)``, or
    ``(False, exception, traceback as text)``.

    Args:
        connection: Where requests come from.
    """
    os.set_inheritable(connection.fileno(), False)  # else a process of the verifier's own would keep it open
    _ignore_signals()
    _end_with_parent()
    parts: dict[int, object] = {}
    while True:
        try:
            request = connection.recv_bytes()
        except (EOFError, OSError):
            return
        try:
            connection.send_bytes(_answer(request, parts))
        except (BrokenPipeError, ConnectionResetError):
            return


def _answer(request: bytes, parts: dict[int, object]) -> bytes:
    try:
        slot, part, method, arguments = pickle.loads(request)
        if part is not None:
            parts[slot] = pickle.loads(part)
            return pickle.dumps((True, None))
        return pickle.dumps((True, getattr(parts[slot], method)(*arguments)))
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
