"""Makes Ctrl-C stop a run even where Python itself would ignore it."""

from __future__ import annotations

import _thread
import sys
import threading

_SECONDS_UNTIL_AGAIN = 0.05


def raise_ignored_interrupts() -> None:
    """Raise a KeyboardInterrupt again if it came where Python ignores exceptions.

    Python raises it in whatever code the main thread runs. In the callback of a weak reference or in ``__del__``, of
    which a garbage collection calls thousands, Python prints "Exception ignored in ..." and goes on: a run that was
    asked to stop would train on.
    """
    sys.unraisablehook = _again_if_interrupted


def _again_if_interrupted(unraisable: sys.UnraisableHookArgs) -> None:
    if issubclass(unraisable.exc_type, KeyboardInterrupt):
        threading.Timer(_SECONDS_UNTIL_AGAIN, _thread.interrupt_main).start()  # here it would be ignored again
    else:
        sys.__unraisablehook__(unraisable)
