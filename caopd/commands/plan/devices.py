"""Devices and what is assumed of them, and a probe that measures this machine."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from pathlib import Path

from caopd.errors import ConfigError

GIB = 2**30
CPU = "cpu"
_PROBE_SIZE, _PROBE_SECONDS = 1024, 1.5


@dataclass(frozen=True)
class Device:
    """A device, by its data sheet: dense products without sparsity.

    Attributes:
        name: Name of the device, as ``--device`` takes it.
        memory: Memory in bytes.
        flops_32: Operations per second of products of float32 matrices, at best.
        flops_16: The same of bfloat16 matrices.
        bandwidth: Bytes per second that its memory reads, at best.
        link: Bytes per second that it exchanges with the others of its node.
        network: Bytes per second that it exchanges with those of other nodes, an assumption: 400 Gbit/s for each.
        layer_seconds: Time that a decoder layer takes to be started in a step of transformers' ``generate``.
        efficiency: Share of the best rates that a run reaches, an assumption.
        measured: Whether the rates were measured, not assumed.
    """

    name: str
    memory: float
    flops_32: float
    flops_16: float
    bandwidth: float
    link: float
    layer_seconds: float = 6e-4
    efficiency: float = 0.4
    measured: bool = False
    network: float = 50e9

    @property
    def is_cpu(self) -> bool:
        """Whether it is the processor of this machine."""
        return self.name == CPU

    def flops(self, dtype: str) -> float:
        """Return the operations per second that products of such matrices are assumed to reach."""
        return self.efficiency * (self.flops_32 if dtype == "float32" else self.flops_16)


_TERA, _GIGA = 1e12, 1e9
GPUS = {
    device.name: device
    for device in (
        Device("a100-40g", 40 * GIB, 19.5 * _TERA, 312 * _TERA, 1555 * _GIGA, 300 * _GIGA),
        Device("a100-80g", 80 * GIB, 19.5 * _TERA, 312 * _TERA, 2039 * _GIGA, 300 * _GIGA),
        Device("h100-80g", 80 * GIB, 67 * _TERA, 989 * _TERA, 3350 * _GIGA, 450 * _GIGA),
        Device("h200-141g", 141 * _GIGA, 67 * _TERA, 989 * _TERA, 4800 * _GIGA, 450 * _GIGA),
        Device("b200-180g", 180 * _GIGA, 75 * _TERA, 2250 * _TERA, 8000 * _GIGA, 900 * _GIGA),
        Device("l40s-48g", 48 * _GIGA, 91.6 * _TERA, 362 * _TERA, 864 * _GIGA, 32 * _GIGA),
        Device("rtx4090-24g", 24 * _GIGA, 82.6 * _TERA, 165 * _TERA, 1008 * _GIGA, 32 * _GIGA),
    )
}
_CORE_FLOPS, _CPU_BANDWIDTH, _CPU_LAYER_SECONDS = 50 * _GIGA, 20 * _GIGA, 3e-4
DEVICES = (CPU, *GPUS)


def device_of(name: str, probe: bool) -> Device:
    """Return a device of the table, or this machine.

    Args:
        name: One of :data:`DEVICES`.
        probe: Whether to measure this machine's rates instead of taking the assumed ones.

    Raises:
        ConfigError: If another device than this machine is to be measured.
    """
    if name != CPU:
        if probe:
            raise ConfigError(
                f"Expected `--probe` with `--device {CPU}`, since it measures this machine's processor, but got {name}."
            )
        return GPUS[name]
    threads = int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0)))
    flops = threads * _CORE_FLOPS
    device = Device(CPU, machine_memory(), flops, flops, _CPU_BANDWIDTH, _CPU_BANDWIDTH, _CPU_LAYER_SECONDS)
    return probed(device) if probe else device


def machine_memory() -> float:
    """Return the bytes of memory that this process may use: the machine's, or what its control group leaves of it."""
    memory = float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text(encoding="ascii").strip() if limit.is_file() else "max"
    return memory if text == "max" else min(memory, float(text))


def probed(device: Device) -> Device:
    """Return this machine with the rates of products of float32 matrices, and of copies, that it reaches for seconds.

    Args:
        device: This machine, with its assumed rates.
    """
    import torch

    x_NN = torch.randn(_PROBE_SIZE, _PROBE_SIZE)
    out_NN = torch.empty_like(x_NN)
    products = _rate(lambda: torch.mm(x_NN, x_NN, out=out_NN)) * 2 * _PROBE_SIZE**3
    large, copy = torch.zeros(2**24), torch.empty(2**24)
    copied = _rate(lambda: copy.copy_(large)) * 2 * large.nbytes  # read and written
    return replace(device, flops_32=products, flops_16=products, bandwidth=copied, efficiency=0.7, measured=True)


def _rate(work: object) -> float:
    """Return how often per second a function runs."""
    assert callable(work)
    work()
    count, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < _PROBE_SECONDS:
        work()
        count += 1
    return count / elapsed
