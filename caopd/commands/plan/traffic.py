"""The bytes of weights and gradients that move in a round: between processes, and to vLLM."""

from __future__ import annotations

from caopd.commands.plan.devices import Device
from caopd.commands.plan.memory import engine_weights, held_weights, teacher_weights
from caopd.commands.plan.setup import Setup
from caopd.models.size import BYTES

BETWEEN, TO_VLLM = "between processes", "to vLLM"


def moved(setup: Setup) -> dict[str, float]:
    """Return the bytes that one process receives in a round, by where they go.

    Args:
        setup: The run.
    """
    found = {BETWEEN: exchange_bytes(setup), TO_VLLM: sync_bytes(setup)}
    return {name: value for name, value in found.items() if value}


def exchange_bytes(setup: Setup) -> float:
    """Return the bytes of gathered shards (student twice, teacher once) and of gradients that are added up.

    Of what is gathered from n shards a process receives all but its own. Copies of one model add up gradients in a
    ring, in which each of them passes a process twice.
    """
    gradients = setup.student.trained * BYTES[setup.student.trained_dtype]
    others = 1 - 1 / setup.processes
    if not setup.sharded:
        return setup.num_steps * 2 * gradients * others
    gathered = 2 * held_weights(setup) + teacher_weights(setup) + gradients
    return setup.num_micro_batches * gathered * others


def sync_bytes(setup: Setup) -> float:
    """Return the bytes of a sync of whole weights: gathered from shards, and handed to the process's vLLM."""
    gathered = held_weights(setup) * (1 - 1 / setup.shards)
    if setup.engine.kind == "vllm":
        return gathered + engine_weights(setup)
    return gathered if setup.engine.kind == "servers" else 0.0


def exchange_seconds(setup: Setup, device: Device) -> float:
    """Return the seconds of the bytes between processes; the link between nodes is the slower one."""
    link = device.link if setup.nodes == 1 else min(device.link, device.network)
    return exchange_bytes(setup) / link


def sync_seconds(setup: Setup, device: Device) -> float:
    """Return the seconds of a sync: shards that are gathered, and weights that are written and read in memory."""
    link = device.link if setup.nodes == 1 else min(device.link, device.network)
    gathered = held_weights(setup) * (1 - 1 / setup.shards) if sync_bytes(setup) else 0.0
    handed = 2 * engine_weights(setup) if setup.engine.kind == "vllm" else 0.0
    return gathered / link + handed / device.bandwidth
