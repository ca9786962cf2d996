"""Says which processes of a run have a vLLM of their own, which share one, and what of its machine each vLLM gets."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import torch

from caopd.distributed import gather_in_order, process_number

T = TypeVar("T")


class Place(NamedTuple):
    """What a vLLM gets of its machine, beside others of the same run.

    Attributes:
        number: Its number among the vLLMs that the run has on the machine, from 0.
        total: How many these are.
    """

    number: int = 0
    total: int = 1

    def gpus(self, first: int, count: int) -> str:
        """Return the GPUs that it sees, as ``CUDA_VISIBLE_DEVICES`` names them.

        Args:
            first: Index of the first one among those that this process sees.
            count: How many it is to have.
        """
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        names = visible.split(",") if visible else [str(index) for index in range(torch.cuda.device_count())]
        return ",".join(names[first : first + count])

    def cores(self) -> str:
        """Return its share of the CPU cores that this process may use, such as ``4,5,6,7``; at least one."""
        cores = sorted(os.sched_getaffinity(0))
        share = max(1, len(cores) // self.total)
        start = self.number * share % len(cores)
        return ",".join(map(str, cores[start : start + share]))


@dataclass(frozen=True)
class Placement:
    """Which processes of a run sample with which vLLM, the same in every process.

    Attributes:
        groups: The numbers of the processes that share a vLLM, group by group; the first of each holds it.
        hosts: The machine of every process.
        mine: Number of this process.
    """

    groups: tuple[tuple[int, ...], ...]
    hosts: tuple[str, ...]
    mine: int

    @classmethod
    def of_run(cls, size: int | None) -> Placement:
        """Return the placement of this run; a collective operation.

        Args:
            size: Number of processes that share a vLLM, of one machine, as those do whose GPUs share one model; None
                is one vLLM for all of them.
        """
        return cls.of(gather_in_order([socket.gethostname()]), size, process_number())

    @classmethod
    def of(cls, hosts: Sequence[str], size: int | None, mine: int) -> Placement:
        """Return the placement of given processes.

        Args:
            hosts: The machine of every process.
            size: As in :meth:`of_run`.
            mine: Number of this process.
        """
        groups: list[tuple[int, ...]] = []
        for host in dict.fromkeys(hosts):
            here = [number for number, each in enumerate(hosts) if each == host]
            groups += [tuple(here[start : start + size]) for start in range(0, len(here), size)] if size else []
        return cls(tuple(groups) or (tuple(range(len(hosts))),), tuple(hosts), mine)

    @property
    def group(self) -> tuple[int, ...]:
        """The processes that share this one's vLLM, this one included."""
        return next(group for group in self.groups if self.mine in group)

    @property
    def holds(self) -> bool:
        """Whether this process holds a vLLM."""
        return self.group[0] == self.mine

    @property
    def is_shared(self) -> bool:
        """Whether processes share a vLLM, anywhere in the run."""
        return any(len(group) > 1 for group in self.groups)

    @property
    def place(self) -> Place:
        """What this process's vLLM gets of its machine, where it holds one."""
        here = [group for group in self.groups if self.hosts[group[0]] == self.hosts[self.mine]]
        return Place(here.index(self.group), len(here))

    def of_group(self, shares: Sequence[Sequence[T]]) -> list[T]:
        """Return what the processes of this one's group have, one after the other.

        Args:
            shares: What every process has.
        """
        return [item for number in self.group for item in shares[number]]

    def handed_back(self, groups: Sequence[Sequence[T]], shares: Sequence[Sequence[object]]) -> list[T]:
        """Return what the holder of this process's vLLM has made of this process's items.

        Args:
            groups: What every process has made of the items of its group.
            shares: The items of every process.
        """
        before = sum(len(shares[number]) for number in self.group[: self.group.index(self.mine)])
        return list(groups[self.group[0]][before : before + len(shares[self.mine])])

    def here(self, values: Sequence[T]) -> list[T]:
        """Return the values of this machine's processes.

        Args:
            values: What every process has.
        """
        return [value for value, host in zip(values, self.hosts, strict=True) if host == self.hosts[self.mine]]

    def is_first_here(self, chosen: Sequence[bool]) -> bool:
        """Return whether this process is the first of its machine among the chosen ones.

        Args:
            chosen: Whether each process is one of them.
        """
        numbers = self.here([number if is_one else None for number, is_one in enumerate(chosen)])
        return next((number for number in numbers if number is not None), None) == self.mine
