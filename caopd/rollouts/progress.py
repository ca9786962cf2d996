"""How far a call of an engine's ``generate`` has come, for whoever shows it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Listener = Callable[[float, int], None]
"""Told how many completions are done, those in the making by the share of their longest length, and of how many."""
_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def progress_to(listener: Listener) -> Iterator[None]:
    """Let the engines that are called in the ``with`` block tell a listener how far they have come.

    Args:
        listener: Called in this process, often.
    """
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def tell_progress(done: float, total: int) -> None:
    """Tell how far a call of ``generate`` has come; an engine need not, and then no progress is shown.

    Args:
        done: Number of completions that are done.
        total: Number of completions that the call samples.
    """
    listener = _listener.get()
    if listener is not None:
        listener(done, total)
