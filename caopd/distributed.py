"""The collective operations that rollouts need, in a process group of their own.

A collective operation is one that every process must call. They have a group of their own for two reasons. Lightning's
handler of SIGTERM and its strategies use the trainer's group, and a message of one must not be taken for one of the
other. And processes wait here while process 0 samples, which may take longer than the trainer's group is willing to
wait.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from types import FrameType
from typing import TypeVar

from lightning import LightningModule
from torch import Tensor, distributed

from caopd.errors import CaopdError, RolloutError

T = TypeVar("T")


_PATIENCE = timedelta(days=1)
_groups: dict[int, distributed.ProcessGroup] = {}
"""The process groups of this module, by the identity of the trainer's group."""


def is_distributed() -> bool:
    """Return whether this process is one of several that train together."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def process_number() -> int:
    """Return this process's number; 0 where it is the only one."""
    return distributed.get_rank() if is_distributed() else 0


def num_processes() -> int:
    """Return how many processes train together."""
    return distributed.get_world_size() if is_distributed() else 1


def is_first_process() -> bool:
    """Return whether this process is number 0, or the only one."""
    return process_number() == 0


def gather_in_order(mine: Sequence[T]) -> list[T]:
    """Return every process's items, those of process 0 first; the same list in every process.

    Args:
        mine: The items of this process; they must be picklable.
    """
    if not is_distributed():
        return list(mine)
    shares: list[Sequence[T]] = [[] for _ in range(distributed.get_world_size())]
    with _sigterm_waits():
        distributed.all_gather_object(shares, list(mine), group=_group())
    return [item for share in shares for item in share]


def on_first_process(function: Callable[[], T]) -> T:
    """Call ``function`` in process 0 alone and return its result in every process.

    What the function raises in process 0 is raised in every process, so that none waits for one that has failed. An
    error of this package is raised as it is; any other one becomes a RolloutError in the other processes.

    Args:
        function: Takes no argument and returns something picklable.
    """
    if not is_distributed():
        return function()
    outcome: list[tuple[T | None, CaopdError | None]] = [(None, None)]
    failure: BaseException | None = None
    with _sigterm_waits():
        if is_first_process():
            try:
                outcome = [(function(), None)]
            except BaseException as error:  # Ctrl-C too: the others must not wait for ever
                failure = error
                own = error if isinstance(error, CaopdError) else RolloutError(f"{type(error).__name__}: {error}")
                outcome = [(None, own)]
        distributed.broadcast_object_list(outcome, src=0, group=_group())
    if failure is not None:
        raise failure
    result, error_there = outcome[0]
    if error_there is not None:
        raise error_there
    return result  # type: ignore[return-value]  # process 0 returned it


def log_alike(module: LightningModule, values: Mapping[str, Tensor | float], *, logger: bool = True) -> None:
    """Log values that are the same in every process; every process must call it.

    Lightning takes these values as reduced already. A value that is logged with ``sync_dist=True`` alone is reduced
    when it is first read, so a progress bar or a callback that reads it in process 0 alone would wait for the others
    for ever.

    Args:
        module: The module; it must be in a hook in which Lightning lets it log.
        values: Name in the log -> value.
        logger: Whether loggers get the values, and not only callbacks.
    """
    module.log_dict(dict(values), logger=logger, sync_dist=True, rank_zero_only=True)


def close_group() -> None:
    """Close the process group of rollouts, if there is one; the next collective operation opens another.

    A group that still exists when the interpreter ends can crash the process, because its threads are ended only
    together with Python.
    """
    for group in _groups.values():
        if distributed.is_initialized():
            distributed.destroy_process_group(group)
    _groups.clear()


def _group() -> distributed.ProcessGroup:
    key = id(distributed.group.WORLD)
    if key not in _groups:
        _groups.clear()
        _groups[key] = distributed.new_group(backend="gloo", timeout=_PATIENCE)
    return _groups[key]


@contextmanager
def _sigterm_waits() -> Iterator[None]:
    """Put SIGTERM off to the end of the ``with`` block: its handler may communicate, and must not do so in between."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received = []

    def remember(number: int, frame: FrameType | None) -> None:
        received.append(number)

    handler = signal.signal(signal.SIGTERM, remember)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)
        if received:
            os.kill(os.getpid(), signal.SIGTERM)
