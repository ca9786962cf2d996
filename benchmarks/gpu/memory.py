"""Time and memory of a device."""

from __future__ import annotations

import resource

import torch

MIB = 2**20


def wait(device: str) -> None:
    """Return when a GPU has finished what it has been given."""
    if device == "cuda":
        torch.cuda.synchronize()


def reset_peak(device: str) -> None:
    """Begin a new peak; a CPU's is that of the process."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()


def peak_mib(device: str) -> float:
    """Return the largest memory: what torch has allocated on a GPU, the resident set on a CPU."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / MIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
