"""The collective operations that rollouts need."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from torch import distributed

from caopd.errors import CaopdError, RolloutError

T = TypeVar("T")


def is_distributed() -> bool:
    """Return whether this process is one of several that train together."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def process_number() -> int:
    """Return this process's number; 0 where it is the only one."""
    return distributed.get_rank() if is_distributed() else 0


def is_first_process() -> bool:
    """Return whether this process is number 0, or the only one."""
    return process_number() == 0


def gather_in_order(mine: Sequence[T]) -> list[T]:
    """Return every process's items, those of process 0 first; the same list in every process.

    Args:
        mine: Picklable items of this process.
    """
    if not is_distributed():
        return list(mine)
    shares: list[Sequence[T]] = [[] for _ in range(distributed.get_world_size())]
    distributed.all_gather_object(shares, list(mine))
    return [item for share in shares for item in share]


def on_first_process(function: Callable[[], T]) -> T:
    """Call ``function`` in process 0 alone and return its result in every process.

    What it raises there is raised everywhere, so that no process waits for one that has failed: errors of this package
    as they are, others as a RolloutError in the other processes.

    Args:
        function: Takes nothing and returns something picklable.
    """
    if not is_distributed():
        return function()
    outcome: list[tuple[T | None, CaopdError | None]] = [(None, None)]
    failure: Exception | None = None
    if is_first_process():
        try:
            outcome = [(function(), None)]
        except Exception as error:
            failure = error
            own = error if isinstance(error, CaopdError) else RolloutError(f"{type(error).__name__}: {error}")
            outcome = [(None, own)]
    distributed.broadcast_object_list(outcome, src=0)
    if failure is not None:
        raise failure
    result, error_there = outcome[0]
    if error_there is not None:
        raise error_there
    return result  # type: ignore[return-value]  # process 0 returned it
