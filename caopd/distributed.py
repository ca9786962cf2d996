"""The one collective operation that rollouts need."""

from collections.abc import Sequence
from typing import TypeVar

from torch import distributed

T = TypeVar("T")


def gather_in_order(mine: Sequence[T]) -> list[T]:
    """Return every process's items, those of process 0 first; the same list in every process.

    Args:
        mine: Picklable items of this process.
    """
    if not distributed.is_available() or not distributed.is_initialized():
        return list(mine)
    shares: list[Sequence[T]] = [[] for _ in range(distributed.get_world_size())]
    distributed.all_gather_object(shares, list(mine))
    return [item for share in shares for item in share]
