"""Tells what a round is doing right now, and how long each phase took."""

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


class PhaseClock:
    """Times the phases of a round, and tells a listener when one begins.

    Args:
        on_phase: Called with the name of a phase as it begins; by default nothing is called.
    """

    def __init__(self, on_phase: Callable[[Phase], None] = lambda phase: None) -> None:
        self._on_phase = on_phase
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
