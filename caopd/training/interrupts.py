"""Makes Ctrl-C stop a run even where Python itself would ignore it."""

from __future__ import annotations

import _thread
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_SECONDS_UNTIL_AGAIN = 0.05


@contextmanager
def ignored_interrupts_raised() -> Iterator[None]:
    """Within the body, raise a KeyboardInterrupt again if it came where Python ignores exceptions.

    Python raises it in whatever code the main thread runs. In the callback of a weak reference or in ``__del__``, of
    which a garbage collection calls thousands, Python prints "Exception ignored in ..." and goes on: a run that was
    asked to stop would train on.
    """
    before = sys.unraisablehook

    def again_if_interrupted(unraisable: sys.UnraisableHookArgs) -> None:
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            threading.Timer(_SECONDS_UNTIL_AGAIN, _thread.interrupt_main).start()  # here it would be ignored again
        else:
            before(unraisable)

    sys.unraisablehook = again_if_interrupted
    try:
        yield
    finally:
        sys.unraisablehook = before
