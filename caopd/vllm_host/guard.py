"""The process that cleans up where the training process is killed: ``python -m caopd.vllm_host.guard PID CHILD ...``.

vLLM's own process ends when its pipe to the training process breaks, but not if it is stuck; and files in memory stay
whoever ends. Only the standard library is imported: this process waits beside every run that uses vLLM.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress

from caopd.vllm_host.folders import clear_dead

_WATCH_SECONDS = 0.5
_SECONDS_TO_END = 5.0
_SECONDS_TO_LET_GO = 60.0


def guard(owner: int, child: int | None, parents: list[str]) -> None:
    """Wait until the owner has ended, then kill its child with all descendants and remove the owner's folders.

    Args:
        owner: The process that started this one.
        child: The process that holds vLLM, the first of its process group; None where vLLM has none of its own.
        parents: Where the owner's folders are.
    """
    while os.getppid() == owner:
        time.sleep(_WATCH_SECONDS)
    if child is not None:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        end_group(child)
    end = time.monotonic() + _SECONDS_TO_LET_GO
    while clear_dead(*parents) and time.monotonic() < end:  # a large process takes seconds to let go of its files
        time.sleep(_WATCH_SECONDS)


def end_group(number: int) -> None:
    """Kill what is left of a process group whose first process was killed.

    The others have a few seconds to notice and to end by themselves. One of them is Python's own, which then removes
    the shared memory that vLLM's processes had for their messages.

    Args:
        number: The process group.
    """
    end = time.monotonic() + _SECONDS_TO_END
    with suppress(ProcessLookupError):  # no process is left
        while time.monotonic() < end:
            os.killpg(number, 0)
            time.sleep(0.05)
        os.killpg(number, signal.SIGKILL)


if __name__ == "__main__":
    guard(int(sys.argv[1]), int(sys.argv[2]) or None, sys.argv[3:])
