"""The collective operations that rollouts need, in a process group of their own.

A collective operation is one that every process must call. They have a group of their own for two reasons. Lightning's
handler of SIGTERM and its strategies use the trainer's group, and a message of one must not be taken for one of the
other. And processes wait here while process 0 samples, which may take longer than the trainer's group is willing to
wait.

No operation is reached by one process alone: each begins with the question whether a process has failed, and one that
has failed answers it with its error.
"""

import atexit
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cache
from types import FrameType
from typing import TypeVar

import torch
from lightning import LightningModule
from torch import Tensor, distributed
from torch.distributed import ReduceOp

from caopd.errors import CaopdError, PeerError

T = TypeVar("T")


_PATIENCE = timedelta(days=1)
_PATIENCE_TO_TELL = timedelta(minutes=1)
_groups: dict[int, distributed.ProcessGroup] = {}
"""The process groups of this module, by the identity of the trainer's group."""
_known_to_all: list[BaseException] = []
"""The last error that every process knows of: it is on its way out of all of them, and is not told again."""


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

    Raises:
        PeerError: Another process has failed in a function that is called ``together``.
    """
    if not is_distributed():
        return list(mine)
    _agree()
    shares: list[Sequence[T]] = [[] for _ in range(distributed.get_world_size())]
    with _sigterm_waits():
        distributed.all_gather_object(shares, list(mine), group=_group())
    return [item for share in shares for item in share]


def together(function: Callable[[], T]) -> T:
    """Call ``function`` in every process, and go on only where it has returned in all of them.

    A process in which it raises tells the others, whichever operation of this module they are in or come to next, also
    one within the function. So the function may fail in one process alone, as code that depends on the process's own
    data does, and none waits for one that has left.

    Args:
        function: Takes no argument. It may call operations of this module, in every process the same ones.

    Raises:
        PeerError: Another process has failed; the message names it and says why. Where the function itself raises, its
            own error.
    """
    if not is_distributed():
        return function()
    try:
        result = function()
    except BaseException as error:  # Ctrl-C too: the others must not wait for ever
        if not _is_known_to_all(error):
            _tell(error)
        raise
    _agree()
    return result


def on_first_process(function: Callable[[], T]) -> T:
    """Call ``function`` in process 0 alone and return its result in every process.

    What the function raises in process 0 is raised in every process, so that none waits for one that has failed. An
    error of this package is raised as it is; any other one becomes a PeerError in the other processes.

    Args:
        function: Takes no argument and returns something picklable.
    """
    if not is_distributed():
        return function()
    outcome: list[T | None] = [None]
    if is_first_process():
        try:
            outcome = [function()]
        except BaseException as error:
            _tell(error, error if isinstance(error, CaopdError) else None)
            raise
    _agree()
    with _sigterm_waits():
        distributed.broadcast_object_list(outcome, src=0, group=_group())
    return outcome[0]  # type: ignore[return-value]  # process 0 returned it


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


def described(error: BaseException) -> str:
    """Return what other processes say of an error that this process has met.

    Args:
        error: The error; of one that this package raises on purpose the message says everything.
    """
    return str(error) if isinstance(error, CaopdError) else f"{type(error).__name__}: {error}"


def _agree(failure: CaopdError | None = None, patience: timedelta = _PATIENCE) -> None:
    """Go on only where no process has failed; every operation of this module begins with this one.

    Args:
        failure: What the other processes raise, where this one has failed.
        patience: How long this process waits for the others.

    Raises:
        CaopdError: What the first process gives that has failed; not in a process that has failed itself.
        RuntimeError: The others have not come.
    """
    has_failed = torch.tensor(int(failure is not None))
    failures: list[CaopdError | None] = [None] * distributed.get_world_size()
    with _sigterm_waits():
        distributed.all_reduce(has_failed, ReduceOp.MAX, group=_group(), async_op=True).wait(patience)
        if has_failed:
            distributed.all_gather_object(failures, failure, group=_group())
        else:
            _known_to_all.clear()
    of_peer = next((each for each in failures if each is not None), None)
    if of_peer is not None and failure is None:
        _known_to_all[:] = [of_peer]
        raise of_peer


def _tell(error: BaseException, failure: CaopdError | None = None) -> None:
    """Let every other process raise ``failure``, by default one that names this process and its error."""
    who = f"process {process_number()} of {num_processes()} (pid {os.getpid()} on {socket.gethostname()})"
    with suppress(RuntimeError):  # they are elsewhere: `training/peers.py` tells them, and ends them
        _agree(failure or PeerError(f"Stopped, since {who} failed: {described(error)}"), _PATIENCE_TO_TELL)
    _known_to_all[:] = [error]


def _is_known_to_all(error: BaseException) -> bool:
    """Return whether the error, or one that it was raised from, is what the processes have last agreed on."""
    cause: BaseException | None = error
    while cause is not None:
        if any(cause is known for known in _known_to_all):
            return True
        cause = cause.__cause__
    return False


def _group() -> distributed.ProcessGroup:
    key = id(distributed.group.WORLD)
    if key not in _groups:
        _close_all_groups_at_exit()
        _groups.clear()
        _groups[key] = distributed.new_group(backend="gloo", timeout=_PATIENCE)
    return _groups[key]


@cache
def _close_all_groups_at_exit() -> None:
    """Close the trainer's groups too, when the interpreter ends: Lightning does so for NCCL alone.

    A thread of gloo that lets go of Python's objects while Python ends aborts the process ("terminate called without an
    active exception").
    """
    atexit.register(lambda: distributed.destroy_process_group() if distributed.is_initialized() else None)


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
