"""Runs a vLLM in a process of its own and watches it while it works."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing import Pipe
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

from caopd.errors import EngineDiedError
from caopd.rollouts.vllm.guard import python_path
from caopd.rollouts.vllm.options import VLLMOptions
from caopd.rollouts.vllm.words import last_words
from caopd.vllm_host.guard import end_group
from caopd.vllm_host.host import Progress

_OF_THE_TRAINER = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT")
"""Environment variables by which the trainer's processes find each other; vLLM's processes must not see them."""
_SECONDS_TO_END = 15.0
_WATCH_SECONDS = 0.5
Answer = Progress | tuple[Any, Exception | None]


class VLLMChild:
    """Calls the methods of a ``VLLMHost`` in a child process.

    The child has a session of its own: Ctrl-C does not reach it, and it is ended with all its descendants. Where this
    process is killed, the child ends by itself, unless it is stuck.

    Args:
        log: File that receives what the child prints.
        environment: Environment variables to set for the child.
        options: Its time limits; after them the child counts as stuck.
        on_progress: Told how far sampling has come, in the thread that waits for it.

    Attributes:
        process_id: Number of the child, and of its process group.
    """

    def __init__(
        self,
        log: Path,
        environment: Mapping[str, str],
        options: VLLMOptions,
        on_progress: Callable[[Progress], None] = lambda told: None,
    ) -> None:
        self._log = log
        self._on_progress = on_progress
        self._options = options
        self._busy = False
        self._connection, theirs = Pipe()
        inherited = {name: value for name, value in os.environ.items() if name not in _OF_THE_TRAINER}
        with log.open("w") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "caopd.vllm_host", str(theirs.fileno())],
                env={**inherited, **environment, **python_path()},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        theirs.close()
        self.process_id = self._process.pid

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
        self._busy = True
        # A child that is stuck takes no long request either, so both ways are a thread's.
        answers: SimpleQueue[Answer] = SimpleQueue()
        Thread(target=self._exchange, args=((method, arguments), answers), daemon=True).start()
        result, error = self._wait(answers, "start_seconds" if method == "start" else "timeout_seconds")
        self._busy = False
        if isinstance(error, EOFError | OSError):
            raise EngineDiedError(f"{self._ending()}{last_words(self._log)}") from error
        if isinstance(error, EngineDiedError):
            raise EngineDiedError(f"{error}{last_words(self._log, errors_alone=True)}") from error
        if error is not None:
            raise error
        return result

    def _exchange(self, request: object, answers: SimpleQueue[Answer]) -> None:
        try:
            self._connection.send(request)
            while isinstance(answer := self._connection.recv(), Progress):
                answers.put(answer)
            answers.put(answer)
        except Exception as error:  # of the connection, or an argument that cannot be sent
            answers.put((None, error))

    def _wait(self, answers: SimpleQueue[Answer], limit: str) -> tuple[Any, Exception | None]:
        """Return the answer, or the error that says that there is none.

        Raises:
            EngineDiedError: The time limit, an attribute of the options, has passed.
        """
        seconds: float = getattr(self._options, limit)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            ended = self._process.poll() is not None
            with suppress(Empty):
                answer = answers.get(timeout=_WATCH_SECONDS)
                if not isinstance(answer, Progress):
                    return answer
                self._on_progress(answer)
                continue
            if ended:  # what it sent before has arrived
                return None, EOFError()
        raise EngineDiedError(
            f"vLLM is stuck: no answer within {seconds:g} s, which is `{limit}` of the engine's options."
            f"{last_words(self._log, errors_alone=True)}"
        )

    def close(self) -> None:
        """End the child and its descendants: ask it to end if it waits for a call, else end it at once."""
        if self._process.poll() is None and not self._busy:
            with suppress(OSError, subprocess.TimeoutExpired):
                self._connection.send(("close", ()))
                self._process.wait(_SECONDS_TO_END)
        self._process.kill()
        with suppress(subprocess.TimeoutExpired):  # the system itself waits for a device
            self._process.wait(_SECONDS_TO_END)
        end_group(self._process.pid)
        self._connection.close()

    def _ending(self) -> str:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_SECONDS_TO_END)
        code = self._process.returncode
        how = f"exit status {code}" if code is None or code >= 0 else f"killed by {signal.Signals(-code).name}"
        return f"vLLM's process has ended ({how})."
