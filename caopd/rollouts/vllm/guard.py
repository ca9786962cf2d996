"""Starts the process that cleans up where this one is killed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence


class Guard:
    """A small process that waits for the end of this one; then it ends vLLM and removes the folders of this process.

    Args:
        parents: Where this process makes folders.
        child: The process that holds vLLM, the first of its process group; None where it has none of its own.
    """

    def __init__(self, parents: Sequence[str], child: int | None = None) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "caopd.vllm_host.guard", str(os.getpid()), str(child or 0), *parents],
            env={**os.environ, **python_path()},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def close(self) -> None:
        """End it: this process cleans up by itself."""
        self._process.kill()
        self._process.wait()


def python_path() -> Mapping[str, str]:
    """Return the environment variable by which another Python finds the modules that this one finds."""
    return {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
