"""Has the C library give large blocks of memory back to the system when they are freed."""

from __future__ import annotations

import ctypes
import sys

_M_MMAP_THRESHOLD = -3
_LARGE_BYTES = 128 * 1024


def give_back_at_once() -> None:
    """Have every block of 128 KiB or more mapped by itself, from now on; where the C library is not glibc, do nothing.

    This is where glibc begins, but it raises the limit up to 32 MiB as mapped blocks are freed, and takes later ones
    from its heap, which keeps most of what is freed there and seldom finds it again for torch's aligned blocks. A
    sharded model gathers and frees every layer in every pass: the heap grew by four models in every process.
    """
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
