"""Runs a vLLM in a process of its own and watches it while it works."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

from caopd.errors import EngineDiedError

_OF_THE_TRAINER = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT")
"""Environment variables by which the trainer's processes find each other; vLLM's processes must not see them."""
_SECONDS_TO_END = 15.0
_WATCH_SECONDS = 0.5


class VLLMChild:
    """Calls the methods of a ``VLLMHost`` in a child process.

    The child has a session of its own: Ctrl-C does not reach it, and it is ended with all its descendants. It ends by
    itself when this process ends, however that happens.

    Args:
        log: File that receives what the child prints.
        environment: Environment variables to set for the child.
        timeout_seconds: Longest time that a call may take; after it the child counts as stuck.
    """

    def __init__(self, log: Path, environment: Mapping[str, str], timeout_seconds: float) -> None:
        self._log = log
        self._timeout_seconds = timeout_seconds
        self._busy = False
        self._connection, theirs = Pipe()
        inherited = {name: value for name, value in os.environ.items() if name not in _OF_THE_TRAINER}
        with log.open("w") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "caopd.vllm_host", str(theirs.fileno())],
                env={**inherited, **environment, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        theirs.close()

    def call(self, method: str, *arguments: object) -> Any:  # noqa: ANN401 (whatever the method returns)
        """Call a method of the host and return its result.

        Args:
            method: Name of the method.
            arguments: Arguments of the method, picklable.

        Raises:
            CaopdError: The method raised it.
            EngineDiedError: The child has ended, is stuck, or has not answered an earlier, interrupted call.
        """
        if self._busy:
            raise EngineDiedError("A call of vLLM was interrupted, and its answer is not this one's.")
        end = time.monotonic() + self._timeout_seconds
        try:
            self._busy = True
            self._connection.send((method, arguments))
            while not self._connection.poll(_WATCH_SECONDS):
                if self._process.poll() is not None:
                    raise EOFError
                if time.monotonic() > end:
                    raise EngineDiedError(
                        f"vLLM did not answer `{method}` within {self._timeout_seconds:.0f} s (`timeout_seconds` of "
                        "the engine's options)."
                    )
            result, error = self._connection.recv()
            self._busy = False
        except (EOFError, OSError) as ended:
            raise EngineDiedError(self._last_words()) from ended
        if error is not None:
            raise error
        return result

    def close(self) -> None:
        """End the child and its descendants: ask it to end if it waits for a call, else end it at once."""
        if self._process.poll() is None and not self._busy:
            with suppress(OSError, subprocess.TimeoutExpired):
                self._connection.send(("close", ()))
                self._process.wait(_SECONDS_TO_END)
        self._connection.close()
        with suppress(ProcessLookupError):  # no process is left
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _last_words(self) -> str:
        try:
            code: int | str = self._process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            code = "unknown"
        lines = deque(self._log.open(errors="replace"), maxlen=6)
        return f"vLLM's process has ended (exit status {code}). Its last words:\n{''.join(lines)}"
