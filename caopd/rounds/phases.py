"""Tells what a round is doing right now, how far its sampling has come, and how long each phase took."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, Protocol, runtime_checkable

Phase = Literal["sync", "rollout", "verify", "train"]


@runtime_checkable
class PhaseListener(Protocol):
    """A callback that is told what a round is doing."""

    def on_phase(self, phase: Phase) -> None:
        """Called as a phase begins."""
        ...


@runtime_checkable
class ProgressListener(Protocol):
    """A callback that is told how far completions have come, of rounds and of held-out prompts."""

    def on_progress(self, done: float, total: int) -> None:
        """Called as completions are sampled, often; arguments as in :func:`caopd.rollouts.progress.tell_progress`."""
        ...


class PhaseClock:
    """Times the phases of a round, and tells listeners when one begins and how far sampling has come.

    Args:
        on_phase: Called with the name of a phase as it begins; by default nothing is called.
        on_progress: Called as completions are sampled; by default nothing is called.
    """

    def __init__(
        self,
        on_phase: Callable[[Phase], None] = lambda phase: None,
        on_progress: Callable[[float, int], None] = lambda done, total: None,
    ) -> None:
        self._on_phase = on_phase
        self.on_progress = on_progress
        self._seconds: dict[Phase, float] = defaultdict(float)

    @contextmanager
    def __call__(self, phase: Phase) -> Iterator[None]:
        """Time the ``with`` block as a phase."""
        self._on_phase(phase)
        start = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[phase] += time.perf_counter() - start

    def take(self) -> dict[Phase, float]:
        """Return the seconds of every phase since the last call, and start over."""
        seconds, self._seconds = dict(self._seconds), defaultdict(float)
        return seconds
